"""The command nm-ode."""

from nm_ode.cli.app import app, main

__all__ = ["app", "main"]
