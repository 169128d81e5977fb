"""The traced loss with every normalisation's ε as a further variable, to differentiate by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node
from torch.fx.node import map_aggregate

from nm_ode.loss.derivatives import twice_differentiable
from nm_ode.loss.elementary import weight_norm
from nm_ode.parameters import Layout
from nm_ode.symmetries.graph import MODEL, Graph
from nm_ode.symmetries.labels import RESHAPES
from nm_ode.symmetries.operations import argument, operation
from nm_ode.symmetries.proofs import EpsilonLink
from nm_ode.symmetries.refusals import foreseen
from nm_ode.symmetries.traced_loss import TracedLoss


class ExtendedLoss:
    """The traced loss as a function of the parameters and of every ε.

    Parameters are tensors of their own: the derivative of a slice of theta is a vector of theta's size.

    Args:
        loss: with the graph.
        links: the ε's.

    Attributes:
        dtype: of all that is computed: coarser dtypes that the model asks for are taken as this one.
        epsilons: their sizes, one tensor for each link.
    """

    def __init__(self, loss: TracedLoss, links: Sequence[EpsilonLink]) -> None:
        self.layout, self.links = loss.layout, tuple(links)
        self._graph = loss.graph
        self.dtype = loss.precision.dtype
        self.epsilons = [torch.full(link.shape, link.epsilon, dtype=self.dtype) for link in links]

    def __call__(
        self,
        parameters: Mapping[str, Tensor],
        epsilons: Sequence[Tensor],
        tensors: Sequence[Tensor],
        seed: int,
    ) -> Tensor:
        """The loss on a batch of these tensors; `seed` is of the model's own random numbers."""
        values = self._graph.values | {MODEL + name: p for name, p in parameters.items()}
        inputs = [
            self._fine(tensors[name] if isinstance(name, int) else values[name])
            for name in self._graph.inputs
        ]
        replaced = {link.node: epsilon for link, epsilon in zip(self.links, epsilons, strict=True)}
        with torch.random.fork_rng(devices=[]), twice_differentiable():
            torch.manual_seed(seed)  # dropout: the same units each time
            result: Tensor = _WithEpsilons(self._graph, replaced, self.dtype).run(*inputs)
        return result

    def gradient(self, loss: Tensor, by: Sequence[Tensor], *, again: bool = False) -> tuple[Tensor, ...]:
        """The derivatives of one of its values; zeros where gradients stop before what it is differentiated by.

        Args:
            again: there are more to come.
        """
        if not by or not loss.requires_grad:
            return tuple(map(torch.zeros_like, by))
        with foreseen(self._graph.operations):
            return torch.autograd.grad(loss, by, materialize_grads=True, retain_graph=again)

    def _fine(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.dtype) if is_coarser(tensor.dtype, self.dtype) else tensor


def is_coarser(dtype: torch.dtype, than: torch.dtype) -> bool:
    """Of two dtypes, real ones."""
    return dtype.is_floating_point and torch.finfo(dtype).eps > torch.finfo(than).eps


class _WithEpsilons(Interpreter):
    """Runs the graph with normalisations written out, so that ε is a tensor to differentiate by."""

    def __init__(self, graph: Graph, epsilons: dict[Node, Tensor], dtype: torch.dtype) -> None:
        super().__init__(graph.module)
        self.extra_traceback = False  # an error's text stays as it is
        self._dtype = dtype
        self._live = {*graph.operations, *graph.parameters, *graph.frozen}
        self._epsilons, self._loss = epsilons, graph.loss

    def run_node(self, n: Node) -> Any:
        with foreseen(n):
            return self._computed(n)

    def _computed(self, n: Node) -> Any:
        if n.op == "call_function" and n not in self._live:
            return None  # running statistics, and what nobody reads
        if n.op == "output":
            return self.env[self._loss]
        if n in self._epsilons:
            arguments, _ = self.fetch_args_kwargs_from_env(n)
            return _with_epsilon(n, arguments, self.map_nodes_to_values, self._epsilons[n])
        if n.op == "call_function" and operation(n) in ("_weight_norm", "_weight_norm_interface"):
            v, g = (self.env[part] for part in n.args[:2])  # type: ignore[index]
            made = weight_norm(v, g, argument(n, "dim"))
            return (made, None) if isinstance(n.meta["val"], tuple | list) else made
        if self._dtype != torch.float64 and _is_lookup(
            n
        ):  # a large table's gradient as the rows that were looked up
            (table, ids, *rest), _ = self.fetch_args_kwargs_from_env(n)
            return torch.ops.aten.embedding.default(table, ids, rest[0] if rest else -1, False, True)
        if n.op == "call_function" and operation(n) in RESHAPES:
            # The MATH attention's result has other strides than the kernel's that was traced.
            (x, *_), _ = self.fetch_args_kwargs_from_env(n)
            return x.reshape(tuple(n.meta["val"].shape))
        return super().run_node(n)

    def fetch_args_kwargs_from_env(self, n: Node) -> Any:
        """A cast to a coarser dtype is one to the dtype of all."""
        return map_aggregate(
            super().fetch_args_kwargs_from_env(n),
            lambda given: (
                self._dtype if isinstance(given, torch.dtype) and is_coarser(given, self._dtype) else given
            ),
        )


def _is_lookup(n: Node) -> bool:
    """Of rows of an input of the graph."""
    return (
        n.op == "call_function"
        and operation(n) == "embedding"
        and n.args[0].op == "placeholder"  # type: ignore[union-attr]
        and not argument(n, "scale_grad_by_freq")
    )


def _with_epsilon(node: Node, arguments: Any, read: Callable[..., Any], epsilon: Tensor) -> Any:
    name = operation(node)
    if name == "add":
        number = next(i for i, part in enumerate(node.args[:2]) if not isinstance(part, Node))
        return arguments[1 - number] + epsilon
    x = arguments[0]
    weight, bias = (read(argument(node, which), node) for which in ("weight", "bias"))
    ndim = x.ndim
    if name in ("layer_norm", "rms_norm"):
        dims = list(range(ndim - len(argument(node, "normalized_shape")), ndim))
        shape = [*epsilon.shape, *[1] * len(dims)]
        made = _normalised(x, dims, epsilon.reshape(shape), centred=name == "layer_norm")
        made = made if weight is None else made * weight
        return made if bias is None else made + bias
    per_channel = [1, -1, *[1] * (ndim - 2)]
    if name == "group_norm":
        grouped = x.unflatten(1, (argument(node, "num_groups"), -1))
        dims = list(range(2, grouped.ndim))
        made = _normalised(grouped, dims, epsilon.reshape(*epsilon.shape, *[1] * len(dims))).flatten(1, 2)
    elif name == "instance_norm":
        made = _normalised(x, list(range(2, ndim)), epsilon.reshape(*epsilon.shape, *[1] * (ndim - 2)))
    else:
        made = _normalised(x, [0, *range(2, ndim)], epsilon.reshape(per_channel))
    made = made if weight is None else made * weight.reshape(per_channel)
    made = made if bias is None else made + bias.reshape(per_channel)
    value = node.meta["val"]
    return (made, *[None] * (len(value) - 1)) if isinstance(value, tuple | list) else made


def _normalised(x: Tensor, dims: list[int], epsilon: Tensor, *, centred: bool = True) -> Tensor:
    if centred:
        x = x - x.mean(dims, keepdim=True)
    return x * torch.rsqrt(x.square().mean(dims, keepdim=True) + epsilon)


def leaves(layout: Layout, theta: Tensor) -> dict[str, Tensor]:
    """The parameters in theta, each a variable of its own."""
    return {slot.name: theta[slot.slice].view(slot.shape).detach().requires_grad_() for slot in layout.slots}


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """End to end, as theta is."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
