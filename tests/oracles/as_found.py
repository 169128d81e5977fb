"""Everything that one can see of modules and generators, as values: to hold two moments against each other."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def seen(*modules: nn.Module) -> dict[str, Any]:
    """Identities and values of all that the modules hold, and the states of the global generators."""
    found: dict[str, Any] = {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002 (the global one)
        "random": str(random.getstate()),
    }
    for i, root in enumerate(modules):
        for name, module in root.named_modules():
            for key, value in vars(module).items():
                found[f"{i}.{name}.{key}"] = _seen(value)
    return found


def _seen(value: Any) -> Any:
    if isinstance(value, Tensor):
        grad = None if value.grad_fn is not None or value.grad is None else value.grad.tolist()
        return id(value), value.detach().tolist(), value.requires_grad, grad
    if isinstance(value, dict):
        return id(value), [(key, _seen(part)) for key, part in value.items()]
    if isinstance(value, list):
        return id(value), [_seen(part) for part in value]
    return id(value), repr(value)
