"""The root of all errors."""

from __future__ import annotations


class NmOdeError(Exception):
    """Something that nm_ode refuses or that failed, told in a sentence; each room has kinds of its own."""
