"""Functions of torch's that no graph in float64 follows, written out.

Those whose Python or kernel asks for the values of tensors are written without a question, and put in the place of
torch's while a model is traced, and nowhere else: the loss and the gradient of the model itself, with torch's own, are
held against the graph's at every draw. Those that have no float64 are put in its place in the model itself too, in
float64 alone: there is nothing else to hold the graph against.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from nm_ode.symmetries.errors import SymmetryError

_FAR = -1e30  # the logarithm of a path that there is not; −∞ has no derivative
_STEPS = 256  # of a sequence, of which each is some twenty operations of a graph


class WrittenOut(TorchFunctionMode):
    """What is called inside is what is written here, where it is."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return (INSTEAD | WITHOUT_FLOAT64).get(func, func)(*args, **(kwargs or {}))


class InFloat64(TorchFunctionMode):
    """What torch has no float64 of can be called with it inside."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in WITHOUT_FLOAT64 and isinstance(args[0], Tensor) and args[0].dtype == torch.float64:
            func = WITHOUT_FLOAT64[func]
        return func(*args, **(kwargs or {}))


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """`F.gaussian_nll_loss` of variances that are not negative; torch looks whether they are."""
    if not isinstance(var, Tensor):
        var = var * torch.ones_like(input)
    elif var.shape != input.shape and var.shape == input.shape[:-1]:
        var = var.unsqueeze(-1)
    var = var.clamp(min=eps)
    loss = 0.5 * (torch.log(var) + (input - target) ** 2 / var)
    return _reduced(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """`F.ctc_loss` by its recursion forward in time (Graves et al. 2006, eq. 6 to 8); arguments as torch's.

    Raises:
        SymmetryError: there are too many steps for a graph.
    """
    alone = log_probs.ndim == 2
    log_probs = log_probs.unsqueeze(1) if alone else log_probs
    steps = int(log_probs.shape[0])
    if steps > _STEPS:
        raise SymmetryError(
            f"ctc_loss over {steps} steps is too long for a graph: give an example with at most {_STEPS}, which has "
            "the symmetries of longer ones"
        )
    given, lengths = (torch.as_tensor(n).reshape(-1) for n in (input_lengths, target_lengths))
    targets = targets.reshape(1, -1) if alone else _in_rows(targets, lengths)
    targets = _without_blanks(targets, lengths, blank, int(log_probs.shape[2]))
    blanks = torch.full((targets.shape[0], 1), blank, dtype=targets.dtype, device=targets.device)
    # A blank before, between and after: 2S + 1 places.
    places = torch.cat([torch.stack([blanks.expand(targets.shape), targets], 2).flatten(1), blanks], 1)
    scores = log_probs.gather(2, places.expand(steps, *places.shape))
    far = torch.full_like(scores[0, :, :1], _FAR)
    skips = places[:, 2:] != places[:, :-2]
    paths = torch.cat([scores[0, :, :2], far.expand(-1, max(places.shape[1] - 2, 0))], 1)
    for t in range(1, steps):
        one = torch.cat([far, paths[:, :-1]], 1)
        two = torch.cat([far, far, torch.where(skips, paths[:, :-2], far)], 1)[:, : places.shape[1]]
        longer = torch.logsumexp(torch.stack([paths, one, two]), 0) + scores[t]
        paths = torch.where((t < given).unsqueeze(1), longer, paths)
    last = (2 * lengths).unsqueeze(1)
    before = torch.where(last > 0, paths.gather(1, (last - 1).clamp(min=0)), far)
    loss = -torch.logsumexp(torch.cat([paths.gather(1, last), before], 1), 1)
    loss = torch.where(loss > -0.5 * _FAR, 0.0 if zero_infinity else math.inf, loss)
    if reduction == "mean":
        return (loss / lengths.clamp(min=1).to(loss.dtype)).mean()
    return _reduced(loss[0] if alone else loss, reduction)


def _in_rows(targets: Tensor, lengths: Tensor) -> Tensor:
    """Targets that lie one behind the other, a row for each sample; what is beyond a row's length is not read."""
    if targets.ndim > 1:
        return targets
    if not targets.shape[0]:
        return targets.reshape(lengths.shape[0], 0)
    starts = lengths.cumsum(0) - lengths
    index = starts.unsqueeze(1) + torch.arange(targets.shape[0], device=targets.device)
    return targets[index.clamp(max=targets.shape[0] - 1)]


def _without_blanks(targets: Tensor, lengths: Tensor, blank: int, classes: int) -> Tensor:
    """As they are, looked up among the classes but the blank: torch's gradient is wrong where a target is one."""
    least = 1 if blank == 0 else 0
    beyond = torch.arange(targets.shape[1], device=targets.device) >= lengths.unsqueeze(1)
    targets = torch.where(beyond, torch.full_like(targets, least), targets)
    if blank not in (0, classes - 1):
        return targets
    names = torch.arange(least, classes - 1 + least, device=targets.device, dtype=targets.dtype)
    return names[(targets - least).long()]


def grouped_mm(mat_a: Tensor, mat_b: Tensor, *, offs: Tensor | None = None, **options: Any) -> Tensor:
    """`F.grouped_mm`, rows of `mat_a` up to each offset by a matrix of their own: a product for each matrix.

    Mixtures of experts call it; arguments as torch's.
    """
    if offs is None or mat_a.ndim != 2 or mat_b.ndim != 3 or any(one is not None for one in options.values()):
        return _GROUPED[0](mat_a, mat_b, offs=offs, **options)  # type: ignore[no-any-return]
    rows = torch.arange(mat_a.shape[0], device=offs.device, dtype=offs.dtype)
    group = torch.bucketize(rows, offs, right=True).unsqueeze(1)
    made = torch.zeros((mat_a.shape[0], mat_b.shape[2]), dtype=mat_a.dtype, device=mat_a.device)
    for i, matrix in enumerate(mat_b.unbind(0)):
        made = made + (group == i).to(mat_a.dtype) * (mat_a @ matrix)
    return made


def _reduced(loss: Tensor, reduction: str) -> Tensor:
    return {"mean": loss.mean, "sum": loss.sum}[reduction]() if reduction != "none" else loss


INSTEAD: dict[Any, Callable[..., Any]] = {F.gaussian_nll_loss: gaussian_nll_loss, F.ctc_loss: ctc_loss}
"""torch's function → what is traced in its place."""

_GROUPED = [
    getattr(of, name) for of, name in ((F, "grouped_mm"), (torch, "_grouped_mm")) if hasattr(of, name)
]

WITHOUT_FLOAT64: dict[Any, Callable[..., Any]] = dict.fromkeys(_GROUPED, grouped_mm)
"""torch's function that has no float64 → what is evaluated in its place in float64, and traced."""
