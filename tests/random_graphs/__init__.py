"""Networks drawn at random as graphs of torch's operations, and what is asked of the symmetries found in them.

program     a network as lines of Python
drawing     how one is drawn: lines whose results are looked at as they are made
templates   the operations, each as a line
losses      the ends
soundness   the finite transformation of each charge leaves the loss as it is
completeness  a numerical search finds nothing beside them
minimise    of a program that fails, one with fewer lines

python -m tests.random_graphs --seeds 0 2000
"""
