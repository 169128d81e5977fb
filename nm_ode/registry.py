"""How one addition is one file and one line: a registry for each kind of thing."""

from __future__ import annotations

from bridges.registry import Registry, UnknownNameError, did_you_mean

__all__ = ["Registry", "UnknownNameError", "did_you_mean"]
