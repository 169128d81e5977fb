"""The oracle of completeness: what a numerical search finds conserved in a small network, and what of it was found."""

from __future__ import annotations

from nm_ode.symmetries.proofs import discover
from nm_ode.symmetries.scan import Scan, scan_traced
from tests.random_graphs.program import Program
from tests.random_graphs.soundness import EPSILON, traced

SMALL = 160
"""Parameters at most: each entry is looked at by itself."""


def scanned(program: Program, *, seed: int = 0) -> Scan | None:
    """None for a network that is too large, or whose gradient is not its graph's."""
    if sum(p.numel() for p in program.parameters.values()) > SMALL:
        return None
    loss = traced(program, seed, EPSILON)
    return scan_traced(loss, discover(loss.graph)[0], seed=seed)
