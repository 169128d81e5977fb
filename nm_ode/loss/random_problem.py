"""A loss that draws random numbers: it can be trained with and its charges be followed; no flow has it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from nm_ode.loss.guards import ProblemError
from nm_ode.loss.objective import Objective
from nm_ode.loss.problem import Problem
from nm_ode.loss.randomness import left_as_they_are


class RandomProblem(Problem):
    """A `Problem` with dropout, augmentation or other noise in the model or the objective.

    In `train` each step draws anew, from generators that are seeded by the training's seed and the step's number: the
    same seed gives the same bits, and one that was cut off goes on to them. A symmetry that holds for every draw has
    its charges and their laws. Anywhere else `loss`, `grad` and a run's `full_loss` are those of one draw, always the
    same.

    A flow needs one loss, and so do its Hessian, per-sample gradients and ensembles: they are refused. For those make a
    `Problem` of the model in eval mode.

    Noise must come from torch's, NumPy's or Python's global generators.

    Args:
        model, loss_fn, data, dtype, device, chunk_size, ghost_batches, autocast: as of `Problem`.

    Raises:
        ProblemError, DataError: as `Problem`, but for randomness.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> model = nn.Sequential(nn.Linear(10, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        >>> problem = nm_ode.RandomProblem(model, nn.functional.mse_loss, diabetes())
        >>> one, other = (nm_ode.train(problem, nm_ode.SGD(lr=0.01), steps=5, seed=seed) for seed in (0, 0))
        >>> bool((one.loss == other.loss).all()), len(set(one.loss.values.tolist()))
        (True, 5)
    """

    _drawing: _Drawing

    def _evaluated(self, objective: Objective) -> Objective:
        self._drawing = _Drawing(objective)
        return self._drawing

    @contextmanager
    def drawn(self, seed: int, step: int) -> Iterator[None]:
        """The loss with the random numbers of this step, of a training with this seed."""
        self._drawing.seed = int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
        try:
            yield
        finally:
            self._drawing.seed = 0

    @property
    def has_hessian(self) -> bool:
        """Not one that its training follows."""
        return False

    def grad_and_hvp(self, theta: Tensor, v: Tensor, samples: Any = None) -> NoReturn:
        """Raises ProblemError."""
        raise self._refused("Hessian")

    def third_derivative(self, theta: Tensor, v: Tensor, samples: Any = None) -> NoReturn:
        """Raises ProblemError."""
        raise self._refused("third derivative")

    def sample_grads(self, theta: Tensor, samples: Any = None) -> NoReturn:
        """Raises ProblemError."""
        raise self._refused("gradient of each sample")

    def ensemble_loss_and_grad(self, thetas: Tensor, samples: Any = None) -> NoReturn:
        """Raises ProblemError."""
        raise self._refused("gradient at several points")

    def ensemble_loss(self, thetas: Tensor) -> NoReturn:
        """Raises ProblemError."""
        raise self._refused("loss at several points")

    def ensemble_hvp(self, thetas: Tensor, vectors: Tensor) -> NoReturn:
        """Raises ProblemError."""
        raise self._refused("Hessian")

    def _refused(self, what: str) -> ProblemError:
        return ProblemError(
            f"a RandomProblem has another loss at each draw, so no one {what}: make a nm_ode.Problem of the model in "
            "eval mode"
        )


def drawn(problem: Problem, seed: int, step: int) -> AbstractContextManager[None]:
    """A context with the loss of this step, of a training with this seed: another in each step of a RandomProblem."""
    return problem.drawn(seed, step) if isinstance(problem, RandomProblem) else nullcontext()


class _Drawing(nn.Module):
    """An objective whose global generators begin at a seed, and have their states back afterwards."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective, self.seed = objective, 0

    def forward(self, model: Any, batch: Any) -> Tensor:
        """The loss, a scalar."""
        with left_as_they_are():
            torch.manual_seed(self.seed)
            np.random.seed(self.seed % 2**32)  # noqa: NPY002 (the global one is meant)
            random.seed(self.seed)
            return self.objective(model, batch)
