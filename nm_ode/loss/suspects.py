"""Which operations of a model autograd does not derive itself, and in which module they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from nm_ode.loss.derivatives import nodes
from nm_ode.loss.forward_passes import around_modules, described

_LOSS, _BLOCK = "the loss function", "a block without gradients"


def suspects(model: nn.Module, evaluate: Callable[[], Tensor]) -> tuple[str, ...]:
    """Custom functions, detached tensors and blocks without gradients in the loss that `evaluate` gives.

    Each as words with the module that it stands in; in the order in which they are met.
    """
    found: dict[str, dict[str, None]] = {}  # place → names

    def report(name: str, place: str) -> None:
        found.setdefault(place, {})[name] = None

    walk = _Walk(model, report, handmade)
    with torch.enable_grad(), walk, _Cuts(lambda name: report(name, walk.place)):
        walk.look(evaluate(), (), _LOSS)
    for name, module in model.named_modules():
        if module._backward_hooks or module._backward_pre_hooks:
            report("a hook on gradients", described(name, module))
        if getattr(module, "scale_grad_by_freq", False):
            report("gradients scaled by frequency", described(name, module))
    if any(name != _BLOCK for names in found.values() for name in names):
        for names in found.values():
            names.pop(_BLOCK, None)  # a custom function's forward pass is one
    return tuple(f"{name} in {place}" for place, names in found.items() for name in names)


def place_of(
    model: nn.Module, evaluate: Callable[[], Tensor], wanted: Callable[[Any], str | None]
) -> str | None:
    """The module in which an operation of autograd's stands that `wanted` has a name for; None if there is none."""
    found: list[str] = []
    with torch.enable_grad(), _Walk(model, lambda _, place: found.append(place), wanted) as walk:
        walk.look(evaluate(), (), _LOSS)
    return found[0] if found else None


def handmade(node: Any) -> str | None:
    """The name of an operation whose derivative is not torch's own; None for all others."""
    if isinstance(node, BackwardCFunction):
        forward = getattr(type(node), "_forward_cls", None)
        return f"the custom function {getattr(forward, '__name__', type(node).__name__)}"
    if "CppNode" in node.name():
        return "a custom function in C++"
    if "DifferentiableGraph" in node.name():
        return "code of torch.jit"
    return None


class _Walk:
    """Looks at the operations that each module adds to the graph; a module's own parts come before it."""

    def __init__(
        self,
        model: nn.Module,
        report: Callable[[str, str], Any],
        wanted: Callable[[Any], str | None],
    ) -> None:
        self._report, self._wanted = report, wanted
        self._seen: set[Any] = set()
        self._inside: list[str] = []
        self._hooks: AbstractContextManager[None] = around_modules(
            model.named_modules(), self._inside.append, self._leave
        )

    @property
    def place(self) -> str:
        """The module whose forward pass is under way."""
        return self._inside[-1] if self._inside else _LOSS

    def __enter__(self) -> _Walk:
        self._hooks.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.__exit__(None, None, None)

    def _leave(self, words: str, args: Any, output: Any) -> None:
        self._inside.pop()
        self.look(output, args, words)

    def look(self, output: Any, inputs: Any, words: str) -> None:
        """Report what stands between inputs and output and was not seen before."""
        for tensor in _tensors(inputs):
            self._seen.add(tensor.grad_fn)
        for tensor in _tensors(output):
            for node in nodes(tensor, self._seen):
                name = self._wanted(node)
                if name is not None:
                    self._report(name, words)


class _Cuts(TorchFunctionMode):
    """Notices where what depends on parameters is taken for a constant."""

    def __init__(self, report: Callable[[str], Any]) -> None:
        super().__init__()
        self._report = report

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(tensor.requires_grad for tensor in _tensors((args, kwargs))):
            if func in _DETACHING:
                self._report("a detached tensor")
            elif func is Tensor.register_hook:
                self._report("a hook on a gradient")
            elif not torch.is_grad_enabled() and func not in _READING:
                self._report(_BLOCK)
        return func(*args, **(kwargs or {}))


def _getter(name: str) -> Any:
    """What `__torch_function__` is given where an attribute is read."""
    owner: Any = Tensor
    return getattr(owner, name).__get__


_DETACHING = {
    Tensor.detach,
    Tensor.detach_,
    torch.detach,
    Tensor.numpy,
    Tensor.tolist,
    Tensor.item,
    _getter("data"),
}
_READING = {
    _getter(name) for name in ("requires_grad", "shape", "dtype", "device", "layout", "is_leaf", "grad_fn")
}


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor))
