"""Symmetries of a model's loss: found in its graph, verified, and what they conserve."""

from nm_ode.symmetries.constraints import Check
from nm_ode.symmetries.discovery import Symmetries, find_symmetries, symmetries_of
from nm_ode.symmetries.graph import SymmetryError
from nm_ode.symmetries.kinds import KINDS, Kind, Part, Symmetry, View
from nm_ode.symmetries.meter import ChargeMeter
from nm_ode.symmetries.scan import Scan, Unexplained, scan_of, scan_symmetries

__all__ = [
    "KINDS",
    "ChargeMeter",
    "Check",
    "Kind",
    "Part",
    "Scan",
    "Symmetries",
    "Symmetry",
    "SymmetryError",
    "Unexplained",
    "View",
    "find_symmetries",
    "scan_of",
    "scan_symmetries",
    "symmetries_of",
]
