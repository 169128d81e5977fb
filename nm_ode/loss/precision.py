"""How many digits of a problem's gradient are true: its rounding noise, measured.

A model may compute in float32 or bfloat16 inside, whatever the dtype of theta; a solver that is asked for more digits
than the gradient has takes ever smaller steps and does not end. The noise is what is left of the gradient along a
short segment after differences have taken out all that is smooth (Moré & Wild 2011, "Estimating computational noise",
§3: the k-th differences of noise of variance σ² have the variance σ² (2k)!/(k!)²).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from nm_ode.arguments import dtype_name
from nm_ode.loss.batching import A_FEW, first_samples
from nm_ode.loss.directions import normal, scale
from nm_ode.loss.forward_passes import around_modules
from nm_ode.loss.nonsmooth import kinks
from nm_ode.loss.once import once_per_problem
from nm_ode.loss.problem import Problem
from nm_ode.loss.sums import PIECE

_ORDERS = range(2, 5)  # of the differences
_STEP = 1e-9  # relative to theta: so short that no kink is likely to lie in a segment, and eps/step a good derivative
_ENTRIES = 100_000  # of the gradient that are looked at
_TF32 = 2.0**-10  # the rounding of TF32
_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv"}
_OWN = 30.0  # roundings of the problem's own dtype that are nothing out of the ordinary
_MOST = 16.0  # roundings of a coarser dtype that it can explain; what is above comes from kinks


@dataclass(frozen=True)
class Precision:
    """What is true of a gradient.

    Attributes:
        noise: 2-norm of the gradient's rounding noise, relative to the gradient or to the change that theta's own size
            makes in it, whichever is larger.
        coarse: where what is computed from theta is of a coarser dtype than the problem's: "float32 in module '1'
            (RMSNorm)".
        own: the noise is that of the problem's own dtype, and nothing out of the ordinary.
    """

    noise: float
    coarse: tuple[str, ...] = ()
    own: bool = True

    def words(self) -> str:
        """ "the gradient's rounding noise is 9e-09 of its size (float32 in module '1' (RMSNorm))"."""
        where = f" ({', '.join(self.coarse)})" if self.coarse else ""
        return f"the gradient's rounding noise is {self.noise:.0e} of its size{where}"


@once_per_problem
def gradient_precision(problem: Problem) -> Precision:
    """The rounding noise of ∇L at theta0, on a few samples; measured once for a problem.

    Seven to thirty gradients over at most 64 samples, and one forward pass that looks at the dtypes inside. Where the
    gradient jumps (`kinks`) and is in float32, a jump cannot be told from rounding: then the dtypes alone count.
    """
    eps = torch.finfo(problem.dtype).eps
    coarsest, coarse = _coarse_dtypes(problem)
    if coarsest > eps:
        # A long segment, so that its points are rounded differently: what is smooth takes higher differences.
        noise = min(_noise(problem, coarsest / 8, seed=0, orders=range(2, 7)), _MOST * coarsest)
        if not noise <= _OWN * eps:
            return Precision(noise, coarse, own=False)
    step = _STEP if problem.dtype == torch.float64 else eps
    if problem.dtype != torch.float64 and kinks(problem):
        return Precision(eps)
    noise = _noise(problem, step, seed=0)
    if noise <= _OWN * eps:
        return Precision(max(noise, eps / 2))
    # Either one unit has passed its kink by chance, or it is noise, of which a longer segment shows more.
    again = min(noise, *(_noise(problem, step, seed) for seed in (1, 2)))
    if again <= _OWN * eps:
        return Precision(max(again, eps / 2))
    longer = min(_noise(problem, 30 * step, seed) for seed in (3, 4))
    return Precision(max(again, longer), own=False)


def _noise(problem: Problem, step: float, seed: int, orders: range = _ORDERS) -> float:
    """Along a segment of random direction, in steps of `step` times theta; 0 where nothing can be measured."""
    points = orders.stop + 2
    samples = first_samples(A_FEW)
    theta = problem.theta0
    direction = normal(theta.new_empty(len(theta), dtype=torch.float64), seed)
    scale(direction, theta, problem.layout)
    every, point = 1 + len(theta) // _ENTRIES, torch.empty_like(theta)
    kept = []
    for i in range(points):
        for at, start, along in zip(*(one.split(PIECE) for one in (point, theta, direction)), strict=True):
            at.copy_(torch.add(start.double(), along, alpha=step * (1 + i)))
        # A copy: a view would hold the whole gradient.
        kept.append(problem.grad(point, samples)[::every].clone().double())
    gradients = torch.stack(kept)
    size = max(
        float(gradients[0].norm()), float((gradients[-1] - gradients[0]).norm()) / ((points - 1) * step)
    )
    if not 0 < size < math.inf:
        return 0.0
    found, differences = [], gradients
    for order in range(1, orders.stop):
        differences = differences[1:] - differences[:-1]
        if order in orders:
            # The median along the segment: a kink is in few differences.
            share = math.factorial(order) / math.sqrt(math.factorial(2 * order))
            found.append(share * float(differences.norm(dim=1).median()) / size)
    return min(found)


def _coarse_dtypes(problem: Problem) -> tuple[float, tuple[str, ...]]:
    """The rounding of the coarsest dtype that what depends on theta passes through, and where such dtypes occur."""
    looking = _Dtypes([problem.theta0], torch.finfo(problem.dtype).eps)
    with around_modules(problem.model.named_modules(), looking.enter, looking.leave), looking:
        problem.loss_graph()
    return looking.coarsest, tuple(looking.found)


def coarsest_rounding(parameters: Sequence[Tensor], compute: Callable[[], object]) -> float:
    """The rounding of the coarsest dtype that what is computed from the parameters passes through; theirs at least."""
    eps = max(torch.finfo(one.dtype).eps for one in parameters)
    looking = _Dtypes(parameters, eps)
    with looking:
        compute()
    return looking.coarsest


def takes_tf32(operation: str) -> bool:
    """Does this operation of torch round float32 to TF32's ten bits on a GPU? By default convolutions do."""
    if "convolution" in operation:
        return bool(torch.backends.cudnn.allow_tf32)
    return operation in _PRODUCTS and bool(torch.backends.cuda.matmul.allow_tf32)


class _Dtypes(TorchDispatchMode):
    """Follows what is computed from theta, detached or not, by its memory, and looks at its dtypes."""

    def __init__(self, parameters: Sequence[Tensor], eps: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.coarsest, self.found = eps, dict[str, None]()
        self._eps, self._inside = eps, list[str]()
        self._alive = list(parameters)  # so that no memory is used twice
        self._from_theta = {_memory(one) for one in parameters}

    def enter(self, module: str) -> None:
        """A module's forward pass begins."""
        self._inside.append(module)

    def leave(self, *_: Any) -> None:
        """It ends."""
        self._inside.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        depends = any(self._depends(leaf) for leaf in pytree.tree_leaves((args, kwargs)))
        made = func(*args, **(kwargs or {}))
        if depends:
            for leaf in pytree.tree_leaves(made):
                if isinstance(leaf, Tensor):
                    self._alive.append(leaf)
                    self._from_theta.add(_memory(leaf))
                    self._look_at(func, leaf)
        return made

    def _look_at(self, operation: Any, made: Tensor) -> None:
        if not (made.dtype.is_floating_point or made.dtype.is_complex):
            return
        eps, name = torch.finfo(made.dtype).eps, dtype_name(made.dtype)
        if made.is_cuda and made.dtype is torch.float32 and takes_tf32(operation.overloadpacket.__name__):
            eps, name = _TF32, "TF32"
        self.coarsest = max(self.coarsest, eps)
        if eps > self._eps:
            where = self._inside[-1] if self._inside else "the loss"
            self.found[f"{name} in {where}"] = None

    def _depends(self, leaf: Any) -> bool:
        return isinstance(leaf, Tensor) and _memory(leaf) in self._from_theta


def _memory(tensor: Tensor) -> int | None:
    """Of what a tensor views; None for a sparse one, which has none of its own."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else None
