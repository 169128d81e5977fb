"""The error of nm_ode.symmetries."""

from __future__ import annotations

from nm_ode.errors import NmOdeError


class SymmetryError(NmOdeError, ValueError):
    """Symmetries cannot be found: the model cannot be traced, or the loss is not known; or they are another model's."""


class DependsOnValuesError(SymmetryError):
    """The model's Python, or a size in it, depends on the values of tensors."""
