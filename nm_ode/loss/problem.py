"""Problem: model, loss and data as pure functions of one flat vector theta."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from nm_ode.errors import NmOdeError
from nm_ode.loss.derivatives import thrice_differentiable, twice_differentiable
from nm_ode.parameters import Layout

LossFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Samples: TypeAlias = Tensor | slice | None
"""Which samples a loss is taken over: an index vector, a slice, or None for all."""

_PROBE = 64  # samples looked at where one forward pass is enough to know


class ProblemError(NmOdeError, ValueError):
    """Model, loss and data do not make a deterministic, differentiable function of theta."""


class Problem:
    """L(theta) = loss_fn(model(x), y), its gradient and Hessian–vector products, on one flat vector.

    The model is copied, so the caller's stays as it is. In the copy the trainable parameters are views into
    the theta that is being evaluated: nothing is copied in, whatever the number of tensors (a theta of another
    dtype, device or stride is converted first). Tied parameters appear once; frozen ones
    (`requires_grad=False`) are constants. One thread at a time.

    Args:
        model: any module, in the mode (train or eval) in which the loss is meant.
        loss_fn: `(model(x), y) -> scalar`.
        data: `(x, y)`, samples along the first axis.
        dtype: float64 or float32, of parameters and floating-point inputs.
        device: where to compute; the model's device if None.
        chunk_size: the most samples in one forward pass. It bounds memory and changes nothing but
            rounding: a loss for which it would, is refused.

    Attributes:
        theta0: shape (P,), the model's parameters at the start.
        layout: where each parameter lies in theta.
        model: the copy. Its parameters view whichever theta was evaluated last, so it is for looking at, not
            for loading into.

    Raises:
        ProblemError: active dropout or another source of randomness, chunks that would change the loss
            (BatchNorm in train mode), a dtype too coarse, nothing to train, parameters that overlap.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        data: tuple[Tensor, Tensor],
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
        chunk_size: int | None = None,
    ) -> None:
        _require_dtype(dtype)
        _require_initialised(model)
        _require_separate(model)
        first = next(model.parameters(), None)
        if device is None:
            device = first.device if first is not None else "cpu"
        self.dtype = dtype
        self.device = torch.device(device)
        self.loss_fn = copy.deepcopy(loss_fn).to(self.device) if isinstance(loss_fn, nn.Module) else loss_fn
        self.x, self.y = (self._place(part) for part in data)
        if len(self.x) != len(self.y) or len(self.x) == 0:
            raise ProblemError(
                f"data: {len(self.x)} inputs and {len(self.y)} targets; give as many of each, at least one"
            )
        if chunk_size is not None and chunk_size < 1:
            raise ProblemError(f"chunk_size must be at least 1; {chunk_size} was given")

        self.model = _copy(model).to(device=self.device, dtype=dtype)
        self._parameters, self.layout = _trainable(self.model)
        self._sizes = [slot.size for slot in self.layout.slots]
        self.theta0 = self._flat([parameter.detach() for parameter in self._parameters])
        _forget_running_statistics(self.model)

        self.chunk_size: int | None = None
        self._reduction = "mean"
        _refuse_randomness(self.model)
        _refuse_renormalisation(self.model)
        self._refuse_random_loss()
        if chunk_size is not None and chunk_size < self.n_samples:
            self._reduction = self._chunked_reduction(chunk_size)
            self.chunk_size = chunk_size

    @property
    def n_samples(self) -> int:
        """Number of samples in the data."""
        return len(self.x)

    def loss(self, theta: Tensor, samples: Samples = None) -> Tensor:
        """L(theta), a scalar of the problem's dtype, over `samples` (all if None)."""
        self._set(theta)
        total = torch.zeros((), dtype=self.dtype, device=self.device)
        with torch.no_grad():
            for x, y, weight in self._chunks(samples):
                total += weight * self._forward(x, y)
        return total

    def grad(self, theta: Tensor, samples: Samples = None, *, out: Tensor | None = None) -> Tensor:
        """∇L(theta), shape (P,); written into `out` if given, which saves an allocation of P numbers."""
        return self.loss_and_grad(theta, samples, out=out)[1]

    def loss_and_grad(
        self, theta: Tensor, samples: Samples = None, *, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """L(theta) and ∇L(theta) from one forward and one backward pass; the gradient into `out` if given."""
        self._set(theta)

        def one_chunk(x: Tensor, y: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
            loss = self._forward(x, y)
            return loss.detach(), self._flat(self._derivatives(loss), out)

        return self._accumulate(one_chunk, samples, out)

    def hvp(self, theta: Tensor, v: Tensor, samples: Samples = None) -> Tensor:
        """H(theta) v, shape (P,), exact (double backward; Pearlmutter 1994)."""
        return self.grad_and_hvp(theta, v, samples)[1]

    def grad_and_hvp(self, theta: Tensor, v: Tensor, samples: Samples = None) -> tuple[Tensor, Tensor]:
        """∇L(theta) and H(theta) v from one forward and two backward passes."""
        self._set(theta)
        direction = self._split(v, "v")

        def one_chunk(x: Tensor, y: Tensor, out: None) -> tuple[Tensor, Tensor]:
            loss = self._forward(x, y)
            gradients = self._derivatives(loss, create_graph=True)
            along = self._along(gradients, direction)
            flat = self._flat([g.detach() for g in gradients])
            if not along.requires_grad:  # the loss is linear in theta
                return flat, torch.zeros_like(flat)
            return flat, self._flat(self._derivatives(along))

        with twice_differentiable():
            return self._accumulate(one_chunk, samples)

    def third_derivative(self, theta: Tensor, v: Tensor, samples: Samples = None) -> Tensor:
        """∇³L(theta)[v, v], shape (P,), exact: the gradient of vᵀH(theta)v with v held fixed."""
        self._set(theta)
        direction = self._split(v, "v")

        def one_chunk(x: Tensor, y: Tensor, out: None) -> tuple[Tensor, Tensor]:
            loss = self._forward(x, y)
            quantity = loss
            for _ in range(2):  # ⟨g, v⟩, then ⟨Hv, v⟩
                if quantity.requires_grad:
                    quantity = self._along(self._derivatives(quantity, create_graph=True), direction)
            if not quantity.requires_grad:  # the loss is quadratic in theta
                return loss.detach(), torch.zeros(self.layout.size, dtype=self.dtype, device=self.device)
            return loss.detach(), self._flat(self._derivatives(quantity))

        with thrice_differentiable():
            return self._accumulate(one_chunk, samples)[1]

    def subset(self, samples: Samples) -> Problem:
        """The loss over these samples alone, on the same model: a view, made without a copy of the parameters."""
        view = copy.copy(self)
        if samples is not None:
            view.x, view.y = self.x[samples], self.y[samples]
            if len(view.x) == 0:
                raise ProblemError("the loss over no samples is not defined: `samples` is empty")
        return view

    def loss_graph(self) -> Tensor:
        """The loss at theta0 on a few samples with its autograd graph, for looking at the operations."""
        self._set(self.theta0)
        few = slice(0, _PROBE)
        return self._forward(self.x[few], self.y[few])

    def _along(self, derivatives: Sequence[Tensor], direction: Sequence[Tensor]) -> Tensor:
        """Inner product with a direction, of the derivatives that depend on theta."""
        return sum(
            ((d * part).sum() for d, part in zip(derivatives, direction, strict=True) if d.requires_grad),
            start=torch.zeros((), dtype=self.dtype, device=self.device),
        )

    def _derivatives(self, of: Tensor, create_graph: bool = False) -> tuple[Tensor, ...]:
        """By each parameter; zero for those that `of` does not depend on."""
        return torch.autograd.grad(
            of, self._parameters, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )

    def _accumulate(
        self,
        one_chunk: Callable[[Tensor, Tensor, Any], tuple[Tensor, Tensor]],
        samples: Samples,
        out: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        chunks = self._chunks(samples)
        x, y, weight = next(chunks)
        first, second = one_chunk(x, y, out)
        if weight != 1.0:
            first, second = first * weight, second.mul_(weight)
        for x, y, weight in chunks:
            more_first, more_second = one_chunk(x, y, None)
            first += weight * more_first
            second.add_(more_second, alpha=weight)
        return first, second

    def _chunks(self, samples: Samples) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Inputs, targets and weight of each chunk; the weighted sum over chunks is the loss."""
        x, y = (self.x, self.y) if samples is None else (self.x[samples], self.y[samples])
        if len(x) == 0:
            raise ProblemError("the loss over no samples is not defined: `samples` is empty")
        if self.chunk_size is None or self.chunk_size >= len(x):
            yield x, y, 1.0
            return
        for start in range(0, len(x), self.chunk_size):
            part = slice(start, start + self.chunk_size)
            weight = len(x[part]) / len(x) if self._reduction == "mean" else 1.0
            yield x[part], y[part], weight

    def _forward(self, x: Tensor, y: Tensor) -> Tensor:
        loss = self.loss_fn(self.model(x), y)
        if loss.ndim != 0:
            raise ProblemError(
                f"the loss function returns shape {tuple(loss.shape)}; it must return a scalar, "
                "as torch's losses do with reduction='mean'"
            )
        return loss

    def _place(self, part: Tensor) -> Tensor:
        part = torch.as_tensor(part)
        return part.to(self.device, self.dtype if part.is_floating_point() else part.dtype)

    def _set(self, theta: Tensor) -> None:
        # The parameters keep the memory that they view alive, so the same address is the same memory: a theta
        # that an optimiser moves in place needs to be looked at once.
        if theta.data_ptr() == self._parameters[0].data_ptr() and self._is_plain(theta):
            return
        for parameter, piece in zip(self._parameters, self._split(theta, "theta"), strict=True):
            parameter.data = piece

    def _is_plain(self, theta: Tensor) -> bool:
        return (
            theta.shape == (self.layout.size,)
            and theta.dtype == self.dtype
            and theta.device == self.device
            and theta.is_contiguous()
        )

    def _split(self, vector: Tensor, name: str) -> list[Tensor]:
        """Views of `vector` in the shapes of the parameters."""
        if vector.shape != (self.layout.size,):
            raise ProblemError(
                f"{name} has shape {tuple(vector.shape)}; this problem's theta has ({self.layout.size},)"
            )
        vector = vector.detach().to(device=self.device, dtype=self.dtype).contiguous()
        pieces = torch.split(vector, self._sizes)
        return [piece.view(slot.shape) for piece, slot in zip(pieces, self.layout.slots, strict=True)]

    def _flat(self, tensors: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
        return torch.cat([tensor.reshape(-1) for tensor in tensors], out=out)

    def _refuse_random_loss(self) -> None:
        few = slice(0, _PROBE)
        losses = torch.stack([self.loss(self.theta0, few) for _ in range(3)])
        spread, scale = (losses - losses[0]).abs().max(), losses.abs().max()
        if spread > 1e3 * torch.finfo(self.dtype).eps * scale:
            raise ProblemError(
                f"the loss is random: the same theta and data gave {losses[0]:.6g} and {losses[1]:.6g}; "
                "a flow needs a deterministic loss (switch the noise off, or call model.eval())"
            )

    def _chunked_reduction(self, chunk_size: int) -> str:
        """'mean' or 'sum', measured: every chunk's loss must be that of its parts put together."""
        _refuse_train_mode_batch_norm(self.model)
        tolerance = 1e4 * torch.finfo(self.dtype).eps
        possible = {"mean", "sum"}
        with torch.no_grad():
            for start in range(0, self.n_samples - 1, max(chunk_size, 2)):
                x, y = (part[start : start + max(chunk_size, 2)] for part in (self.x, self.y))
                if len(x) < 2:
                    continue
                cut = (len(x) + 2) // 3
                whole, left, right = (self._forward(x[s], y[s]) for s in _whole_and_parts(cut))
                for name, together in (
                    ("mean", (cut * left + (len(x) - cut) * right) / len(x)),
                    ("sum", left + right),
                ):
                    if not (together - whole).abs() <= tolerance * max(whole.abs(), left.abs(), right.abs()):
                        possible.discard(name)
        if len(possible) != 1:
            raise ProblemError(
                "chunk_size would change the loss: over a chunk it is neither the mean nor the sum of its "
                "samples' losses (batch-dependent layers, class weights or ignored targets do this); "
                "leave chunk_size out"
            )
        return possible.pop()


def _whole_and_parts(cut: int) -> tuple[slice, slice, slice]:
    return slice(None), slice(0, cut), slice(cut, None)


def _require_dtype(dtype: torch.dtype) -> None:
    if dtype not in (torch.float64, torch.float32):
        raise ProblemError(
            f"dtype {str(dtype).removeprefix('torch.')} is too coarse: its rounding hides the errors that "
            "are to be measured; use float64 (or float32)"
        )


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        raise ProblemError(
            f"the model cannot be copied ({error}): a module keeps a computed tensor as an attribute, as the "
            "old torch.nn.utils.weight_norm does; use torch.nn.utils.parametrizations instead"
        ) from error


def _require_initialised(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ProblemError(f"parameter {name!r} has no shape yet: run the model once on an input first")


def _require_separate(model: nn.Module) -> None:
    """Two parameters over the same memory: torch.optim would move it twice, a flat vector only once."""
    taken = sorted(
        (p.data_ptr(), p.data_ptr() + p.numel() * p.element_size(), name)
        for name, p in model.named_parameters()
        if p.numel()
    )
    for (_, end, name), (start, _, other) in pairwise(taken):
        if start < end:
            raise ProblemError(
                f"parameters {name!r} and {other!r} share memory but are two parameters: tie them by "
                "assigning the same nn.Parameter to both"
            )


def _trainable(model: nn.Module) -> tuple[list[nn.Parameter], Layout]:
    layout = Layout.of(model)
    parameters = [model.get_parameter(name) for name in layout.names]
    for name, parameter in zip(layout.names, parameters, strict=True):
        if parameter.is_complex():
            raise ProblemError(f"parameter {name!r} is complex; write it as two real ones")
    if layout.size == 0:
        raise ProblemError("the model has no trainable parameter (requires_grad is False for all)")
    return parameters, layout


def _forget_running_statistics(model: nn.Module) -> None:
    """In train mode running statistics are written but not read: without them a forward pass is pure."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.training:
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            module.sparse = False


def _refuse_randomness(model: nn.Module) -> None:
    dropouts = (nn.modules.dropout._DropoutNd,)
    for name, module in model.named_modules():
        if not module.training:
            continue
        rate = module.p if isinstance(module, dropouts) else getattr(module, "dropout", 0.0)
        if isinstance(rate, float | int) and rate > 0:
            raise ProblemError(
                f"module {name!r} ({type(module).__name__}) drops units at random with probability {rate}: "
                "a flow needs a deterministic loss; call model.eval(), or set the probability to 0"
            )


def _refuse_renormalisation(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
            raise ProblemError(
                f"module {name!r} ({type(module).__name__}) rescales its weights in the forward pass, so the loss "
                "is no function of theta; leave max_norm out"
            )


def _refuse_train_mode_batch_norm(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.training or module.running_mean is None
        ):
            raise ProblemError(
                f"module {name!r} ({type(module).__name__}) takes its statistics from the batch, so "
                "chunk_size would change the loss; leave chunk_size out, or put the module in eval mode"
            )
