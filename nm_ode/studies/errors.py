"""What is wrong with a case."""

from __future__ import annotations

from nm_ode.errors import NmOdeError


class CaseError(NmOdeError, ValueError):
    """A mistake in a case file or in what it names, reported in one sentence a line."""


class NotHereError(CaseError):
    """A device or data that the case names are not on this machine."""
