"""Symmetries of a model's loss: found in its graph and verified; and the sums that they conserve."""

from nm_ode.symmetries.check import Check
from nm_ode.symmetries.discovery import Symmetries, find_symmetries, symmetries_of
from nm_ode.symmetries.errors import SymmetryError
from nm_ode.symmetries.kinds import KINDS, Kind, SymmetryKind
from nm_ode.symmetries.meter import ChargeMeter
from nm_ode.symmetries.scan import Scan, Unexplained, scan_of, scan_symmetries
from nm_ode.symmetries.symmetry import Part, Symmetry, View

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
    "SymmetryKind",
    "Unexplained",
    "View",
    "find_symmetries",
    "scan_of",
    "scan_symmetries",
    "symmetries_of",
]
