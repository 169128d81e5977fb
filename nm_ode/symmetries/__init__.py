"""Symmetries of a model's loss: found in its graph, verified, and what they conserve."""

from nm_ode.symmetries.charges import ChargeMeter
from nm_ode.symmetries.constraints import Check
from nm_ode.symmetries.discovery import Symmetries, find_symmetries, symmetries_of
from nm_ode.symmetries.graph import SymmetryError
from nm_ode.symmetries.kinds import KINDS, Kind, Part, Symmetry, View

__all__ = [
    "KINDS",
    "ChargeMeter",
    "Check",
    "Kind",
    "Part",
    "Symmetries",
    "Symmetry",
    "SymmetryError",
    "View",
    "find_symmetries",
    "symmetries_of",
]
