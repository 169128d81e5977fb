"""What is made of all members of a sweep when they are done, each in a file of its own."""

from nm_ode.registry import Registry
from nm_ode.studies.reductions.reduction import Reduction

__all__ = ["REDUCTIONS", "Reduction"]

REDUCTIONS: Registry[Reduction] = Registry(
    "reduction",
    {"order": "nm_ode.studies.reductions.order:ORDER"},
)
"""Name in a case file's `reduce` → what it makes of all members.

Example:
    >>> from nm_ode.studies import REDUCTIONS
    >>> {name: reduction.title for name, reduction in REDUCTIONS.items()}
    {'order': 'order of each flow in the learning rate'}
"""
