"""The error of this room."""

from __future__ import annotations

from nm_ode.errors import NmOdeError


class LawError(NmOdeError, ValueError):
    """This law does not describe this run."""
