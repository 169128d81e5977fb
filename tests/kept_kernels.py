"""What torch makes anew whenever it takes a graph apart is kept while tests run: a fifth of what a small model needs.

`ExportedProgram.run_decompositions` gives each of some 270 operations twenty kernels, which it removes when it is done,
and asks 25 times for the operations of all libraries. Both are the same from one graph to the next. The processes that
tests start go without this, and so does torch where it has other functions than these.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch._export import utils
from torch._subclasses import fake_impls
from torch.export import exported_program


class _Kernels(NamedTuple):
    """Of an operation.

    Attributes:
        apart: what takes it apart, which the kernels are made of.
        before: its kernels outside, where these are right.
        inside: those that torch put in their place.
        fake: what torch calls for it on tensors without entries.
    """

    apart: Callable[..., Any]
    before: dict[Any, Any]
    inside: dict[Any, Any]
    fake: Callable[..., Any] | None


_kept: dict[Any, _Kernels] = {}

_override: Any = getattr(exported_program, "_override_composite_implicit_decomp", None)
_register: Any = getattr(utils, "_materialize_cpp_cia_ops", None)
_rules: Any = getattr(fake_impls, "op_implementations_dict", None)


def keep() -> None:
    """From now on, in this process."""
    if _override is None or _register is None or _rules is None:
        return
    exported_program._override_composite_implicit_decomp = _overriding  # type: ignore[assignment]
    utils._materialize_cpp_cia_ops = functools.cache(_register)


@contextmanager
def _overriding(apart: dict[Any, Callable[..., Any]]) -> Iterator[None]:
    """As torch's: operation → what takes it apart."""
    old = {op: _kept[op] for op, function in apart.items() if _holds(op, function)}
    new = {op: function for op, function in apart.items() if op not in old}
    before = {op: dict(op.py_kernels) for op in new if op not in _rules}
    with _override(new):
        for op, kernels in before.items():
            _kept[op] = _Kernels(new[op], kernels, dict(op.py_kernels), _rules.get(op))
        try:
            for op, known in old.items():
                _put(op, known.inside)
                if known.fake is not None:
                    _rules[op] = known.fake
            yield
        finally:
            for op, known in old.items():
                _put(op, known.before)
                _rules.pop(op, None)


def _holds(op: Any, apart: Callable[..., Any]) -> bool:
    known = _kept.get(op)
    return known is not None and known.apart is apart and op not in _rules and known.before == op.py_kernels


def _put(op: Any, kernels: dict[Any, Any]) -> None:
    op.py_kernels.clear()
    op.py_kernels.update(kernels)
    op._dispatch_cache.clear()
