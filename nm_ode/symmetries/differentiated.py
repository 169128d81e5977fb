"""The graph of a model that differentiates inside its forward pass (PINNs, gradient penalties): torch.export has none.

The derivatives are recorded as the operations that compute them. There are no symbols for sizes in such a graph. torch
detaches what it keeps for a backward pass; these stops are taken out, so a `detach` of the user's is not seen in the
graph: the gradient of the model itself, which is held against the graph's, then tells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import default_decompositions
from torch.func import functional_call
from torch.fx import Graph, GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from nm_ode.symmetries.decompositions import table

_STOP = torch.ops.aten.detach.default


@dataclass(frozen=True)
class Signature:
    """As of torch.export: placeholder → name in the module."""

    inputs_to_parameters: dict[str, str]
    inputs_to_buffers: dict[str, str]
    inputs_to_lifted_tensor_constants: dict[str, str]
    user_inputs: tuple[str, ...]
    buffers_to_mutate: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Differentiated:
    """A graph with the attributes of torch's ExportedProgram that are read here."""

    graph_module: GraphModule
    graph_signature: Signature
    constants: dict[str, Tensor]

    @property
    def graph(self) -> Graph:
        """Of the module."""
        return self.graph_module.graph


def differentiated(whole: nn.Module, tensors: tuple[Tensor, ...]) -> Differentiated:
    """The graph of a module on a batch, with the derivatives that it asks for."""
    parameters, buffers = dict(whole.named_parameters()), dict(whole.named_buffers())
    names = [*parameters, *buffers]

    def flat(*given: Tensor) -> tuple[Any]:
        state = dict(zip(names, given, strict=False))
        return (functional_call(whole, state, given[len(names) :]),)

    inputs = [p.detach().clone().requires_grad_() for p in parameters.values()]
    inputs += [b.detach().clone() for b in buffers.values()]
    made = make_fx(flat, _backwards() | table(), tracing_mode="fake", _allow_non_fake_inputs=True)(
        *inputs, *tensors
    )
    for node in list(made.graph.nodes):
        if node.target is _STOP:
            node.replace_all_uses_with(node.args[0])
            made.graph.erase_node(node)
    constants = _lifted(made)
    made.graph.eliminate_dead_code()
    placeholders = [node.name for node in made.graph.nodes if node.op == "placeholder"][
        : len(names) + len(tensors)
    ]
    named = dict(zip(placeholders, names, strict=False))
    made.recompile()
    return Differentiated(
        made,
        Signature(
            {at: name for at, name in named.items() if name in parameters},
            {at: name for at, name in named.items() if name in buffers},
            {name: name for name in constants},
            tuple(placeholders[len(names) :]),
        ),
        constants,
    )


def _lifted(module: GraphModule) -> dict[str, Tensor]:
    """Constants as inputs, after all others."""
    last = [node for node in module.graph.nodes if node.op == "placeholder"][-1]
    found: dict[str, Tensor] = {}
    for node in list(module.graph.nodes):
        if node.op == "get_attr":
            constant = getattr(module, str(node.target))
            with module.graph.inserting_after(last):
                last = module.graph.placeholder(f"constant_{len(found)}")
            last.meta["val"] = constant
            found[last.name] = constant
            node.replace_all_uses_with(last)
            module.graph.erase_node(node)
    return found


def _backwards() -> dict[Any, Callable[..., Any]]:
    """Derivatives of functions of each entry, written out."""
    return {
        op: apart
        for op, apart in default_decompositions().items()
        if isinstance(op, torch._ops.OpOverload)
        and op._schema.name.endswith("_backward")
        and op._schema.name.startswith("aten::")
    }
