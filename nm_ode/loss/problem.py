"""Problem: model, objective and data as pure functions of one flat vector theta."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from nm_ode.arguments import as_device, as_dtype
from nm_ode.data.indices import Samples
from nm_ode.data.sources import at_once_of
from nm_ode.loss import guards
from nm_ode.loss.autocast import Autocast, MayBeLowered, ScaledEvaluation, as_autocast
from nm_ode.loss.batching import A_FEW, DeviceBatches, Reduction, first_samples
from nm_ode.loss.bindings import require_no_second_names
from nm_ode.loss.consistency import Consistency
from nm_ode.loss.evaluation import Evaluation
from nm_ode.loss.guards import ProblemError
from nm_ode.loss.has_samples import HasSamples
from nm_ode.loss.many_points import ManyPoints
from nm_ode.loss.objective import Form, LossFunction, Objective, Supervised, any_form, short_form
from nm_ode.loss.placing import copied, placed
from nm_ode.loss.probe import first_look
from nm_ode.loss.reduction import chunked_reduction, measured_reduction, require_mean_or_sum
from nm_ode.loss.spent import MeteredProblem
from nm_ode.loss.vectorised import Vectorised
from nm_ode.modes import in_own_modes
from nm_ode.parameters import Layout, unwrapped

_TESTED = 16  # samples on which derivatives are held against differences


class Problem(HasSamples, ManyPoints, MayBeLowered, MeteredProblem):
    """L(theta) = objective(model, batch), its gradient and Hessian products, on one flat vector.

    `Problem(model, loss_fn, (x, y))` is the short form of the objective `loss_fn(model(x), y)`.

    The model is copied, so the caller's stays as it is. In the copy the trainable parameters are views into
    the theta that is being evaluated: nothing is copied in, whatever the number of tensors (a theta of another
    dtype, device or stride, an array or a list is converted first). Tied parameters appear once; frozen ones
    (`requires_grad=False`) are constants. The caller's `no_grad`, `inference_mode` and autocast change nothing.
    One thread at a time.

    Of theta's size it holds theta0; while it is made, one vector more; a gradient is one, and one parameter's part
    beside it (docs/design.md §4 has what else takes how many).

    Args:
        model: any module, in the mode (train or eval) in which the loss is meant.
        loss_fn: `(model(x), y) -> scalar`; or `nm_ode.own_loss`, the loss that the model returns of a batch.
        data: `(x, y)`, samples along the first axis; a `DataSet`; or a Dataset, DataLoader or source of such pairs. A
            tuple x is spread over the model's arguments and a dict over its keywords, where its forward has them.
        dtype: float64 or float32, of parameters and floating-point inputs. Integers stay what they are.
        device: where to compute; the model's device if None.
        chunk_size: the most samples in one forward pass. It bounds memory and changes nothing but
            rounding: a loss for which it would, is refused. Data that are not in memory (a Dataset, a source of
            one's own, `np.memmap`) are read a chunk at a time and need it.
        ghost_batches: the loss over more than chunk_size samples is the mean of those over parts of nearly equal size,
            no larger than that, each with its own statistics in BatchNorm (Hoffer et al. 2017): all samples in a fixed
            order by chance, others in the order in which they are asked for. Another loss than that of all at once,
            but one that a step on a batch has on average, and that fits into memory.
        autocast: "bfloat16" or "float16": the forward pass of losses and gradients is under torch.autocast, of
            parameters and a gradient in float32. Gradients are as coarse as that, which a solver's tolerance knows.
            In float16 the loss is scaled for the backward pass. Hessian products, third derivatives and what is held
            against differences are in float32.

    Attributes:
        theta0: shape (P,), the model's parameters at the start.
        layout: where each parameter lies in theta.
        model: the copy. Its parameters view whichever theta was evaluated last, so it is for looking at, not
            for loading into.
        objective: `objective(model, batch) -> scalar`.
        loss_fn: of the short form; None for a general objective.
        autocast: the dtype of forward passes, where that is coarser.

    Raises:
        ProblemError: active dropout or another source of randomness (`RandomProblem` takes it), a forward pass that
            writes a parameter or reads what an earlier one wrote, chunks that would change the loss (BatchNorm in train
            mode), targets of another shape than what the model gives, a dtype too coarse, nothing to train, parameters
            that overlap, a loss with parameters of its own.
        DataError: data from which no samples can be taken; labels of no class, values that are not finite.

    Example:
        >>> from torch import nn
        >>> import nm_ode
        >>> from nm_ode.data import digits
        >>> data = digits(samples=64)
        >>> model = nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10))
        >>> problem = nm_ode.Problem(model, nn.functional.cross_entropy, (data.x, data.y))
        >>> problem
        <Problem: cross_entropy of 610 parameters over 64 samples, float64 on cpu>
        >>> problem.grad(problem.theta0).shape, list(problem.layout.layers)
        (torch.Size([610]), ['0', '2'])
    """

    model: nn.Module
    objective: Objective
    loss_fn: LossFunction | None
    layout: Layout
    theta0: Tensor
    dtype: torch.dtype
    device: torch.device

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        data: Any,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
        chunk_size: int | None = None,
        ghost_batches: bool = False,
        autocast: Autocast | None = None,
    ) -> None:
        guards.require_model_and_loss(model, loss_fn)
        how = {"chunk_size": chunk_size, "ghost_batches": ghost_batches, "autocast": autocast}
        self._build(model, loss_fn, short_form(loss_fn, data), dtype, device, **how)

    @classmethod
    def from_objective(
        cls,
        model: nn.Module,
        objective: Objective,
        data: Any,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
        chunk_size: int | None = None,
        ghost_batches: bool = False,
        autocast: Autocast | None = None,
    ) -> Problem:
        """L(theta) = objective(model, batch), for batches of any structure.

        Args:
            model: as of `Problem`.
            objective: `objective(model, batch) -> scalar`. It is given the problem's copy of the model.
            data: a tree (tuples, dicts, dataclasses …) of tensors or arrays, samples along their first axis; a
                `DataSet`, of pairs (x, y); a map-style Dataset; or a `nm_ode.data.Source`. The batch has the same
                structure.
            dtype, device, chunk_size, ghost_batches, autocast: as of `Problem`.

        Raises:
            ProblemError, DataError: as `Problem`.
        """
        guards.require_model_and_loss(model, objective)
        problem = cls.__new__(cls)
        how = {"chunk_size": chunk_size, "ghost_batches": ghost_batches, "autocast": autocast}
        problem._build(model, objective, any_form(data), dtype, device, **how)
        return problem

    @in_own_modes
    def _build(
        self,
        model: nn.Module,
        loss: Callable[..., Any],
        form: Form,
        dtype: Any,
        device: Any,
        *,
        chunk_size: Any,
        ghost_batches: Any,
        autocast: Any,
    ) -> None:
        self.dtype = dtype = as_dtype(dtype, error=ProblemError)
        self.device = as_device(_device_of(model) if device is None else device, error=ProblemError)
        autocast = as_autocast(autocast, dtype)
        model = unwrapped(model)
        guards.require_initialised(model)
        guards.require_separate(model)
        require_no_second_names(model, loss)
        guards.require_no_parameter_hooks(model)
        guards.require_real_and_trainable(model)
        self.objective = objective = form.objective_of(placed(loss, model, self.device, dtype))
        self.loss_fn = objective.loss_fn if isinstance(objective, Supervised) else None
        batches = DeviceBatches(form.source(), self.device, dtype, None)
        chunk_size = guards.require_chunk_size(chunk_size, batches.in_memory, at_once_of(batches.source))
        self._batches = batches

        self.model = copied(model, self.device, dtype)
        guards.make_forward_pure(self.model)
        evaluated = self._evaluated(objective)
        evaluated = self._lowered_to(autocast, evaluated)
        guards.refuse_renormalisation(self.model)
        kind = ScaledEvaluation if self.autocast == "float16" else Evaluation
        self._at = kind(self.model, evaluated)
        self.layout, self.theta0 = self._at.layout, self._at.theta
        self._vectorised = Vectorised(self.model, objective, self.layout, self.autocast)
        first_look(self._at, objective, batches, first_samples(A_FEW, chunk_size))
        some = partial(batches.batch, first_samples(_TESTED, chunk_size))
        self._consistency = Consistency(self._at, self.model, evaluated, some, self._in_own_precision)
        if isinstance(self._at, ScaledEvaluation):
            self._at.settle(some())
        batches.ghosts = guards.require_ghosts(ghost_batches, chunk_size)
        if chunk_size is not None and chunk_size < self.n_samples:
            with self._in_own_precision():
                self.reduction = chunked_reduction(self.model, batches, self._at, chunk_size)
            batches.reduction = self.reduction or "mean"
            batches.chunk_size = chunk_size

    def _evaluated(self, objective: Objective) -> Objective:
        guards.refuse_randomness(self.model)
        return objective

    def __repr__(self) -> str:
        loss = self.objective if self.loss_fn is None else self.loss_fn
        named = getattr(loss, "__name__", type(loss).__name__)
        where = f"{str(self.dtype).removeprefix('torch.')} on {self.device}"
        what = f"{named} of {self.layout.size} parameters over {self.n_samples} samples"
        return f"<{type(self).__name__}: {what}, {where}>"

    @property
    def foreign_gradient(self) -> str:
        """Why `grad` is not the gradient of `loss` (straight-through estimators, detached tensors …); empty if it is.

        Measured once, by differences on a few samples. Such a problem can be trained and its flow be solved; it has no
        Hessian, and no quantity is conserved by reason of a symmetry of the loss.
        """
        return self._consistency.foreign_gradient

    @property
    def has_hessian(self) -> bool:
        """Has it one, with products that can be trusted? Measured once, as `hvp` does before its first product."""
        return self._consistency.has_hessian

    @in_own_modes
    def loss(self, theta: Tensor, samples: Samples = None) -> Tensor:
        """L(theta), a scalar of the problem's dtype, over `samples` (all if None)."""
        self._at.set(theta)
        total = torch.zeros((), dtype=self.dtype, device=self.device)
        with torch.no_grad():
            for batch, weight in self._batches.chunks(samples):
                total += weight * self._at.loss(batch)
        return total

    def grad(self, theta: Tensor, samples: Samples = None, *, out: Tensor | None = None) -> Tensor:
        """∇L(theta), shape (P,); written into `out` if given, which saves an allocation of P numbers."""
        return self.loss_and_grad(theta, samples, out=out)[1]

    @in_own_modes
    def loss_and_grad(
        self, theta: Tensor, samples: Samples = None, *, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """L(theta) and ∇L(theta) from one forward and one backward pass; the gradient into `out` if given."""
        self._at.set(theta, taking="gradients")
        self._at.require_out(out)
        chunks = self._batches.chunks(samples)
        batch, weight = next(chunks)
        loss, gradient = self._at.loss_and_grad(batch, out)
        if weight != 1.0:
            loss, gradient = loss * weight, gradient.mul_(weight)
        for batch, weight in chunks:
            loss += weight * self._at.loss_and_add_grad(batch, gradient, weight)
        return loss, gradient

    def hvp(self, theta: Tensor, v: Tensor, samples: Samples = None) -> Tensor:
        """H(theta) v, shape (P,), exact (double backward; Pearlmutter 1994).

        Raises:
            NoSecondDerivative: an operation has none, or a wrong one; or the gradient is not the loss's. The first
                product is held against differences on a few samples.
        """
        return self.grad_and_hvp(theta, v, samples)[1]

    @in_own_modes
    def grad_and_hvp(self, theta: Tensor, v: Tensor, samples: Samples = None) -> tuple[Tensor, Tensor]:
        """∇L(theta) and H(theta) v from one forward and two backward passes.

        Raises:
            NoSecondDerivative: as `hvp`.
        """
        self._consistency.require_hessian()
        self._at.set(theta, taking="hvps")
        direction = self._at.split(v, "v")
        return self._accumulate(lambda batch: self._at.grad_and_hvp(batch, direction), samples)

    @in_own_modes
    def third_derivative(self, theta: Tensor, v: Tensor, samples: Samples = None) -> Tensor:
        """∇³L(theta)[v, v], shape (P,), exact: the gradient of vᵀH(theta)v with v held fixed.

        Raises:
            NoSecondDerivative: as `hvp`.
        """
        self._consistency.require_third()
        self._at.set(theta, taking="third_derivatives")
        direction = self._at.split(v, "v")
        found = self._accumulate(lambda batch: self._at.loss_and_third_derivative(batch, direction), samples)
        return found[1]

    @in_own_modes
    def sample_grads(self, theta: Tensor, samples: Samples = None) -> Tensor:
        """∇L(theta) over each sample alone, shape (B, P): row i is `grad` with the i-th of `samples` as the batch.

        Many at once by `torch.func.vmap`, or one at a time where one is so much work that this is faster. Where vmap is
        not possible, they are taken one at a time too, after a `VectorisedWarning` that says why.

        Raises:
            ProblemError: a loss that is neither the mean nor the sum of its samples' (BatchNorm in train mode does
                this, or class weights), with which a sample has no gradient of its own.
        """
        consequence = "a sample has no gradient of its own"
        guards.refuse_batch_statistics(self.model, consequence, "put the module in eval mode")
        require_mean_or_sum(self.reduction, consequence, "take grad(theta, samples), over a batch")
        theta = self._at.vector(theta, "theta")
        with self._at.watched():
            return self._vectorised.sample_grads(theta, self._batches, samples, self.loss_and_grad)

    @in_own_modes
    def subset(self, samples: Samples) -> Problem:
        """The loss over these samples alone, on the same model: a view, made without a copy of the parameters."""
        view = copy.copy(self)
        if samples is not None:
            view._batches = self._batches.subset(samples)
            vars(view).pop("reduction", None)  # of all samples
        return view

    def scaled(self, factor: float) -> Problem:
        """factor · L and its derivatives: a view. Its `objective`, `loss_on` and `loss_graph` are those of L."""
        view = copy.copy(self)
        view._batches = self._batches.scaled(factor)
        return view

    def loss_on(self, theta: Tensor, batch: Any) -> Tensor:
        """The objective at theta of a batch on the device, with its autograd graph where gradients are on."""
        self._at.set(theta)
        return self._at.loss(batch)

    @cached_property
    @in_own_modes
    def reduction(self) -> Reduction | None:
        """Is the loss over samples the mean or the sum of theirs? None if it is neither. Measured once."""
        if self.chunk_size is not None and not self.ghost_batches:
            return self._batches.reduction
        with self._in_own_precision():
            return measured_reduction(self._batches, self._at, self.chunk_size or self.n_samples)

    @in_own_modes
    def loss_graph(self) -> Tensor:
        """The loss at theta0 on a few samples with its autograd graph, for looking at the operations."""
        return self.loss_on(self.theta0, self.batch(first_samples(A_FEW, self.chunk_size)))

    def rest(self) -> None:
        """Let the parameters view theta0 again, and so go of the theta that was evaluated last."""
        self._at.set(self.theta0)

    def _accumulate(
        self, of_batch: Callable[[Any], tuple[Tensor, Tensor]], samples: Samples
    ) -> tuple[Tensor, Tensor]:
        chunks = self._batches.chunks(samples)
        batch, weight = next(chunks)
        with self._in_own_precision():
            first, second = of_batch(batch)
            if weight != 1.0:
                first, second = first * weight, second.mul_(weight)
            for batch, weight in chunks:
                more_first, more_second = of_batch(batch)
                first += weight * more_first
                second.add_(more_second, alpha=weight)
        return first, second


def _device_of(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
