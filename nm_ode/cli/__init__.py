"""The command nm-ode.

Nothing is imported here but what stops the command tidily: from the first moment on Ctrl-C must find it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nm_ode.cli.stopping import stopped_tidily

if TYPE_CHECKING:
    from nm_ode.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of the command."""
    with stopped_tidily():
        _app()()


def _app() -> Any:
    from nm_ode.cli.app import app

    globals()["app"] = app  # not the module of this name, which its import has put there
    return app


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module 'nm_ode.cli' has no attribute {name!r}")
    return _app()
