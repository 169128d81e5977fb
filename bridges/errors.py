"""The root of all errors, and those of the engines."""

from __future__ import annotations


class NmOdeError(Exception):
    """Something that nm_ode refuses or that failed, explained in one sentence; each package adds errors of its own.

    Example:
        >>> import nm_ode
        >>> try:
        ...     nm_ode.SGD(lr=-0.1)
        ... except nm_ode.NmOdeError as error:
        ...     print(error)
        lr must be a positive number; -0.1 was given
    """


class EngineError(NmOdeError, ValueError):
    """The caller asked for something that no engine can do."""


class UnknownEngineError(EngineError):
    """No engine has this name."""


class UnknownMethodError(EngineError):
    """The engine has no method of this name."""
