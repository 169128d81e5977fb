"""The root of all errors, and a wrong argument; each package adds errors of its own."""

from __future__ import annotations

from bridges.errors import NmOdeError

__all__ = ["ArgumentError", "NmOdeError"]


class ArgumentError(NmOdeError, ValueError):
    """An argument out of its range, or arguments that do not go together."""
