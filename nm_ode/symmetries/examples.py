"""The arguments of `find_symmetries`: a model, an example batch, a loss by name or by function."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode.arguments import first_line, said
from nm_ode.data.base import DataError
from nm_ode.data.leaves import as_leaf, is_array
from nm_ode.loss import Problem
from nm_ode.loss.objective import LossFunction
from nm_ode.symmetries.batches import at_least, float64_on_cpu, repeated
from nm_ode.symmetries.errors import SymmetryError

ASSUMED = "cross_entropy"
"""The loss where none is given."""

_LOSSES: dict[str, LossFunction] = {"cross_entropy": F.cross_entropy, "mse": F.mse_loss}


def require_model(model: Any) -> None:
    """A module; of a problem, `symmetries_of` is asked."""
    if isinstance(model, Problem):
        raise SymmetryError(
            "a Problem was given as the model; use symmetries_of(problem), which knows its loss"
        )
    if not isinstance(model, nn.Module):
        raise SymmetryError(f"model must be a torch.nn.Module; {said(model)} was given")


def name_of_loss(loss: Any) -> str:
    """What is said of a loss."""
    if loss is None:
        return f"{ASSUMED} (assumed: none was given)"
    return loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)


def input_of(example: Any, least: int, seed: int) -> tuple[Tensor, int]:
    """An example's input in float64 on the CPU, of at least so many samples; and how many were given."""
    x = _tensor(example, "example_input")
    if x.ndim == 0 or len(x) == 0:
        raise SymmetryError(
            f"example_input has shape {tuple(x.shape)}; it must be a batch of at least one sample"
        )
    return at_least(x, least, seed), len(x)


def loss_and_target(
    model: nn.Module, loss: Any, x: Tensor, samples: int, target: Any, seed: int
) -> tuple[LossFunction, Tensor]:
    """The loss's function, and targets of the example, drawn if none are given."""
    loss = ASSUMED if loss is None else loss
    if isinstance(loss, str):
        if loss not in _LOSSES:
            raise SymmetryError(f"loss: {loss!r} was given; it must be 'cross_entropy', 'mse' or a function")
        loss_fn = _LOSSES[loss]
    elif not callable(loss) or isinstance(loss, type):
        raise SymmetryError(
            f"loss must be 'cross_entropy', 'mse' or a function of (output, target); {said(loss)} was given"
        )
    else:
        loss_fn = loss
    if target is not None:
        given = _tensor(target, "target")
        if given.ndim == 0 or len(given) != samples:
            raise SymmetryError(
                f"target has shape {tuple(given.shape)} and example_input {samples} samples; give one target for each"
            )
        return loss_fn, repeated(given, len(x))
    if not isinstance(loss, str):
        raise SymmetryError("a loss of your own needs `target`, the targets of example_input")
    return loss_fn, _drawn_target(model, loss, x, seed)


def _drawn_target(model: nn.Module, loss: str, x: Tensor, seed: int) -> Tensor:
    try:
        with torch.random.fork_rng(devices=[]):
            output = copy.deepcopy(model)(x)
    except Exception as error:
        first = first_line(error)
        numbers = ": its bytes must be numbers, as in example_input / 255; or ask symmetries_of(problem)"
        raise SymmetryError(
            f"the model cannot be evaluated at example_input ({type(error).__name__}: {first})"
            + numbers * (x.dtype == torch.uint8)
        ) from error
    if not isinstance(output, Tensor) or (loss == "cross_entropy" and output.ndim < 2):
        what = (
            f"a tensor of shape {tuple(output.shape)}"
            if isinstance(output, Tensor)
            else type(output).__name__
        )
        raise SymmetryError(
            f"the model returns {what}; {loss} needs a tensor of shape (samples, classes, …): give a loss of your own "
            "that takes what the model returns, and `target`"
        )
    generator = torch.Generator().manual_seed(seed)
    if loss == "mse":
        return torch.randn(output.shape, dtype=torch.float64, generator=generator)
    return torch.randint(output.shape[1], (output.shape[0], *output.shape[2:]), generator=generator)


def _tensor(given: Any, name: str) -> Tensor:
    refusal = (
        f"{name} must be one tensor, an array or a list of numbers, samples along the first axis; {said(given)} was "
        "given"
    )
    if isinstance(given, torch.utils.data.DataLoader | torch.utils.data.Dataset):
        raise SymmetryError(
            f"{refusal}: give a batch of it, or use symmetries_of(Problem(model, loss_fn, dataset))"
        )
    if isinstance(given, dict) or (
        isinstance(given, list | tuple) and any(isinstance(part, Tensor) or is_array(part) for part in given)
    ):
        raise SymmetryError(
            f"{refusal}: for a model of several inputs use symmetries_of(Problem.from_objective(model, objective, "
            "data))"
        )
    try:
        if isinstance(given, list | tuple):
            given = torch.as_tensor(given)
        return float64_on_cpu(as_leaf(given, name)) if is_array(given) else _refused(refusal)
    except DataError as error:
        raise SymmetryError(str(error)) from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise SymmetryError(refusal) from error


def _refused(sentence: str) -> Tensor:
    raise SymmetryError(sentence)
