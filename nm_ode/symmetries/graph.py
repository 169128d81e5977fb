"""The graph of model and loss as plain tensor operations, and the values that do not depend on parameters.

torch.export is used for it: unlike torch.fx's symbolic trace it follows a module's own Python, knows shapes and
strides, and makes no difference between `nn.Linear`, `F.linear` and `x @ w.T`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from nm_ode.errors import NmOdeError

if TYPE_CHECKING:
    from collections.abc import Iterator


class SymmetryError(NmOdeError, ValueError):
    """Symmetries cannot be looked for: the model cannot be traced, or the loss is not known."""


@dataclass(frozen=True)
class Graph:
    """Operations from parameters and data to the loss, in order; what the loss does not depend on is left out.

    Attributes:
        operations: the calls, each with its shape and dtype in `meta["val"]`.
        parameters: placeholder → name in the model, of trainable parameters; tied ones have one placeholder.
        frozen: placeholders of parameters that are not trained.
        known: values of integer tensors that depend on no parameter (indices, masks, shapes).
        loss: the operation that gives the loss.
        module: runs the graph; its inputs are in the order of `inputs`.
        inputs: for each input of `module` the name of a parameter or buffer, or "x", "y".
    """

    operations: tuple[Node, ...]
    parameters: dict[Node, str]
    frozen: frozenset[Node]
    known: dict[Node, Tensor]
    loss: Node
    module: GraphModule = field(repr=False)
    inputs: tuple[str, ...]


class _Loss(nn.Module):
    def __init__(self, model: nn.Module, loss_fn: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.loss_fn = loss_fn

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.loss_fn(self.model(x), y)


_PREFIX = "model."


def trace(model: nn.Module, loss_fn: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Graph:
    """Trace loss_fn(model(x), y).

    Raises:
        SymmetryError: the model's Python depends on the values of tensors, or it does what cannot be exported.
    """
    try:
        with _quiet():
            exported = torch.export.export(_Loss(model, loss_fn), (x, y), strict=False)
            # Nothing is decomposed by an empty table, but writes in place become ordinary operations.
            exported = exported.run_decompositions({})
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SymmetryError(
            f"the graph of {type(model).__name__} cannot be traced ({first}); symmetries are found only in models "
            "whose operations do not depend on the values of tensors"
        ) from error

    signature = exported.graph_signature
    graph = exported.graph
    output = next(node for node in graph.nodes if node.op == "output")
    loss = output.args[0][-1]
    live = _ancestors(loss)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    parameters: dict[Node, str] = {}
    frozen: set[Node] = set()
    inputs: list[str] = []
    data: dict[Node, Tensor] = {}
    for node in graph.nodes:
        if node.op != "placeholder":
            continue
        if node.name in signature.inputs_to_parameters:
            # A tied parameter is known by several names; Problem and torch.optim know it by the first.
            name = _first_name(model, signature.inputs_to_parameters[node.name])
            inputs.append(_PREFIX + name)
            if node in live:
                if name in trainable:
                    parameters[node] = name
                else:
                    frozen.add(node)
        elif node.name in signature.inputs_to_buffers:
            inputs.append(signature.inputs_to_buffers[node.name])
        elif node.name in signature.inputs_to_lifted_tensor_constants:
            name = signature.inputs_to_lifted_tensor_constants[node.name]
            inputs.append("constant:" + name)
            constant = exported.constants[name]
            assert isinstance(constant, Tensor)
            data[node] = constant
        else:
            is_x = node.name in (signature.user_inputs[0], "x")
            inputs.append("x" if is_x else "y")
            data[node] = x if is_x else y
    operations = tuple(node for node in graph.nodes if node.op == "call_function" and node in live)
    module = exported.graph_module
    module.meta["constants"] = {
        "constant:" + name: value for name, value in exported.constants.items() if isinstance(value, Tensor)
    }
    return Graph(
        operations,
        parameters,
        frozenset(frozen),
        _known(operations, data, exported),
        loss,
        module,
        tuple(inputs),
    )


def operation(node: Node) -> str:
    """The bare name of the operation: 'linear' for aten.linear.default."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.rpartition("::")[2]
    return getattr(target, "__name__", str(target))


R = TypeVar("R")


def registering(rules: dict[str, R]) -> Callable[..., Callable[[R], R]]:
    """A decorator `@rule("relu", "neg", …)` that enters a function in `rules` under the operations' names."""

    def rule(*names: str) -> Callable[[R], R]:
        def enter(function: R) -> R:
            rules.update(dict.fromkeys(names, function))
            return function

        return enter

    return rule


def argument(node: Node, name: str, default: Any = None) -> Any:
    """An argument of an operation by its schema's name, whether given by place, by name or not at all."""
    if name in node.kwargs:
        return node.kwargs[name]
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    for i, declared in enumerate(target._schema.arguments):
        if declared.name == name:
            if i < len(node.args):
                return node.args[i]
            return declared.default_value if declared.has_default_value() else default
    return default


def value(node: Any) -> Any:
    """Shape, dtype and strides of a node's result: a fake tensor, or a tuple of them."""
    return node.meta["val"]


def _first_name(model: nn.Module, exported_name: str) -> str:
    name = exported_name.removeprefix(_PREFIX)
    wanted = model.get_parameter(name)
    return next(first for first, parameter in model.named_parameters() if parameter is wanted)


def _ancestors(node: Node) -> set[Node]:
    found: set[Node] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return found


def _known(operations: tuple[Node, ...], data: dict[Node, Tensor], exported: Any) -> dict[Node, Tensor]:
    buffers = {}
    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name in exported.graph_signature.inputs_to_buffers:
            name = exported.graph_signature.inputs_to_buffers[node.name]
            buffer = exported.state_dict.get(name, exported.constants.get(name))
            if isinstance(buffer, Tensor) and not buffer.is_floating_point():
                buffers[node] = buffer
    known = {**data, **buffers}
    for node in operations:
        result = node.meta.get("val")
        if not isinstance(result, Tensor) or result.is_floating_point() or result.is_complex():
            continue
        if all(needed in known for needed in node.all_input_nodes):
            arguments, keywords = torch.fx.map_arg((node.args, node.kwargs), lambda needed: known[needed])
            known[node] = node.target(*arguments, **keywords)  # type: ignore[operator]
    return known


@contextmanager
def _quiet() -> Iterator[None]:
    """torch.export warns of its own deprecations and of buffers that are its own copies."""
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
