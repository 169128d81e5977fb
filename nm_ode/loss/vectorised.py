"""Gradients at many points or of many samples at once, by `torch.func.vmap` over `functional_call`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from nm_ode.arguments import first_line
from nm_ode.data.indices import Samples
from nm_ode.data.trees import Rebuild, flatten
from nm_ode.loss.batching import DeviceBatches
from nm_ode.loss.derivatives import twice_differentiable
from nm_ode.loss.objective import Objective
from nm_ode.parameters import Layout

T = TypeVar("T")
MEMBERS, OWN_BATCHES = "members", "members with batches of their own"
_NUMBERS = 2**21  # of gradients that are in the making at once on a CPU: they stay in its caches
_WORK = (
    2**19
)  # parameters times samples of one gradient; beyond, a CPU is busy with one and gains nothing from more
_ON_DEVICE = 2**7  # times as many on an accelerator


class VectorisedWarning(UserWarning):
    """`vmap` is not possible for a loss: its gradients are taken one after another, which is slower."""


class LossAndGrad(Protocol):
    """A problem's own, of one theta and one batch."""

    def __call__(
        self, theta: Tensor, samples: Samples = None, *, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """L and ∇L, the gradient into `out` if given."""
        ...


class Loss(Protocol):
    """A problem's own, of one theta and one batch."""

    def __call__(self, theta: Tensor, samples: Samples = None) -> Tensor:
        """L, a scalar."""
        ...


class HessianProduct(Protocol):
    """A problem's own, of one theta and all samples."""

    def __call__(self, theta: Tensor, v: Tensor) -> Tensor:
        """H v, shape (P,)."""
        ...


class Vectorised:
    """One objective's gradients, vectorised over samples or over parameters.

    What `vmap` gives is held against gradients of the ordinary kind once, for the first row and the last that is taken
    with it; where it fails or differs, the ordinary ones are taken from then on, after a warning with the reason.
    """

    def __init__(
        self, model: nn.Module, objective: Objective, layout: Layout, autocast: str | None = None
    ) -> None:
        self._evaluation = _AsModule(model, objective)
        self._layout = layout
        self._names = [f"model.{name}" for name in layout.names]
        self._known: dict[str, bool] = {}  # is vmap to be trusted for samples, for members, for products …?
        self.reasons: dict[str, str] = {}  # why it is not
        self._one_at_a_time = autocast is not None
        if self._one_at_a_time:
            why = f"under autocast to {autocast} a gradient is rounded otherwise with others than by itself"
            self.reasons = {MEMBERS: why, OWN_BATCHES: why}

    def sample_grads(
        self, theta: Tensor, batches: DeviceBatches, samples: Samples, one: LossAndGrad
    ) -> Tensor:
        """Shape (B, P): one row a sample."""
        rows = theta.new_empty(batches.count(samples), self._layout.size)
        at_once = min(batches.chunk_size or len(rows), self._at_once(theta))

        def together() -> Tensor:
            start = 0
            for part in batches.pieces(samples, at_once):
                found = self._rows(theta, batches.batch(part)).mul_(batches.scale)
                rows[start : start + len(found)] = found
                start += len(found)
            return rows

        def loop() -> Tensor:
            for row, part in zip(rows, batches.pieces(samples, 1), strict=True):
                one(theta, part, out=row)
            return rows

        def agrees() -> bool:
            return _same(rows, 0, one(theta, next(batches.pieces(samples, 1)))[1])

        if not self.gains(theta, 1):
            return loop()
        return self._vectorised_or_not("samples", together, loop, agrees)

    def loss_and_grad(
        self, thetas: Tensor, batches: DeviceBatches, samples: Tensor | None, one: LossAndGrad
    ) -> tuple[Tensor, Tensor]:
        """Shapes (M,) and (M, P): at each point over its own row of `samples`, or over all."""
        losses, gradients = thetas.new_empty(len(thetas)), torch.empty_like(thetas)
        width, over = (len(batches), MEMBERS) if samples is None else (samples.shape[1], OWN_BATCHES)
        members, width = self._of_a_pass(thetas, batches, width)

        def together() -> tuple[Tensor, Tensor]:
            for start in range(0, len(thetas), members):
                some = slice(start, start + members)
                own = None if samples is None else samples[some]
                losses[some], gradients[some] = self._members(thetas[some], batches, own)
            return losses, gradients

        def loop() -> tuple[Tensor, Tensor]:
            for i, row in enumerate(gradients):
                losses[i], _ = one(thetas[i], None if samples is None else samples[i], out=row)
            return losses, gradients

        def agrees() -> bool:
            return all(
                _same(gradients, i, one(thetas[i], None if samples is None else samples[i])[1])
                for i in (0, members - 1)
            )

        if members == 1 or not self.gains(thetas, width):
            return loop()
        return self._vectorised_or_not(over, together, loop, agrees)

    def losses(self, thetas: Tensor, batches: DeviceBatches, one: Loss) -> Tensor:
        """Shape (M,): at each point, over all samples."""
        found = thetas.new_empty(len(thetas))
        members, width = self._of_a_pass(thetas, batches, len(batches))

        def together() -> Tensor:
            for start in range(0, len(thetas), members):
                some, total = thetas[start : start + members], found[start : start + members].zero_()
                for leaves, rebuild, weight in _batches_of_members(batches, None):

                    def loss(
                        theta: Tensor, leaves: list[Tensor] = leaves, rebuild: Rebuild = rebuild
                    ) -> Tensor:
                        return self._loss(theta, leaves, rebuild)

                    total.add_(vmap(loss)(some), alpha=weight)
            return found

        def loop() -> Tensor:
            return torch.stack([one(theta) for theta in thetas], out=found)

        def agrees() -> bool:
            return all(_same(found[:, None], i, one(thetas[i])[None]) for i in (0, members - 1))

        if members == 1 or not self.gains(thetas, width):
            return loop()
        with torch.no_grad():
            return self._vectorised_or_not("losses", together, loop, agrees)

    def hvp(self, thetas: Tensor, vectors: Tensor, batches: DeviceBatches, one: HessianProduct) -> Tensor:
        """H v at each point with its own v, over all samples; shape (M, P)."""
        products = torch.empty_like(thetas)
        members = min(self._at_once(thetas), len(thetas))
        width = min(len(batches), batches.chunk_size or len(batches))

        def together() -> Tensor:
            for start in range(0, len(thetas), members):
                some = slice(start, start + members)
                products[some] = self._products(thetas[some], vectors[some], batches)
            return products

        def loop() -> Tensor:
            for i, row in enumerate(products):
                row.copy_(one(thetas[i], vectors[i]))
            return products

        def agrees() -> bool:
            return all(_same(products, i, one(thetas[i], vectors[i])) for i in (0, members - 1))

        if members == 1 or not self.gains(thetas, width):
            return loop()
        return self._vectorised_or_not("products", together, loop, agrees)

    def _at_once(self, theta: Tensor) -> int:
        """Gradients in the making at once."""
        return max(1, _NUMBERS * _times(theta) // self._layout.size)

    def _of_a_pass(self, thetas: Tensor, batches: DeviceBatches, width: int) -> tuple[int, int]:
        """How many members a forward pass has, and how many samples of each, of `width`."""
        members, chunk_size = min(self._at_once(thetas), len(thetas)), batches.chunk_size
        if chunk_size is None:
            return members, width
        width = min(width, chunk_size)
        return max(1, min(members, chunk_size // width)), width  # all members' samples are those of the pass

    def gains(self, theta: Tensor, samples: int) -> bool:
        """Is one gradient so little work that several at once are faster?"""
        return not self._one_at_a_time and self._layout.size * samples <= _WORK * _times(theta)

    def _rows(self, theta: Tensor, batch: Any) -> Tensor:
        leaves, rebuild = _tensors(batch)

        def loss(theta: Tensor, *leaves: Tensor) -> Tensor:
            return self._loss(theta, [leaf.unsqueeze(0) for leaf in leaves], rebuild)

        found: Tensor = vmap(grad(loss), (None, *[0] * len(leaves)))(theta, *leaves)
        return found.detach()

    def _members(
        self, thetas: Tensor, batches: DeviceBatches, samples: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        total: tuple[Tensor, Tensor] | None = None
        for leaves, rebuild, weight in _batches_of_members(batches, samples):

            def loss(theta: Tensor, *leaves: Tensor, rebuild: Rebuild = rebuild) -> Tensor:
                return self._loss(theta, leaves, rebuild)

            # One backward pass through the sum: no member's loss depends on another's parameters.
            points = thetas.detach().requires_grad_()
            dims = (0, *[None if samples is None else 0] * len(leaves))
            losses = vmap(loss, dims)(points, *leaves)
            (gradients,) = torch.autograd.grad(losses.sum(), points)
            if total is None:
                total = losses.detach(), gradients
                if weight != 1.0:
                    total = total[0].mul_(weight), total[1].mul_(weight)
            else:
                total[0].add_(losses.detach(), alpha=weight)
                total[1].add_(gradients, alpha=weight)
        assert total is not None
        return total

    def _products(self, thetas: Tensor, vectors: Tensor, batches: DeviceBatches) -> Tensor:
        total = torch.zeros_like(thetas)
        for leaves, rebuild, weight in _batches_of_members(batches, None):

            def along(
                theta: Tensor, v: Tensor, leaves: list[Tensor] = leaves, rebuild: Rebuild = rebuild
            ) -> Tensor:
                gradient: Tensor = grad(self._loss)(theta, leaves, rebuild)
                return gradient @ v

            with twice_differentiable():
                found = vmap(grad(along))(thetas, vectors)
            total.add_(found.detach(), alpha=weight)
        return total

    def _loss(self, theta: Tensor, leaves: Any, rebuild: Rebuild) -> Tensor:
        parameters = dict(zip(self._names, self._layout.split(theta), strict=True))
        loss: Tensor = functional_call(self._evaluation, parameters, (rebuild(leaves),))
        return loss

    def _vectorised_or_not(
        self, over: str, together: Callable[[], T], loop: Callable[[], T], agrees: Callable[[], bool]
    ) -> T:
        if self._known.get(over) is False:
            return loop()
        try:
            looked_at = over == OWN_BATCHES and over not in self._known
            with (
                warnings.catch_warnings(),
                sdpa_kernel(SDPBackend.MATH),
                _WithoutPadding() if looked_at else nullcontext(),
            ):
                warnings.filterwarnings("ignore", message=".*performance drop.*")
                found = together()
        except Exception as error:  # of vmap, or of the model: then the loop raises it too
            reason = f"{type(error).__name__}: {first_line(error)}"
        else:
            if self._known.get(over) or agrees():
                self._known[over] = True
                return found
            reason = "it gives other gradients than one at a time"
        found = loop()
        self._known[over], self.reasons[over] = False, reason
        warnings.warn(
            f"gradients of many {over} are taken one at a time, because torch.func.vmap is not possible for this "
            f"loss ({reason})",
            VectorisedWarning,
            stacklevel=4,
        )
        return found


class _WithoutPadding(TorchFunctionMode):
    """Refuses embeddings with a padding index: of many weights and many indices, torch's rule pads the first alone."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        padding = args[2] if len(args) > 2 else kwargs.get("padding_idx")
        if func is nn.functional.embedding and padding is not None:
            raise RuntimeError("an embedding with padding_idx, of which torch pads the first member's alone")
        return func(*args, **kwargs)


class _AsModule(nn.Module):
    """The objective of a model as a module, whose parameters `functional_call` can replace."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self._objective = [objective]  # in a list, for it may be a module that is no part of the model

    def forward(self, batch: Any) -> Tensor:
        return self._objective[0](self.model, batch)


def _times(theta: Tensor) -> int:
    return 1 if theta.device.type == "cpu" else _ON_DEVICE


def _batches_of_members(
    batches: DeviceBatches, samples: Tensor | None
) -> Iterator[tuple[list[Tensor], Rebuild, float]]:
    """Chunks, as leaves of shape (B, …) that all members share, or (M, B, …) of their own, with their weights."""
    if samples is None:
        for batch, weight in batches.chunks(None):
            yield *_tensors(batch), weight
        return
    members, width = samples.shape
    for columns in batches.cut(samples, batches.chunk_size or width, dim=1):
        leaves, rebuild = _tensors(batches.batch(columns.reshape(-1)))
        weight = batches.weight(columns.shape[1], width)
        yield [leaf.unflatten(0, (members, columns.shape[1])) for leaf in leaves], rebuild, weight


def _tensors(batch: Any) -> tuple[list[Tensor], Rebuild]:
    leaves, rebuild = flatten(batch)
    for leaf in leaves:
        if not isinstance(leaf, Tensor) or leaf.ndim == 0:
            raise TypeError(f"the batch has a leaf that is no tensor of samples: {type(leaf).__name__}")
    return leaves, rebuild


def _same(found: Tensor, i: int, own: Tensor) -> bool:
    """Is row i as it should be, to rounding relative to the largest row?"""
    if not found.isfinite().all():
        return bool(torch.allclose(found[i], own, equal_nan=True))
    scale = torch.linalg.vector_norm(found, dim=1).max()
    tolerance = torch.finfo(found.dtype).eps ** 0.5
    return bool(torch.linalg.vector_norm(found[i] - own) <= tolerance * scale)
