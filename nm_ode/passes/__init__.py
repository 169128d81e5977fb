"""Sums of products of vectors of theta's size: readers say which they need, and one pass makes them all.

What they cost is memory's bandwidth. So each vector is read once for all readers, a piece at a time, which stays in the
processor's cache for all products; on a device nothing is waited for.

wanted.py    what is asked for and what is found
regions.py   parts of parameters that are read at once
eager.py     their sums by torch's operations
stepping.py  what an optimiser's step will give, before it is taken
compiled.py  the same by kernels in C, made for what is asked (source.py, kernel.c) by compiler.py
shared.py    one pass, and those that the observers of a run share
"""

from nm_ode.passes.shared import Foresight, Pass, Passes
from nm_ode.passes.stepping import Settings, Stepping
from nm_ode.passes.wanted import Found, Pair, Sum, Wanted, totals

__all__ = [
    "Foresight",
    "Found",
    "Pair",
    "Pass",
    "Passes",
    "Settings",
    "Stepping",
    "Sum",
    "Wanted",
    "totals",
]
