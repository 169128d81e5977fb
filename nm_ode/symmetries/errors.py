"""The error of nm_ode.symmetries."""

from __future__ import annotations

from nm_ode.errors import NmOdeError


class SymmetryError(NmOdeError, ValueError):
    """Symmetries cannot be found: the model cannot be traced, or the loss is not known; or they are another model's.

    Example:
        >>> import torch
        >>> import nm_ode
        >>> from nm_ode.models import mlp
        >>> nm_ode.find_symmetries(mlp([4, 6, 3], "relu"), torch.randn(8, 5), loss="mse")
        Traceback (most recent call last):
            ...
        nm_ode.symmetries.errors.SymmetryError: the model cannot be evaluated at example_input ...
    """


class DependsOnValuesError(SymmetryError):
    """The model's Python, or a size in it, depends on the values of tensors."""
