"""By what one problem is known from another, when something that was computed with one is found again."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from nm_ode.data.trees import flatten
from nm_ode.loss.batching import A_FEW, spread_samples
from nm_ode.loss.problem import Problem
from nm_ode.results.segments import digest


def problem_identity(problem: Problem) -> dict[str, Any]:
    """Parameters, dtype, device and some of the samples, as JSON has it; the loss is known by its values alone."""
    count = problem.n_samples
    some = spread_samples(count, min(A_FEW, problem.chunk_size or A_FEW))
    leaves, _ = flatten(problem.batch(some))
    arrays = [_numbers(leaf) for leaf in leaves if isinstance(leaf, Tensor)]
    how = {"autocast": problem.autocast, "ghost batches": problem.ghost_batches}
    return {
        **{name: one for name, one in how.items() if one},
        "parameters": [[slot.name, list(slot.shape), slot.start] for slot in problem.layout.slots],
        "dtype": str(problem.dtype),
        "device": problem.device.type,
        "samples": [count, digest(*arrays)],
        "chunks": problem.chunk_size,
    }


def _numbers(leaf: Tensor) -> np.ndarray:
    try:
        return np.asarray(leaf.detach().cpu().numpy())
    except (TypeError, RuntimeError):  # a dtype or a layout that NumPy has not: then by its shape
        return np.array(leaf.shape)
