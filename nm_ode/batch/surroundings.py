"""What a member finds around it is the same in every process: a result does not depend on its companions."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from threadpoolctl import threadpool_limits


@contextmanager
def same_surroundings(seed: int, threads: int) -> Iterator[None]:
    """Global random generators by the seed, torch's own default type, so many threads; as before afterwards.

    A user's code may draw from the global generators, or set the default type, and so might have another's before it.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    dtype, before = torch.get_default_dtype(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(), threadpool_limits(threads):
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            if (
                torch.are_deterministic_algorithms_enabled() != deterministic
            ):  # else it imports a compiler for nothing
                torch.use_deterministic_algorithms(deterministic)
            torch.set_num_threads(before)
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
