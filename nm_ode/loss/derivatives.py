"""Second and third derivatives of what torch fuses: where its own are missing or wrong, elementary operations.

They are put in the place of the fused ones in torch's dispatcher, which every call passes: of a module, a function or
`torch.ops`, of an exported module, inside `torch.func`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal

import torch

# Before anything is put into torch's tables: this module registers operations of its own there.
import torch._decomp.decompositions
from torch import Tensor
from torch._C import DispatchKey
from torch.nn.attention import SDPBackend, sdpa_kernel

from nm_ode.loss import elementary

Order = Literal[2, 3]
"""Of the derivative: a Hessian product, or a third derivative."""


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """What is evaluated inside has a second derivative, wherever elementary operations can give it."""
    with _in_eager_mode(), _written_out(2):
        yield


@contextmanager
def thrice_differentiable() -> Iterator[None]:
    """As `twice_differentiable`, for third derivatives."""
    with _in_eager_mode(), _written_out(3):
        yield


class Differentiable:
    """Evaluates one loss so that it can be differentiated twice or three times.

    The dispatcher in Python costs as much as a small network: a loss goes through it from the time on when its graph
    has an operation that needs it.
    """

    def __init__(self) -> None:
        self._written_out: dict[Order, Order] = {}

    def loss(self, order: Order, evaluate: Callable[[], Tensor]) -> Tensor:
        """What `evaluate` gives, with a graph that can be differentiated so often."""
        if order not in self._written_out:
            with _in_eager_mode():
                loss = evaluate()
            needed = _needed(loss, order)
            if needed is None:
                return loss
            self._written_out[order] = needed
        with _in_eager_mode(), _written_out(self._written_out[order]):
            return evaluate()


@contextmanager
def _in_eager_mode() -> Iterator[None]:
    """No compiled code, no fused attention, no recurrence of cuDNN's: none of these has a second derivative."""
    compiler = "torch._dynamo" in sys.modules  # which takes seconds to import
    with (
        torch.compiler.set_stance("force_eager") if compiler else nullcontext(),
        sdpa_kernel(SDPBackend.MATH),
        torch.backends.cudnn.flags(enabled=False),
    ):
        yield


@dataclass(frozen=True)
class _WrittenOut:
    """An operation of torch's, the lowest derivative that is missing or wrong, and what takes its place."""

    name: str
    order: Order
    instead: Callable[..., Any]
    overload: str = "default"

    @property
    def operation(self) -> Any:
        """torch's; None if this version has none of that name."""
        packet = getattr(torch.ops.aten, self.name, None)
        return getattr(packet, self.overload, None)

    @property
    def node(self) -> str:
        """What autograd calls it, but for a number."""
        return (
            "".join(part.capitalize() for part in self.name.removesuffix("_forward").split("_")) + "Backward"
        )


def _needed(loss: Tensor, order: Order) -> Order | None:
    """Up to which derivative operations in the loss's graph must be written out; None if none must.

    A loss that has a gradient in it (a penalty, an equation to be fulfilled) has derivatives one higher inside.
    """
    outside = {entry.node for entry in _TABLE if entry.order <= order}
    inside = {entry.node + "Backward" for entry in _TABLE}
    needed: Order | None = None
    for node in nodes(loss):
        name = node.name().rstrip("0123456789")
        if name in inside:
            return 3
        if name in outside and (name != "ConvolutionBackward" or _widens(node)):
            needed = order
    return needed


def nodes(loss: Tensor, seen: set[Any] | None = None) -> Iterator[Any]:
    """The operations between the loss and its leaves, as autograd has them; those `seen` end the walk and are added."""
    seen = set() if seen is None else seen
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting.extend(following for following, _ in node.next_functions)


_lock = Lock()
_installed: dict[Any, tuple[int, dict[Any, Any]]] = {}  # operation → how often, and what it had before


@contextmanager
def _written_out(order: Order) -> Iterator[None]:
    """In this thread, operations above autograd are those of the table; other threads do not look there."""
    with ExitStack() as stack:
        for entry in _TABLE:
            operation = entry.operation
            if entry.order <= order and operation is not None:
                _install(operation, entry.instead)
                stack.callback(_remove, operation)
        with torch._C._EnablePythonDispatcher():
            yield


def _install(operation: Any, instead: Callable[..., Any]) -> None:
    with _lock:
        times, before = _installed.get(operation, (0, None))
        if before is None:
            before = dict(operation.py_kernels)

            def kernel(*args: Any, **kwargs: Any) -> Any:
                return instead(operation, **_named(operation, args, kwargs))

            operation.py_kernels[DispatchKey.Autograd] = kernel
            operation._dispatch_cache.clear()
        _installed[operation] = (times + 1, before)


def _remove(operation: Any) -> None:
    with _lock:
        times, before = _installed[operation]
        if times > 1:
            _installed[operation] = (times - 1, before)
            return
        del _installed[operation]
        operation.py_kernels.clear()
        operation.py_kernels.update(before)
        operation._dispatch_cache.clear()


def _named(operation: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """All arguments by the names of the operation's schema."""
    arguments = operation._schema.arguments
    given = {a.name: value for a, value in zip(arguments, args, strict=False)} | kwargs
    return {a.name: given.get(a.name, a.default_value) for a in arguments}


def _own(operation: Any, named: dict[str, Any]) -> Any:
    """torch's own, without gradients, for results that have none."""
    with torch._C._AutoDispatchBelowAutograd():
        return operation(**named)


def _layer_norm(_: Any, *, input: Tensor, normalized_shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    made, mean, scale = elementary.layer_norm(input, normalized_shape, weight, bias, eps)
    return made, mean.detach(), scale.detach()


def _batch_norm(operation: Any, **named: Any) -> Any:
    made, mean, scale = elementary.batch_norm(
        named["input"],
        named["weight"],
        named["bias"],
        named.get("running_mean"),
        named.get("running_var"),
        named.get("training", True),
        named["epsilon"] if "epsilon" in named else named["eps"],
    )
    more = len(operation._schema.returns) - 3
    return made, mean.detach(), scale.detach(), *[mean.new_empty(0).detach()] * more


def _weight_norm(_: Any, *, v: Tensor, g: Tensor, dim: int) -> Any:
    return elementary.weight_norm(v, g, dim), torch.norm_except_dim(v, 2, dim).detach()


def _hardsigmoid(_: Any, *, self: Tensor) -> Tensor:
    return elementary.hardsigmoid(self)


def _hardsigmoid_in_place(_: Any, *, self: Tensor) -> Tensor:
    return self.copy_(elementary.hardsigmoid(self.clone()))


def _embedding_bag(operation: Any, **named: Any) -> Any:
    _, *others = _own(operation, named)
    asked = {name: value for name, value in named.items() if name not in ("scale_grad_by_freq", "sparse")}
    return elementary.embedding_bag(**asked, largest=others[2]), *others


def _cdist(_: Any, *, x1: Tensor, x2: Tensor, p: float, compute_mode: Any) -> Tensor:
    return elementary.cdist(x1, x2, p)


def _pdist(_: Any, *, self: Tensor, p: float) -> Tensor:
    return elementary.pdist(self, p)


def _multi_margin_loss(_: Any, *, self: Tensor, **named: Any) -> Tensor:
    return elementary.multi_margin_loss(self, **named)


def _multilabel_margin_loss(operation: Any, **named: Any) -> Any:
    _, is_target = _own(operation, named)
    return elementary.multilabel_margin_loss(named["self"], named["target"], named["reduction"]), is_target


def _attention(operation: Any, **named: Any) -> Any:
    _, *others = _own(operation, named)
    mask = named.get("attn_mask", named.get("attn_bias"))
    query, key, value = (named[name] for name in ("query", "key", "value"))
    return elementary.attention(query, key, value, mask, named["is_causal"], named["scale"]), *others


def _convolution(operation: Any, **named: Any) -> Tensor:
    """A transposed one with output_padding has no third derivative; all others stay."""
    padding, more = named["padding"], named["output_padding"]
    widens = named["transposed"] and any(more)
    if widens:
        named |= {"padding": [0] * len(padding), "output_padding": [0] * len(more)}
    bias = named["bias"]
    with torch._C._DisablePythonDispatcher():
        made: Tensor = operation(**named | ({"bias": None} if widens else {}))
    return elementary.widened(made, bias, padding, more) if widens else made


def _widens(node: Any) -> bool:
    return node._saved_transposed and any(node._saved_output_padding)


# What torch (seen with 2.13) has no second derivative of, or takes for a constant in it; then the same of the third.
_TABLE = (
    _WrittenOut("_weight_norm_interface", 2, _weight_norm),  # takes ‖v‖ for a constant
    _WrittenOut("hardsigmoid", 2, _hardsigmoid),
    _WrittenOut("hardsigmoid_", 2, _hardsigmoid_in_place),
    _WrittenOut("_embedding_bag", 2, _embedding_bag),
    _WrittenOut("_cdist_forward", 2, _cdist),
    _WrittenOut("_pdist_forward", 2, _pdist),
    _WrittenOut("multi_margin_loss", 2, _multi_margin_loss),
    _WrittenOut("multilabel_margin_loss_forward", 2, _multilabel_margin_loss),
    _WrittenOut("_scaled_dot_product_flash_attention_for_cpu", 2, _attention),
    _WrittenOut("_scaled_dot_product_flash_attention", 2, _attention),
    _WrittenOut("_scaled_dot_product_efficient_attention", 2, _attention),
    _WrittenOut("_scaled_dot_product_cudnn_attention", 2, _attention),
    _WrittenOut("native_layer_norm", 3, _layer_norm),  # these take mean and variance for constants
    _WrittenOut("native_batch_norm", 3, _batch_norm),
    _WrittenOut("_native_batch_norm_legit", 3, _batch_norm),
    _WrittenOut("_native_batch_norm_legit", 3, _batch_norm, "no_stats"),
    _WrittenOut("_batch_norm_with_update", 3, _batch_norm),
    _WrittenOut("cudnn_batch_norm", 3, _batch_norm),
    _WrittenOut("miopen_batch_norm", 3, _batch_norm),
    _WrittenOut("convolution", 3, _convolution),
)
