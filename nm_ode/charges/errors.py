"""The error of nm_ode.charges."""

from __future__ import annotations

from nm_ode.errors import NmOdeError


class LawError(NmOdeError, ValueError):
    """This law does not describe this run."""
