"""Pickles of data are read, in every protocol and as Python 2 wrote them; of any other nothing is executed."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nm_ode.data.images.pickles import UnsafePickleError, plain

SAME = [1, 2, 300, -7, 2**40]
DATA: dict[Any, Any] = {
    b"data": np.arange(24, dtype=np.uint8).reshape(4, 6),
    b"labels": SAME,
    "tuple": ("text", 1.5, None, True, False, (), (1,), (1, 2)),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big": np.arange(3, dtype=">i4"),
    "none": np.zeros((0, 3), np.float32),
    b"empty": b"",
    "again": SAME,
    "nested": {1: [[], {}, {"a": np.ones(2)}]},
}


def equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, np.ndarray):
        same_kind: bool = found.dtype.newbyteorder("=") == expected.dtype.newbyteorder(
            "="
        )  # NumPy turns bytes around
        return same_kind and np.array_equal(found, expected)
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(equal(found[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        return (
            type(found) is type(expected) and len(found) == len(expected) and all(map(equal, found, expected))
        )
    return type(found) is type(expected) and bool(found == expected)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dumps", [pickle.dumps, pickle._dumps])  # type: ignore[attr-defined]
def test_data_come_back_as_they_are(protocol: int, dumps: Any) -> None:
    content = dumps(DATA, protocol=protocol)
    assert equal(plain(content), pickle.loads(content))
    assert equal(plain(content)[b"data"], DATA[b"data"])


def short(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text


def as_python_2_wrote_it(numbers: bytes, order: bytes = b"|", kind: bytes = b"u1") -> bytes:
    """{"data": array of shape (2, 3), "labels": [6, 9]}, as cPickle in Python 2 has it in CIFAR's files."""
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03"
    dtype = b"cnumpy\ndtype\nq\x04" + short(kind) + b"K\x00K\x01\x87Rq\x05(K\x03" + short(order)
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01K\x02K\x03\x86" + dtype + b"\x89T" + len(numbers).to_bytes(4, "little") + numbers + b"tb"
    return b"\x80\x02}q\x00(" + short(b"data") + array + state + short(b"labels") + b"]q\x06(K\x06K\teu."


def test_what_python_2_wrote_is_read() -> None:
    found = plain(as_python_2_wrote_it(b"\x00\x01\x02\xfd\xfe\xff"))
    assert equal(found[b"data"], np.array([[0, 1, 2], [253, 254, 255]], np.uint8))
    assert found[b"labels"] == [6, 9]
    expected = pickle.loads(as_python_2_wrote_it(b"\x00\x01\x02\xfd\xfe\xff"), encoding="bytes")
    assert equal(found, expected)


class Malicious:
    """Writes a file when Python's own reader unpickles it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.called = function, arguments

    def __reduce__(self) -> Any:
        return self.called


def malicious(path: Path) -> list[bytes]:
    """Pickles that would make a file."""
    text = str(path).encode()
    by_reduce = [
        Malicious(os.system, f"touch {path}"),
        {b"data": Malicious(exec, f"open({str(path)!r}, 'w')")},
    ]
    return [
        *(pickle.dumps(content, protocol=protocol) for content in by_reduce for protocol in range(6)),
        b"(S'touch " + text + b"'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch " + text + b"'\no.",  # OBJ
        b"cos\nsystem\n(S'touch " + text + b"'\ntR.",
        b"c__builtin__\neval\n(S'open(\"" + text + b'", "w")\'\ntR.',
        b"\x80\x02\x82\x01.",  # EXT1
        b"cnumpy\nload\n(S'" + text + b"'\ntR.",
    ]


def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    for number, content in enumerate(malicious(tmp_path / "made")):
        with pytest.raises(UnsafePickleError):
            plain(content)
        assert not (tmp_path / "made").exists(), number
    pickle.loads(malicious(tmp_path / "made")[0])  # it is what it is taken for
    assert (tmp_path / "made").exists()


ARRAY = as_python_2_wrote_it(b"\x00\x01\x02\xfd\xfe\xff")


@pytest.mark.parametrize(
    "content",
    [
        as_python_2_wrote_it(bytes(48), kind=b"O8"),  # pointers out of bytes
        as_python_2_wrote_it(bytes(48), kind=b"V8"),
        ARRAY.replace(b"_reconstruct", b"scalar"),
        b"\x80\x02cnumpy\nndarray\n.",  # a class as the value
        b"\x80\x02cnumpy\nndarray\n)R.",
        b"\x80\x02cnumpy\nndarray\n)\x81.",  # NEWOBJ
        b"\x80\x02cnumpy\nndarray\n}U\x01aK\x01sb.",  # attributes of a class
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x06\x00\x00\x00punycd\x86R.",
        b"\x80\x02]K\x01R.",
        b"\x80\x02U\x01aQ.",  # a persistent identifier
    ],
)
def test_what_is_neither_data_nor_a_plain_array_is_refused(content: bytes) -> None:
    with pytest.raises(UnsafePickleError):
        plain(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>not found</html>",
        ARRAY[:-1],
        ARRAY[: len(ARRAY) // 2],
        as_python_2_wrote_it(b"\x00\x01\x02"),  # fewer numbers than the shape says
        as_python_2_wrote_it(bytes(6), order=b"?"),
        b"\x80\x02]q\x00h\x00a.",  # a list that has itself in it
        b"\x80\x02h\x07.",
        b"\x80\x02t.",
        b"\x80\x02}]K\x01s.",  # a list as a key
    ],
)
def test_what_is_damaged_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        plain(content)
    assert not isinstance(caught.value, UnsafePickleError)


def test_lists_that_double_are_no_trap() -> None:
    """Sixty lists, each of which has the one before in it twice: 2^60 entries for whoever copies them."""
    doubled = b"".join(b"]q" + bytes([i + 1]) + (b"h" + bytes([i]) + b"a") * 2 for i in range(60))
    found = plain(b"\x80\x02(]q\x00" + doubled + b"t.")
    assert len(found) == 61
    assert found[60][0] is found[60][1]
