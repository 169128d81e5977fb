"""The root of all errors, and a wrong argument; each package adds errors of its own."""

from __future__ import annotations

from bridges.errors import NmOdeError

__all__ = ["ArgumentError", "NmOdeError"]


class ArgumentError(NmOdeError, ValueError):
    """An argument out of its range, or arguments that do not go together.

    Example:
        >>> import nm_ode
        >>> nm_ode.SGD(lr=-0.1)
        Traceback (most recent call last):
            ...
        nm_ode.errors.ArgumentError: lr must be a positive number; -0.1 was given
    """
