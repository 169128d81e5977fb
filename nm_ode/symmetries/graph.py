"""The graph of model and loss as plain tensor operations, and the integers that are the same for every batch.

torch.export is used for it: unlike torch.fx's symbolic trace it follows a module's own Python, knows shapes and
strides, and makes no difference between `nn.Linear`, `F.linear` and `x @ w.T`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from nm_ode.loss.objective import Objective
from nm_ode.symmetries.batches import Batch, tensors_of
from nm_ode.symmetries.complex_numbers import without_detours
from nm_ode.symmetries.decompositions import of_libraries, table
from nm_ode.symmetries.differentiated import Differentiated, differentiated
from nm_ode.symmetries.errors import DependsOnValuesError, SymmetryError
from nm_ode.symmetries.loss_module import ForGraph
from nm_ode.symmetries.operations import operation, value
from nm_ode.symmetries.read_buffers import Changed
from nm_ode.symmetries.refusals import differentiates, foreseen, refused
from nm_ode.symmetries.sizes import (
    fix_sizes,
    other_sizes,
    read_as_number,
    read_lengths,
    reads_part_of_a_parameter,
    short_sizes,
    symbolic_len,
    unknown_sizes,
)
from nm_ode.symmetries.stops import find_stops

MODEL = "model."
"""What the names of a model's parameters begin with in a graph."""

_TOKEN = "token"
"""Keeps operations that nobody reads (checks of torch's own) in their order; what it holds is not read."""

_LIKE = frozenset(
    {
        *("empty_like", "full_like", "ones_like", "zeros_like", "rand_like", "randint_like", "randn_like"),
        *("new_empty", "new_full", "new_ones", "new_zeros", "fill", "zero"),
    }
)
"""Operations that take of a tensor its shape alone."""

_LOGGERS = ("torch.export", "torch.fx.experimental.symbolic_shapes", "torch._subclasses.fake_tensor")


@dataclass(frozen=True)
class Graph:
    """Operations from parameters and data to the loss, in order; what the loss does not depend on is left out.

    Attributes:
        operations: the calls, each with its shape and dtype in `meta["val"]`.
        parameters: placeholder → name in the model, of trainable parameters; tied ones have one placeholder.
        frozen: placeholders of parameters that are not trained.
        known: integer tensors that are the same for every batch: of buffers and constants, never of data or sizes.
        sized: operations with an argument that was made of the batch's sizes.
        other_sizes: numbers of samples at which the model may do something else.
        lengths: sizes of other dimensions, at which alone it is known what the model does.
        has_stops: there are blocks under `torch.no_grad` in the model.
        loss: the operation that gives the loss.
        module: runs the graph; its inputs are in the order of `inputs`.
        inputs: for each input of `module` a key of `values`, or the number of a tensor in the batch.
        values: parameters ("model." and the name), buffers, constants, and what is given to inputs without a number.
        shapes: of the batch's tensors, where the graph is of fewer samples or tokens than the example; else empty.
    """

    operations: tuple[Node, ...]
    parameters: dict[Node, str]
    frozen: frozenset[Node]
    known: dict[Node, Tensor]
    sized: frozenset[Node]
    other_sizes: tuple[int, ...]
    lengths: tuple[int, ...]
    has_stops: bool
    loss: Node
    module: GraphModule = field(repr=False)
    inputs: tuple[str | int, ...]
    values: dict[str, Tensor] = field(repr=False)
    shapes: tuple[tuple[int, ...], ...] = ()

    @property
    def coarsest(self) -> torch.dtype:
        """Of the floating-point dtypes in it that of the fewest digits."""
        seen = {
            part.dtype
            for node in self.operations
            for part in _parts(node.meta.get("val"))
            if isinstance(part, Tensor) and part.is_floating_point()
        }
        return max(seen, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float64)


def trace(
    model: nn.Module, objective: Objective, batch: Batch, *, sizes: bool = True, stops: bool = False
) -> Graph:
    """Trace objective(model, batch), the tensors of the batch being inputs.

    Args:
        sizes: tell what is made of the batch's sizes from constants; False for a graph of this size alone.
        stops: no gradient comes out of blocks under `torch.no_grad`.

    Raises:
        SymmetryError: the model's Python depends on the values of tensors that a batch may change, or it does what
            cannot be exported.
    """
    try:
        return _traced(ForGraph(model, objective, batch), tensors_of(batch), sizes, stops)
    except DependsOnValuesError:
        reading = ForGraph(model, objective, batch, reads=True)
        if reading.has_values:
            with suppress(Exception):  # why not is said of the model as it is
                return _traced(reading, tensors_of(batch), sizes, stops)
        raise


def _traced(whole: ForGraph, tensors: tuple[Tensor, ...], sizes: bool, stops: bool) -> Graph:
    exported, has_stops = _exported(whole, tensors, sizes, stops)
    signature = exported.graph_signature
    if whole.read & set(signature.buffers_to_mutate.values()):
        raise Changed
    elsewhere = other_sizes(_data(exported)) if sizes else ()
    lengths = read_lengths(_data(exported)) if sizes else ()
    chosen = short_sizes(_data(exported))
    sized = fix_sizes(exported.graph, chosen)
    _of_no_entries(exported.graph)
    sized = without_detours(exported.graph, sized)
    shapes = tuple(tuple(tensor.shape) for tensor in _data(exported)) if chosen else ()
    exported.graph_module.recompile()
    output = next(node for node in exported.graph.nodes if node.op == "output")
    loss = output.args[0][-1]
    live = _ancestors(loss)
    trainable = {name for name, parameter in whole.model.named_parameters() if parameter.requires_grad}
    parameters: dict[Node, str] = {}
    frozen: set[Node] = set()
    inputs: list[str | int] = []
    constants: dict[Node, Tensor] = {}
    for node in exported.graph.nodes:
        if node.op != "placeholder":
            continue
        if node.name in signature.inputs_to_parameters:
            # A tied parameter is known by several names; Problem and torch.optim know it by the first.
            name = _first_name(whole, signature.inputs_to_parameters[node.name])
            inputs.append(name)
            if node in live:
                if name.removeprefix(MODEL) in trainable and name.startswith(MODEL):
                    parameters[node] = name.removeprefix(MODEL)
                else:
                    frozen.add(node)
        elif node.name in signature.inputs_to_buffers:
            name = signature.inputs_to_buffers[node.name]
            inputs.append(name)
            # A buffer that the forward pass changes (a counter) is another one at the next batch.
            if name not in signature.buffers_to_mutate.values():
                constants[node] = whole.get_buffer(name)
        elif node.name in signature.inputs_to_lifted_tensor_constants:
            name = signature.inputs_to_lifted_tensor_constants[node.name]
            inputs.append(_constant(name))
            constant = exported.constants[name]
            assert isinstance(constant, Tensor)
            constants[node] = constant
        elif node.name in signature.user_inputs:
            inputs.append(signature.user_inputs.index(node.name))
        else:
            inputs.append(_TOKEN)
    operations = tuple(node for node in exported.graph.nodes if node.op == "call_function" and node in live)
    return Graph(
        operations=operations,
        parameters=parameters,
        frozen=frozenset(frozen),
        known=_known(operations, constants, sized),
        sized=sized,
        other_sizes=elsewhere,
        lengths=lengths,
        has_stops=has_stops,
        loss=loss,
        module=exported.graph_module,
        inputs=tuple(inputs),
        values=_values(whole, exported),
        shapes=shapes,
    )


def _exported(
    whole: ForGraph, tensors: tuple[Tensor, ...], sizes: bool, stops: bool
) -> tuple[ExportedProgram | Differentiated, bool]:
    """Plain operations, and whether there are blocks without gradients."""
    try:
        exported = _with_sizes(whole, tensors) if sizes else None
        if exported is not None:
            with suppress(Exception):
                return _plain(exported, stops)
            with suppress(Exception):  # some of torch's decompositions ask for numbers
                return _plain(exported, stops, all_of_torchs=False)
        exported = _export(whole, tensors, None)  # of the example's sizes alone
        with suppress(Exception):
            return _plain(exported, stops)
        return _plain(exported, stops, all_of_torchs=False)
    except SymmetryError:
        raise
    except Exception as error:
        if differentiates(error):
            with suppress(Exception), _quiet():
                return differentiated(whole, tensors), False
        raise refused(whole.model, error) from error


def _plain(
    exported: ExportedProgram, stops: bool, *, all_of_torchs: bool = True
) -> tuple[ExportedProgram, bool]:
    with _quiet():
        has_stops = find_stops(exported.graph_module, keep=stops)
        # Writes in place become ordinary operations, too.
        plain: ExportedProgram = exported.run_decompositions(
            table(all_of_torchs=all_of_torchs) | of_libraries(exported.graph)
        )
    return plain, has_stops


def _with_sizes(whole: ForGraph, tensors: tuple[Tensor, ...]) -> ExportedProgram | None:
    """With symbols for the sizes that may be any; None where torch cannot."""
    try:
        exported = _export(whole, tensors, unknown_sizes(tensors))
        if any(tensor.ndim > 3 for tensor in tensors) and reads_part_of_a_parameter(
            exported.graph, exported.graph_signature.inputs_to_parameters
        ):
            return _export(whole, tensors, unknown_sizes(tensors, images=True))
        if read_as_number(_data(exported)):
            with symbolic_len():
                again = _export(whole, tensors, unknown_sizes(tensors))
            return exported if read_as_number(_data(again)) else again
        return exported
    except Exception:
        return None


def _export(whole: ForGraph, tensors: tuple[Tensor, ...], unknown: Any) -> ExportedProgram:
    with _quiet():
        shapes = None if unknown is None else {"tensors": unknown}
        exported: ExportedProgram = torch.export.export(whole, tensors, strict=False, dynamic_shapes=shapes)
        return exported


def _data(exported: ExportedProgram | Differentiated) -> list[Tensor]:
    """The batch's tensors as the graph has them, with symbols for sizes."""
    names = exported.graph_signature.user_inputs
    return [node.meta["val"] for node in exported.graph.nodes if node.name in names]


def _constant(name: str) -> str:
    return "constant:" + name


def _of_no_entries(graph: torch.fx.Graph) -> None:
    """`zeros_like(x)` reads nothing of x but its shape: what moves x does not move it."""
    for node in list(graph.nodes):
        if node.op != "call_function" or operation(node) not in _LIKE or not _real(value(node.args[0])):
            continue
        like = value(node.args[0])
        with graph.inserting_before(node):
            shape = graph.call_function(
                torch.ops.aten.empty_strided.default,
                (list(like.shape), list(like.stride())),
                {"dtype": like.dtype, "device": "cpu"},
            )
        shape.meta = node.meta | {"val": like}
        node.args = (shape, *node.args[1:])


def _values(whole: ForGraph, exported: ExportedProgram | Differentiated) -> dict[str, Tensor]:
    values = {name: p.detach() for name, p in whole.named_parameters(remove_duplicate=False)}
    values |= dict(whole.named_buffers(remove_duplicate=False))
    values[_TOKEN] = torch.empty(0)
    return values | {
        _constant(name): constant
        for name, constant in exported.constants.items()
        if isinstance(constant, Tensor)
    }


def _first_name(whole: ForGraph, exported_name: str) -> str:
    wanted = whole.get_parameter(exported_name)
    return next(first for first, parameter in whole.named_parameters() if parameter is wanted)


def _ancestors(node: Node) -> set[Node]:
    found: set[Node] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return found


def _known(
    operations: tuple[Node, ...], constants: dict[Node, Tensor], sized: frozenset[Node]
) -> dict[Node, Tensor]:
    """What is computed of constants alone: neither of data nor of its sizes, nor drawn at random."""
    known: dict[Node, Any] = {node: tensor for node, tensor in constants.items() if not _real(tensor)}
    for node in operations:
        results = _parts(
            node.meta.get("val")
        )  # several of what is taken apart: `rows, columns = tril_indices(…)`
        if not all(isinstance(part, Tensor) and not _real(part) for part in results):
            continue
        if node in sized or _random(node):
            continue
        if all(needed in known for needed in node.all_input_nodes):
            arguments, keywords = torch.fx.map_arg((node.args, node.kwargs), lambda needed: known[needed])
            with foreseen(node):
                known[node] = node.target(*arguments, **keywords)  # type: ignore[operator]
    return {node: found for node, found in known.items() if isinstance(found, Tensor)}


def _parts(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def _real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _random(node: Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


@contextmanager
def _quiet() -> Iterator[None]:
    """torch.export warns of its own deprecations and of buffers that are its own copies."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
