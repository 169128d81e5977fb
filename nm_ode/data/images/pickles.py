"""Arrays, bytes, lists and dicts out of a Python pickle, of which nothing is executed.

A pickle is a program, and Python's own reader calls whatever it names. This one has no call in it: it follows the
operations that data need, and knows by name how NumPy writes an array; anything else in the file is refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")
_KNOWN = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    ("__builtin__", "bytes"),
    ("builtins", "bytes"),
    *((module, name) for module in _MODULES for name in ("_reconstruct", "_frombuffer")),
}


class UnsafePickleError(ValueError):
    """The pickle has more in it than data; nothing of it was executed."""


def plain(content: bytes) -> Any:
    """What a pickle has: None, truth values, numbers, texts, bytes, tuples, lists, dicts, and arrays of numbers.

    Texts of Python 2 come as bytes.

    Raises:
        UnsafePickleError: it names a class or a function.
        ValueError: it is no pickle, cut off or damaged.
    """
    try:
        return _Machine().run(content)
    except UnsafePickleError:
        raise
    except Exception as error:  # of a file that may have anything in it
        raise ValueError(str(error).partition("\n")[0] or type(error).__name__) from None


@dataclass(frozen=True)
class _Name:
    """What stands for a function or class: its name, and nothing that could be called."""

    module: str
    name: str


@dataclass
class _Type:
    """NumPy's description of an array's entries: "u1" and the order of its bytes."""

    code: str
    order: str = "|"

    def found(self) -> np.dtype[Any]:
        if len(self.code) < 2 or self.code[0] not in "biuf" or not self.code[1:].isdigit():
            raise UnsafePickleError(f"an array of the kind {self.code!r}")
        return np.dtype(f"{self.order}{self.code}")


@dataclass
class _Array:
    """An array whose numbers come later."""

    value: NDArray[Any] | None = None


class _Mark:
    """Where on the stack a list or tuple begins."""


class _Machine:
    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        for operation, argument, _ in pickletools.genops(content):
            if operation.name in _NOTHING:
                continue
            if operation.name == "STOP":
                (result,) = self._stack
                return _finished(result, {})
            if operation.name in _PUSHED:
                self._stack.append(_PUSHED[operation.name](argument))
            elif operation.name in _STEPS:
                _STEPS[operation.name](self, argument)
            else:
                raise UnsafePickleError(f"the operation {operation.name}")
        raise ValueError("it has no end")

    def marked(self) -> list[Any]:
        """What lies above the last mark, which goes with it."""
        place = max(i for i, entry in enumerate(self._stack) if isinstance(entry, _Mark))
        above = self._stack[place + 1 :]
        del self._stack[place:]
        return above

    def name(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._named(module, name)

    def stack_name(self, _: Any) -> None:
        module, name = self._popped(2)
        self._named(str(module), str(name))

    def reduce(self, _: Any) -> None:
        what, arguments = self._popped(2)
        if not isinstance(what, _Name) or not isinstance(arguments, tuple):
            raise UnsafePickleError("a call of what is no name")
        self._stack.append(_made(what.name, arguments))

    def build(self, _: Any) -> None:
        (state,) = self._popped(1)
        target = self._stack[-1]
        if isinstance(target, _Array) and isinstance(state, tuple) and len(state) == 5:
            _, shape, kind, is_fortran, numbers = state
            target.value = _array(numbers, kind, shape, "F" if is_fortran else "C")
        elif isinstance(target, _Type) and isinstance(state, tuple) and len(state) >= 2:
            (order,) = map(_text, state[1:2])
            if order not in ("|", "<", ">", "="):
                raise ValueError(f"an order of bytes {order!r}")
            target.order = order
        else:
            raise UnsafePickleError(f"a state for {type(target).__name__}")

    def put(self, key: int) -> None:
        self._memo[key] = self._stack[-1]

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def get(self, key: int) -> None:
        self._stack.append(self._memo[key])

    def mark(self, _: Any) -> None:
        self._stack.append(_Mark())

    def tuple_of(self, count: int) -> None:
        self._stack.append(tuple(self._popped(count)))

    def marked_tuple(self, _: Any) -> None:
        self._stack.append(tuple(self.marked()))

    def marked_list(self, _: Any) -> None:
        self._stack.append(self.marked())

    def marked_dict(self, _: Any) -> None:
        self._stack.append(dict(_pairs(self.marked())))

    def append(self, _: Any) -> None:
        self._extend(self._popped(1))

    def appends(self, _: Any) -> None:
        self._extend(self.marked())

    def set_item(self, _: Any) -> None:
        self._update(self._popped(2))

    def set_items(self, _: Any) -> None:
        self._update(self.marked())

    def pop(self, _: Any) -> None:
        self._popped(1)

    def _extend(self, entries: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise ValueError("entries for what is no list")
        self._stack[-1].extend(entries)

    def _update(self, entries: list[Any]) -> None:
        if type(self._stack[-1]) is not dict:
            raise ValueError("entries for what is no dict")
        self._stack[-1].update(_pairs(entries))

    def _named(self, module: str, name: str) -> None:
        if (module, name) not in _KNOWN:
            raise UnsafePickleError(f"{module}.{name}")
        self._stack.append(_Name(module, name))

    def _popped(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ValueError("it takes more than it has")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken


def _made(name: str, arguments: tuple[Any, ...]) -> Any:
    """What NumPy's own functions make of these arguments."""
    if name == "_reconstruct":
        return _Array()
    if name == "_frombuffer":
        numbers, kind, shape, order = arguments
        return _Array(_array(numbers, kind, shape, _text(order)))
    if name == "dtype":
        return _Type(_text(arguments[0]))
    if name == "encode":
        text, encoding = arguments
        if encoding != "latin1":
            raise UnsafePickleError(f"a text in {encoding!r}")
        return text.encode("latin1")
    if name == "bytes" and arguments == ():
        return b""
    raise UnsafePickleError(f"a call of {name}")


def _array(numbers: Any, kind: Any, shape: Any, order: str) -> NDArray[Any]:
    if not isinstance(numbers, bytes | bytearray) or not isinstance(kind, _Type) or order not in ("C", "F"):
        raise UnsafePickleError("an array of other than numbers")
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError("an array without a shape")
    flat = np.frombuffer(bytes(numbers), kind.found())
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _finished(value: Any, known: dict[int, Any]) -> Any:
    """The value with arrays for what stood for them, however deep; what is there twice is looked at once.

    Raises:
        UnsafePickleError: a name is all that there is of something.
    """
    if id(value) not in known:
        known[id(value)] = _rebuilt(value, known)
    return known[id(value)]


def _rebuilt(value: Any, known: dict[int, Any]) -> Any:
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array without numbers")
        return value.value
    if isinstance(value, _Name | _Type | _Mark):
        raise UnsafePickleError("a name as a value")
    if isinstance(value, dict):
        if not all(isinstance(key, bytes | str | int) for key in value):
            raise ValueError("keys that are no texts")
        return {key: _finished(entry, known) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_finished(entry, known) for entry in value)
    return value


def _pairs(entries: list[Any]) -> Iterator[tuple[Any, Any]]:
    if len(entries) % 2:
        raise ValueError("a key without a value")
    return zip(entries[::2], entries[1::2], strict=True)


def _text(given: Any) -> str:
    return given.decode("ascii") if isinstance(given, bytes) else str(given)


def _as_is(argument: Any) -> Any:
    return argument


def _as_bytes(argument: str) -> bytes:
    return argument.encode("latin1")


_NOTHING = ("PROTO", "FRAME")
_PUSHED: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), _as_is),
    **dict.fromkeys(("FLOAT", "BINFLOAT"), _as_is),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _as_bytes),
    **dict.fromkeys(("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _as_is),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), _as_is),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_LIST": lambda _: [],
    "EMPTY_DICT": lambda _: {},
    "EMPTY_TUPLE": lambda _: (),
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stack_name,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    "MEMOIZE": _Machine.memoize,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "MARK": _Machine.mark,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "TUPLE": _Machine.marked_tuple,
    "LIST": _Machine.marked_list,
    "DICT": _Machine.marked_dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "POP": _Machine.pop,
}
