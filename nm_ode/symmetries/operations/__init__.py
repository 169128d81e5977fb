"""What operations are: read from a node of the graph, or declared in one table from which every kind's rules follow.

    reading         which operation a node is, its arguments, what it gives
    contractions    sums of products in any of their spellings, as an einsum
    normalisations  what is taken away of what, and the γ and β that follow
    declared        all else: of which degree an operation is homogeneous, how it hands on shifts, along which axes

An operation that is new to the rules is one entry here; one that is in no table is decomposed first, and what is then
left unknown ends what enters it.
"""

from nm_ode.symmetries.operations.reading import argument, dims_of, operation, registering, value

__all__ = ["argument", "dims_of", "operation", "registering", "value"]
