"""Sparse sign projections: what they are, and how well they tell norms of differences."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nm_ode.parameters import Layout, Parts
from nm_ode.sketches import SMALLEST, SparseSigns, standard_error


def layout_of(*shapes: tuple[int, ...]) -> Layout:
    return Layout.of_parameters({f"p{i}": torch.empty(shape) for i, shape in enumerate(shapes)})


def dense(signs: SparseSigns, size: int) -> Tensor:
    """S, shape (m, P), column by column."""
    return torch.stack([signs.of(row) for row in torch.eye(size, dtype=torch.float64)], dim=1)


shapes = st.lists(st.lists(st.integers(0, 9), max_size=3).map(tuple), min_size=1, max_size=5)


@settings(deadline=None)
@given(shapes=shapes, m=st.integers(SMALLEST, 300), seed=st.integers(0, 2**63 - 1))
def test_each_column_has_one_sign(shapes, m, seed):
    layout = layout_of(*shapes)
    matrix = dense(SparseSigns(layout, m, seed), layout.size) if layout.size else torch.zeros(m, 0)
    assert ((matrix != 0).sum(0) == 1).all()
    assert (matrix.abs().sum(0) == 1).all()


@settings(deadline=None)
@given(
    shapes=shapes.filter(lambda found: any(math.prod(shape) for shape in found)),
    m=st.integers(SMALLEST, 300),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_parts_and_flat_vectors_have_one_sketch_and_are_left_alone(shapes, m, seed, dtype):
    layout = layout_of(*shapes)
    vector = torch.randn(layout.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype
    )
    parts = Parts(layout.slots, [piece.clone() for piece in layout.split(vector)], vector[:1])
    signs = SparseSigns(layout, m, seed)
    before, found = vector.clone(), signs.of(vector)
    assert found.dtype == torch.float64
    torch.testing.assert_close(signs.of(parts), found, rtol=0, atol=0)
    # Additions of at most P numbers, in another order than the matrix's.
    expected = dense(signs, layout.size) @ vector.double()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14 * float(vector.abs().sum() + 1))
    assert torch.equal(vector, before)
    assert torch.equal(parts.flat(), before)


def test_many_blocks_are_those_of_the_matrix():
    # More than are taken at a time, with a rest that fills no block.
    layout = layout_of((1100, 64), (37,))
    signs = SparseSigns(layout, 128, 3)
    x = torch.randn(layout.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    places = torch.arange(0, layout.size, 997)
    columns = torch.zeros(layout.size, dtype=torch.float64)
    expected = torch.zeros(128, dtype=torch.float64)
    for i in places.tolist():
        columns.zero_()
        columns[i] = 1.0
        expected += x[i] * signs.of(columns)
    some = torch.zeros_like(x)
    some[places] = x[places]
    torch.testing.assert_close(signs.of(some), expected, rtol=0, atol=1e-13)


def test_a_seed_gives_the_same_projection_for_good():
    # Stores outlive a version: other bits would make their sketches others'.
    signs = SparseSigns(layout_of((3, 50), (7,)), 64, 20)
    found = signs.of(torch.arange(1, 158, dtype=torch.float64))
    first = np.random.Philox(key=20).random_raw(8)
    expected = np.zeros(64)
    for block, (start, stop) in enumerate([(0, 64), (64, 128), (128, 150), (150, 157)]):
        for j in range(stop - start):
            sign = -1.0 if (int(first[block]) >> j) & 1 else 1.0
            expected[(int(first[4 + block]) % 64 + j) % 64] += sign * (start + j + 1)
    np.testing.assert_array_equal(found, expected)
    other = SparseSigns(layout_of((3, 50), (7,)), 64, 21)
    assert not torch.equal(other.of(torch.ones(157, dtype=torch.float64)), signs.of(torch.ones(157).double()))


def test_two_entries_share_a_row_as_often_as_they_should():
    layout, m, seeds = layout_of((4, 64)), 64, 400
    entries = [0, 1, 64, 65, 130, 200]
    units = torch.eye(layout.size, dtype=torch.float64)[entries]
    shared = dict.fromkeys(combinations(range(len(entries)), 2), 0)
    for seed in range(seeds):
        rows = [int(sketch.abs().argmax()) for sketch in map(SparseSigns(layout, m, seed).of, units)]
        for pair in shared:
            shared[pair] += rows[pair[0]] == rows[pair[1]]
    assert shared.pop((0, 1)) == 0  # of one block
    assert shared.pop((2, 3)) == 0
    # 13 pairs, 400 draws, with probability 1/64 each: 81 on average, standard deviation 9.
    assert abs(sum(shared.values()) - len(shared) * seeds / m) < 5 * math.sqrt(len(shared) * seeds / m)


@pytest.mark.parametrize("kind", ["normal", "few large", "constant", "one layer", "periodic"])
def test_norms_are_estimated_without_bias_and_with_the_error_that_is_stated(kind):
    layout, m, draws = layout_of((40, 64), (500,)), 256, 400
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(layout.size, generator=generator, dtype=torch.float64)
    if kind == "few large":
        x[::200] *= 100
    elif kind == "constant":
        x = torch.ones_like(x)
    elif kind == "one layer":
        x[2560:] = 0
    elif kind == "periodic":
        x = torch.where(torch.arange(layout.size) % 64 == 0, 1.0, 0.0).double()
    squares = np.array([float(SparseSigns(layout, m, seed).of(x).square().sum()) for seed in range(draws)])
    ratios = squares / float(x.square().sum())
    spread = math.sqrt(2 / m)
    assert abs(ratios.mean() - 1) < 5 * spread / math.sqrt(draws)
    # The variance: at most 2/m, but for what 400 draws leave open; and near it where no entries dominate.
    assert ratios.std() < 1.2 * spread
    if kind in ("normal", "constant"):
        assert ratios.std() > 0.8 * spread
    norms = np.sqrt(ratios)
    assert norms.std() < 1.2 * standard_error(m)


@pytest.mark.parametrize("m", [64, 100])
def test_by_layer_each_layer_has_a_sketch_of_its_own(m):
    named = {"a.weight": (9, 30), "b.weight": (5, 5), "a.bias": (9,), "c": (70,)}
    layout = Layout.of_parameters({name: torch.empty(shape) for name, shape in named.items()})
    signs = SparseSigns(layout, m, 4, by_layer=True)
    assert signs.parts == 3
    x = torch.randn(layout.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = signs.of(x).view(3, m)
    for part, pieces in enumerate(layout.layers.values()):
        alone = torch.zeros_like(x)
        for piece in pieces:
            alone[piece] = x[piece]
        expected = torch.zeros_like(found)
        expected[part] = found[part]
        torch.testing.assert_close(signs.of(alone).view(3, m), expected, rtol=0, atol=0)
    whole = SparseSigns(layout, m, 4).of(x)
    torch.testing.assert_close(found.sum(0), whole, rtol=0, atol=1e-13)


def test_a_sketch_is_linear():
    layout = layout_of((30, 20))
    signs = SparseSigns(layout, 100, 5)
    x, y = torch.randn(2, 600, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(signs.of(x - 3 * y), signs.of(x) - 3 * signs.of(y), rtol=0, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
def test_it_is_the_same_on_a_gpu():
    layout = layout_of((300, 700), (9,))
    x = torch.randn(layout.size, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    here, there = SparseSigns(layout, 512, 7), SparseSigns(layout, 512, 7, "cuda")
    torch.testing.assert_close(there.of(x.cuda()).cpu(), here.of(x), rtol=0, atol=1e-10)
