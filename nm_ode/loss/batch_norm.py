"""BatchNorm's statistics for an evaluation: of training samples, at one theta."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nm_ode.loss.batching import by_chance, spread_samples
from nm_ode.loss.forward_passes import described
from nm_ode.loss.guards import ProblemError
from nm_ode.loss.problem import Problem

_Norm = nn.modules.batchnorm._BatchNorm


class GivenStatistics:
    """Mean and variance of what BatchNorm layers are given by training samples.

    Of those that take them from the batch, for they are in train mode or keep none. The samples pass in batches in
    train mode; of each layer's inputs over all batches the mean and the (biased) variance are taken, in float64. With
    one batch they are what that batch was normalised with.

    Args:
        model: as it is trained.
        problem: whose samples; they are not augmented.
        samples: how many, spread evenly over all.
        chunk_size: the most in one batch.

    Attributes:
        count: of the samples that are taken.
    """

    def __init__(self, model: nn.Module, problem: Problem, samples: int, chunk_size: int) -> None:
        self._model, self._problem = model, problem
        self._layers = [
            (described(name, module), module)
            for name, module in model.named_modules()
            if isinstance(module, _Norm) and (module.training or module.running_mean is None)
        ]
        chosen = spread_samples(problem.n_samples, samples)
        self.count = len(chosen)
        self._batches = chosen[by_chance(self.count)].tensor_split(-(-self.count // chunk_size))

    def __bool__(self) -> bool:
        """Are there layers that take them?"""
        return bool(self._layers)

    @contextmanager
    def given(self) -> Iterator[None]:
        """A context in which the layers normalise with them, and are in eval mode.

        Within `leaves_in_place`, which puts back what is changed here, and without gradients.

        Raises:
            ProblemError: a layer that is used more than once in a pass, each time with statistics of its own.
        """
        if not self._layers:
            yield
            return
        sums = [_Sums(label) for label, _ in self._layers]
        with ExitStack() as hooks:
            for one, (_, layer) in zip(sums, self._layers, strict=True):
                layer.training = True
                hooks.callback(layer.register_forward_pre_hook(one.take).remove)
            for samples in self._batches:
                self._problem.objective(self._model, self._problem.batch(samples))
                for one in sums:
                    one.end()
        for one, (_, layer) in zip(sums, self._layers, strict=True):
            layer.training = False
            mean, variance = one.moments()
            layer._buffers["running_mean"], layer._buffers["running_var"] = mean, variance
        yield


class _Sums:
    """Of one layer's inputs, channel by channel."""

    def __init__(self, label: str) -> None:
        self._label, self._calls = label, 0
        self._count = 0
        self._first: Tensor | None = None
        self._second: Tensor | None = None
        self._dtype = torch.float64

    def take(self, _layer: nn.Module, args: Any) -> None:
        """The inputs of one batch."""
        (x,) = args
        self._calls += 1
        over = [i for i in range(x.ndim) if i != 1]
        x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        variance, mean = torch.var_mean(x, over, correction=0)
        n, mean, variance, self._dtype = x.numel() // x.shape[1], mean.double(), variance.double(), mean.dtype
        self._count += n
        first, second = n * mean, n * (variance + mean.square())
        self._first = first if self._first is None else self._first + first
        self._second = second if self._second is None else self._second + second

    def end(self) -> None:
        """Of a batch."""
        if self._calls != 1:
            how = "more than once" if self._calls else "not at all"
            raise ProblemError(
                f"{self._label} is used {how} in a forward pass, so that it has no statistics of its own for an "
                "evaluation: use a layer of its own at each place"
            )
        self._calls = 0

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and biased variance."""
        assert self._first is not None
        assert self._second is not None
        mean = self._first / self._count
        variance = (self._second / self._count - mean.square()).clamp(min=0.0)
        return mean.to(self._dtype), variance.to(self._dtype)
