"""Arrays of a user's .npz file: real, finite numbers, or a sentence with file and array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nm_ode.data import DataError
from nm_ode.data.npz import npz

X, Y = np.linspace(0, 1, 12).reshape(4, 3), np.arange(4)


def saved(folder: Path, x: Any, y: Any) -> Path:
    path = folder / "mine.npz"
    np.savez(path, x=x, y=y)
    return path


@pytest.mark.parametrize(
    ("x", "y", "fragment"),
    [
        (X.astype(complex), Y, "x is complex"),
        (X, Y.astype(complex), "y is complex"),
        (np.array([["a"] * 3] * 4), Y, "x holds text"),
        (X.astype("datetime64[D]"), Y, "x holds dates"),
        (X, Y.astype("datetime64[D]"), "y holds dates"),
        (X.astype(object), Y, "x holds Python objects"),
        (np.zeros(4, dtype=[("a", float), ("b", int)]), Y, "x holds records"),
        (X, np.array([2**63, 0, 1, 2], dtype=np.uint64), r"y has integers of 2\^63"),
        (X, Y > 1, "y holds truth values"),
        (X, np.stack([Y, Y], axis=1), "y holds whole numbers, which are classes"),
        (np.zeros((4, 0)), Y, "x has no columns"),
        (X, np.zeros((4, 0)), "y has no columns"),
        (np.zeros((0, 3)), np.zeros(0, dtype=int), "at least one"),
        (X[:3], Y, "3 inputs and 4 targets"),
        (np.float64(1), Y, "x is a single number"),
        (np.where(X > 0.5, np.nan, X), Y, "x has values that are not finite"),
        (X, np.full(4, np.inf), "y has values that are not finite"),
        (np.full((4, 3), 2**60), Y, r"x has whole numbers above 2\^53"),
    ],
)
def test_what_would_pass_as_something_else_is_refused(tmp_path: Path, x: Any, y: Any, fragment: str) -> None:
    with pytest.raises(DataError, match=fragment) as caught:
        npz(saved(tmp_path, x, y))
    assert "mine.npz" in str(caught.value)


@pytest.mark.parametrize("kind", [np.float16, np.float32, ">f8", np.longdouble, np.int8, np.uint16, bool])
def test_inputs_of_any_kind_of_number_keep_their_values(tmp_path: Path, kind: Any) -> None:
    x = np.arange(12).reshape(4, 3).astype(kind)
    data = npz(saved(tmp_path, x, Y.astype(np.uint64)))
    np.testing.assert_array_equal(data.x.numpy(), x.astype(float))
    assert data.x.dtype == torch.float64
    assert data.y.tolist() == Y.tolist()
    assert data.y.dtype == torch.int64


def test_a_column_of_classes_and_a_row_of_values_are_what_they_plainly_are(tmp_path: Path) -> None:
    assert npz(saved(tmp_path, X, Y[:, None])).y.tolist() == Y.tolist()
    assert npz(saved(tmp_path, X, Y.astype(float))).y.shape == (4, 1)


def test_what_is_no_such_file_is_named(tmp_path: Path) -> None:
    whole = saved(tmp_path, X, Y).read_bytes()
    flipped = bytearray(whole)
    flipped[150] ^= 1
    contents = {
        "cut.npz": whole[:-40],
        "flipped.npz": bytes(flipped),
        "empty.npz": b"",
        "text.npz": b"x,y\n1,2\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "one.npy", X)
    (tmp_path / "folder.npz").mkdir()
    for name in (*contents, "one.npy", "folder.npz", "gone.npz"):
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            npz(tmp_path / name)
