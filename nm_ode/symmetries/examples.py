"""The arguments of `find_symmetries`: a model, an example batch, a loss by name or by function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset

from nm_ode.arguments import first_line, said
from nm_ode.data.base import DataError, DataSet
from nm_ode.data.leaves import as_leaf, is_array
from nm_ode.data.sources import collate
from nm_ode.data.trees import flatten, map_leaves, named_leaves
from nm_ode.loss import Problem, ProblemError, guards
from nm_ode.loss.calling import call, takes_and_given
from nm_ode.loss.explain import without_float64
from nm_ode.loss.objective import LossFunction, Objective, Supervised
from nm_ode.loss.own import loss_in, own_loss
from nm_ode.loss.placing import deep_copied, require_no_parameters_of_its_own
from nm_ode.parameters import unwrapped
from nm_ode.symmetries.batches import Batch, at_least, on_cpu, repeated, tensors_of
from nm_ode.symmetries.errors import SymmetryError

ASSUMED = "cross_entropy"
"""The loss where none is given and the model returns none."""

OWN = "own"
"""The name of the loss that a model returns itself."""

_LOSSES: dict[str, LossFunction] = {"cross_entropy": F.cross_entropy, "mse": F.mse_loss}
_FROM_LOADER = 8  # samples of a loader or a data set that are looked at


def require_model_and_loss(model: Any, loss: Any) -> None:
    """A module that can be looked at, and a loss that has no trainable parameters of its own.

    Of a problem, `symmetries_of` is asked.
    """
    if isinstance(model, Problem):
        raise SymmetryError(
            "a Problem was given as the model; use symmetries_of(problem), which knows its loss"
        )
    if not isinstance(model, nn.Module):
        raise SymmetryError(f"model must be a torch.nn.Module; {said(model)} was given")
    module = loss if isinstance(loss, nn.Module) else None
    try:
        guards.require_model_and_loss(model, own_loss if module is None else module)
        if module is not None:
            require_no_parameters_of_its_own(module, model)
        guards.require_initialised(unwrapped(model))
        guards.refuse_renormalisation(model)
    except ProblemError as error:
        raise SymmetryError(str(error)) from None


def name_of_loss(loss: Any, *, assumed: bool = False) -> str:
    """What is said of a loss."""
    if loss is own_loss:
        return "the model's own"
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    return f"{name} (assumed: none was given)" if assumed else name


def loss_of_example(
    model: nn.Module, example: Any, loss: Any, target: Any, *, least: int, seed: int
) -> tuple[Objective, Batch, str]:
    """What is minimised, a batch of the example in float64 on the CPU, of at least so many samples, and its name.

    Args:
        model: in the dtype in which it is verified.
    """
    wanted = _loss_function(loss)
    example, target = _pair_of_a_data_set(example, target, wanted)
    x, samples = _input(example, least, seed)
    output = None
    if wanted is None and target is None:
        output = _output(model, x)
        if not isinstance(output, Tensor) or output.ndim == 0:
            wanted = None if loss_in(output) is None else own_loss
    if wanted is own_loss:
        if target is not None:
            raise SymmetryError(
                "target was given, and the loss is the model's own: put the targets into example_input, where the "
                "model looks for them"
            )
        return own_loss, x, name_of_loss(own_loss)
    loss_fn = _LOSSES[ASSUMED] if wanted is None else wanted
    name = name_of_loss(loss if wanted is not None else ASSUMED, assumed=wanted is None)
    if target is not None:
        return Supervised(loss_fn), (x, _target(target, samples, x)), name
    if wanted is not None and not isinstance(loss, str):
        raise SymmetryError("a loss of your own needs `target`, the targets of example_input")
    output = _output(model, x) if output is None else output
    return Supervised(loss_fn), (x, _drawn_target(output, loss_fn is F.mse_loss, seed)), name


def _loss_function(loss: Any) -> LossFunction | None:
    """None where none is given."""
    if loss is None:
        return None
    allowed = f"'cross_entropy', 'mse', '{OWN}' (that which the model returns) or a function"
    if isinstance(loss, str):
        if loss == OWN:
            return own_loss
        if loss not in _LOSSES:
            raise SymmetryError(f"loss: {loss!r} was given; it must be {allowed}")
        return _LOSSES[loss]
    if not callable(loss) or isinstance(loss, type):
        raise SymmetryError(f"loss must be {allowed} of (output, target); {said(loss)} was given")
    found: LossFunction = loss
    return found


def _pair_of_a_data_set(example: Any, target: Any, loss: LossFunction | None) -> tuple[Any, Any]:
    """Of a loader or a data set its first samples, taken apart into inputs and targets where they are such pairs."""
    if isinstance(example, DataSet):
        example = (example.x[:_FROM_LOADER], example.y[:_FROM_LOADER])
    elif isinstance(example, DataLoader | Dataset):
        example = _first_samples(example)
    else:
        return example, target
    if target is None and loss is not own_loss and type(example) in (tuple, list) and len(example) == 2:
        return example[0], example[1]
    return example, target


def _first_samples(data: Any) -> Any:
    try:
        if isinstance(data, DataLoader) and isinstance(data.dataset, IterableDataset):
            return next(iter(data))
        dataset = data.dataset if isinstance(data, DataLoader) else data
        items = list(islice(_items(dataset), _FROM_LOADER))
        put_together = data.collate_fn if isinstance(data, DataLoader) else collate
        return put_together(items)
    except Exception as error:
        raise SymmetryError(
            f"example_input: no batch could be taken of {said(data)} ({type(error).__name__}: {first_line(error)}): "
            "give a batch of it"
        ) from error


def _items(dataset: Any) -> Iterator[Any]:
    if isinstance(dataset, IterableDataset):
        yield from dataset
    else:
        yield from (dataset[i] for i in range(len(dataset)))


def _input(example: Any, least: int, seed: int) -> tuple[Batch, int]:
    """An example's input, and how many samples were given."""
    x = _tree(example, "example_input")
    tensors = [tensor for tensor in tensors_of(x) if tensor.ndim]
    for tensor in tensors or [torch.zeros(())]:
        if tensor.ndim == 0 or tensor.numel() == 0:
            raise SymmetryError(
                f"example_input has shape {tuple(tensor.shape)}; it must be a batch of at least one sample"
            )
    samples = len(tensors[0])
    if all(len(tensor) == samples for tensor in tensors):
        x = map_leaves(
            lambda leaf: at_least(leaf, least, seed) if isinstance(leaf, Tensor) and leaf.ndim else leaf, x
        )
    return x, samples


def _target(target: Any, samples: int, x: Batch) -> Batch:
    y = _tree(target, "target")
    for tensor in tensors_of(y):
        if tensor.ndim == 0 or len(tensor) != samples:
            raise SymmetryError(
                f"target has shape {tuple(tensor.shape)} and example_input {samples} samples; give one target for each"
            )
    count = len(next(tensor for tensor in tensors_of(x) if tensor.ndim))
    return map_leaves(lambda leaf: repeated(leaf, count) if isinstance(leaf, Tensor) else leaf, y)


def _output(model: nn.Module, x: Batch) -> Any:
    try:
        with torch.random.fork_rng(devices=[]):
            dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float64)
            return call(deep_copied(model, parameters=False), on_cpu(x, dtype))
    except ProblemError as error:
        raise SymmetryError(f"example_input: {error}") from None
    except Exception as error:
        several = takes_and_given(model, x) or without_float64(str(error))
        numbers = ": its bytes must be numbers, as in example_input / 255; or ask symmetries_of(problem)"
        raise SymmetryError(
            f"the model cannot be evaluated at example_input ({type(error).__name__}: {first_line(error)})"
            + f"; {several}" * bool(several)
            + numbers * any(tensor.dtype == torch.uint8 for tensor in tensors_of(x))
        ) from error


def _drawn_target(output: Any, values: bool, seed: int) -> Tensor:
    """Classes of a cross entropy, or values."""
    if not isinstance(output, Tensor) or (not values and output.ndim < 2):
        what = (
            f"a tensor of shape {tuple(output.shape)}"
            if isinstance(output, Tensor)
            else type(output).__name__
        )
        wanted = (
            "mse needs a tensor" if values else f"{ASSUMED} needs a tensor of shape (samples, classes, …)"
        )
        raise SymmetryError(
            f"the model returns {what}; {wanted}: give a loss of your own that takes what the model returns, and "
            "`target`, or a batch with labels of which the model returns its own loss"
        )
    generator = torch.Generator().manual_seed(seed)
    if values:
        return torch.randn(output.shape, dtype=torch.float64, generator=generator)
    return torch.randint(output.shape[1], (output.shape[0], *output.shape[2:]), generator=generator)


def _tree(given: Any, name: str) -> Batch:
    """Tensors in float64 on the CPU: one, or a tuple, dict, dataclass … of them."""
    refusal = (
        f"{name} must be a tensor, an array or a list of numbers, samples along the first axis, or a tuple, dict or "
        f"dataclass of tensors; {said(given)} was given"
    )
    places = [place for place, _ in named_leaves(given, name)]
    leaves, rebuild = flatten(given)
    try:
        if not any(map(is_array, leaves)):
            if isinstance(given, list | tuple) and not isinstance(given, Mapping):
                return on_cpu(as_leaf(torch.as_tensor(given), name), torch.float64)
            raise SymmetryError(refusal)
        made = [
            leaf if not is_array(leaf) or (isinstance(leaf, Tensor) and leaf.ndim == 0) else as_leaf(leaf, at)
            for at, leaf in zip(places, leaves, strict=True)
        ]
    except DataError as error:
        raise SymmetryError(str(error)) from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise SymmetryError(refusal) from error
    return on_cpu(rebuild(made), torch.float64)
