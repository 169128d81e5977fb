"""Values of buffers that no batch changes, read while a graph is made: sizes that depend on them are numbers.

A graph network drops edges by a mask of its own constant edges. torch.export knows of a mask only that it is one, so
that nothing is known of how many are left. What is computed of such buffers alone is therefore computed at once, and
stands in the graph as a constant. A batch's own edges are data: their numbers are another batch's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

_PICKS = (Tensor.__getitem__, Tensor.__setitem__)
_REPEATS = (torch.repeat_interleave, Tensor.repeat_interleave)
_SELECTS = (torch.masked_select, Tensor.masked_select)


class Changed(Exception):  # noqa: N818 (no error of anybody's: the graph is made in another way)
    """A buffer, or what was computed of buffers, is written into."""


class _Known:
    """A tensor of the graph and its value.

    Attributes:
        tensor: as torch.export has it.
        value: of its own memory.
        version: of the tensor when it had this value.
        has_kin: it was computed of others, or others of it: they may share memory.
    """

    def __init__(self, tensor: Tensor, value: Tensor, *, has_kin: bool) -> None:
        self.tensor, self.value, self.has_kin = tensor, value, has_kin
        self.version = tensor._version

    @property
    def is_written(self) -> bool:
        return self.tensor._version != self.version


class ReadBuffers(TorchFunctionMode):
    """Calls inside of which all tensors are known give constants.

    Args:
        buffers: name → as torch.export has it.
        values: name → its value, of a memory of its own.

    Attributes:
        read: names of the buffers whose values were read.
    """

    def __init__(self, buffers: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.read: set[str] = set()
        self._names = {id(tensor): name for name, tensor in buffers.items()}
        self._known = {
            id(tensor): _Known(tensor, values[name], has_kin=False) for name, tensor in buffers.items()
        }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if not isinstance(leaf, slice)]
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        known = list(self._of(tensors))
        symbolic = any(isinstance(leaf, torch.SymInt | torch.SymFloat | torch.SymBool) for leaf in leaves)
        if known and len(known) == len(tensors) and not symbolic:
            found, result = self._computed(func, args, kwargs)
            if found:
                self._note(tensors, known)
                return result
        elif known:
            func, args = self._without_masks(func, args)
            if func in _REPEATS:
                func, args, kwargs = self._repeated(func, args, kwargs)
        result = func(*args, **kwargs)
        for one in known:
            if one.is_written:
                self._forget(one)
        return result

    def finish(self) -> None:
        """Nothing that was read has been written into, in whatever way.

        Raises:
            Changed: it has.
        """
        if any(one.is_written for one in self._known.values()):
            raise Changed

    def _of(self, tensors: list[Tensor]) -> Iterator[_Known]:
        for tensor in tensors:
            one = self._known.get(id(tensor))
            if one is not None and one.tensor is tensor:
                yield one

    def _note(self, tensors: list[Tensor], known: list[_Known]) -> None:
        self.read |= {self._names[id(tensor)] for tensor in tensors if id(tensor) in self._names}
        for one in known:
            one.has_kin = True

    def _computed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bool, Any]:
        """Of values; False where it writes into them or draws at random, and must be carried out in the graph."""
        copies: list[Tensor] = []

        def copied(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            copies.append(self._known[id(leaf)].value.clone())
            return copies[-1]

        with _disable_current_modes():
            random = torch.get_rng_state()
            given = pytree.tree_map(copied, (args, kwargs))
            versions = [copy._version for copy in copies]
            result = func(*given[0], **given[1])
            writes = any(copy._version != version for copy, version in zip(copies, versions, strict=True))
            draws = not torch.equal(random, torch.get_rng_state())
            torch.set_rng_state(random)
        if writes or draws:
            return False, None
        return True, pytree.tree_map(self._constant, result)

    def _constant(self, result: Any) -> Any:
        if not isinstance(result, Tensor):
            return result
        with _disable_current_modes():
            value = result.detach().clone()
        made = value.clone()  # in the graph
        self._known[id(made)] = _Known(made, value, has_kin=True)
        return made

    def _without_masks(self, func: Any, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        """Entries of what is not known that a known mask picks: at places which are known."""
        if func in _SELECTS and len(args) == 2 and args[0].shape == args[1].shape:
            func, args = Tensor.__getitem__, (args[0], args[1])
        if func not in _PICKS:
            return func, args
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        places: list[Any] = []
        for part in index:
            (one, *_) = [*self._of([part] if isinstance(part, Tensor) else []), None]
            if one is not None and one.value.dtype in (torch.bool, torch.uint8):
                with _disable_current_modes():
                    found = one.value.nonzero(as_tuple=True)
                places += [self._constant(place) for place in found]
                self._note([one.tensor], [one])
            else:
                places.append(part)
        return func, (args[0], tuple(places), *args[2:])

    def _repeated(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """Entries each of which is repeated as often as is known: those at places which are known."""
        repeats = args[1] if len(args) > 1 else kwargs.get("repeats")
        dim = args[2] if len(args) > 2 else kwargs.get("dim")
        for one in self._of([repeats] if isinstance(repeats, Tensor) else []):
            if one.value.ndim == 1 and one.value.numel() > 1:
                with _disable_current_modes():
                    places = torch.arange(len(one.value)).repeat_interleave(one.value)
                self._note([one.tensor], [one])
                x, dim = (args[0].flatten(), 0) if dim is None else (args[0], dim)
                return torch.index_select, (x, dim, self._constant(places)), {}
        return func, args, kwargs

    def _forget(self, one: _Known) -> None:
        if one.has_kin:
            raise Changed
        del self._known[id(one.tensor)]
