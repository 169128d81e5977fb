"""Sums of products in one pass: each against the same sum written out, whatever else is asked for beside it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nm_ode.parameters import Difference, Layout, Parts
from nm_ode.passes import Pass, Passes, Sum, Wanted, totals
from nm_ode.passes.compiler import SWITCH, compiler
from nm_ode.symmetries import View

PAIRS = (("u", "u"), ("u", "v"), ("w", "v"))


@st.composite
def views(draw: st.DrawFn) -> tuple[tuple[int, ...], View]:
    """A parameter's shape, and a view of it: all of it, or every second entry of its rows after some."""
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=0, max_size=4)))
    strides = tuple(torch.empty(shape, device="meta").stride())
    view = View("p", shape, strides)
    if shape and shape[-1] > 2 and draw(st.booleans()):
        view = View("p", (*shape[:-1], (shape[-1] - 1) // 2), (*strides[:-1], 2 * strides[-1]), offset=1)
    return shape, view


def direct(u: Tensor, v: Tensor, view: View, axes: tuple[int, ...]) -> Tensor:
    """Σ u·v over the axes that are not kept, in float64."""
    product = view.of(u.double().reshape(-1)) * view.of(v.double().reshape(-1))
    others = [dim for dim in range(product.ndim) if dim not in axes]
    return (product.sum(others) if others else product).reshape(-1)


@settings(max_examples=60, deadline=None)
@given(
    views(),
    st.integers(1, 40),
    st.booleans(),
    st.sampled_from([None, False, True]),
    st.sampled_from([torch.float32, torch.float64]),
    st.data(),
)
def test_every_sum_is_what_it_says(
    found: tuple[tuple[int, ...], View],
    chunk: int,
    flat: bool,
    compiled: bool | None,
    dtype: torch.dtype,
    data: st.DataObject,
) -> None:
    shape, view = found
    layout = Layout.of_parameters(
        {"first": torch.empty(3), "p": torch.empty(shape), "last": torch.empty(2, 2)}
    )
    every = [axes for k in range(view_dims(view) + 1) for axes in combinations(range(view_dims(view)), k)]
    sums = {
        Sum(pair, view, axes)
        for pair in PAIRS
        for axes in data.draw(st.lists(st.sampled_from(every), max_size=3))
    }
    draw = torch.Generator().manual_seed(0)
    parts = {
        name: Parts(
            layout.slots,
            [torch.randn(slot.shape, dtype=dtype, generator=draw) for slot in layout.slots],
            torch.empty(0, dtype=dtype),
        )
        for name in "uvw"
    }
    copy = Parts(layout.slots, [None] * 3, torch.empty(0, dtype=dtype))
    vectors = {**parts, "copy": copy}
    given_vectors = {name: one.flat() for name, one in vectors.items()} if flat else vectors
    wanted = Wanted(frozenset(PAIRS[:2]), frozenset(sums), frozenset({("w", "copy")}))
    # As it comes, or by the one way or the other.
    made = Pass(layout, wanted, compiled=compiled, chunk=None if compiled is None else chunk)(given_vectors)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    assert made.sums.keys() == sums
    for one in sums:
        u, v = (parts[name]["p"] for name in one.pair)
        torch.testing.assert_close(made.sums[one], direct(u, v, view, one.axes), rtol=0, atol=tolerance * 50)
    for a, b in PAIRS[:2]:
        expected = [(parts[a][name].double() * parts[b][name].double()).sum() for name in layout.names]
        torch.testing.assert_close(made.totals[a, b], torch.stack(expected), rtol=0, atol=tolerance * 500)
    kept = given_vectors["copy"]
    assert torch.equal(kept.flat() if isinstance(kept, Parts) else kept, parts["w"].flat())


def view_dims(view: View) -> int:
    return len(view.shape)


@pytest.mark.parametrize("whole_first", [False, True])
def test_a_difference_is_the_same_by_rows_and_as_a_whole(whole_first: bool) -> None:
    layout = Layout.of_parameters({"a": torch.empty(5, 4), "b": torch.empty(3)})
    after, before = (
        Parts(layout.slots, [torch.randn(slot.shape) for slot in layout.slots], torch.empty(0))
        for _ in range(2)
    )
    update = Difference(layout.slots, after, before, [])
    if whole_first:
        assert torch.equal(update.flat(), after.flat() - before.flat())
    pair = ("update", "theta")
    made = Pass(layout, totals(pair), chunk=4)({"update": update, "theta": after})
    assert update.is_made == whole_first
    expected = [((after[name] - before[name]).double() * after[name].double()).sum() for name in layout.names]
    torch.testing.assert_close(made.totals[pair], torch.stack(expected), rtol=1e-6, atol=1e-6)
    assert torch.equal(update.flat(), after.flat() - before.flat())


def test_sums_in_float32_keep_their_digits() -> None:
    """10⁶ squares one after the other in float32 would be off by 10⁻⁴."""
    layout = Layout.of_parameters({"a": torch.empty(1000, 1000)})
    u = torch.rand(10**6, generator=torch.Generator().manual_seed(0))
    view = View("a", (1000, 1000), (1000, 1))
    columns, pair = Sum(("u", "u"), view, (1,)), ("u", "u")
    exact = u.double().reshape(1000, 1000) ** 2
    with_columns = Pass(layout, Wanted(frozenset({pair}), frozenset({columns})))({"u": u})
    torch.testing.assert_close(with_columns.sums[columns], exact.sum(0), rtol=2e-6, atol=0)
    for made in (with_columns, Pass(layout, totals(pair))({"u": u})):
        torch.testing.assert_close(made.totals[pair], exact.sum().reshape(1), rtol=2e-6, atol=0)


class Seen:
    """A step whose reads are counted."""

    def __init__(self, step: int) -> None:
        self.step, self.read = step, 0

    def vector(self, name: str) -> Tensor:
        self.read += 1
        return torch.arange(4.0)


def test_readers_share_a_pass_and_only_those_of_the_step() -> None:
    passes = Passes(Layout.of_parameters({"a": torch.empty(4)}))
    passes.ask(totals(("u", "u")), range(10))
    passes.ask(totals(("u", "v")), range(0, 10, 2))
    even, odd = Seen(2), Seen(3)
    assert passes.of(even) is passes.of(even)
    assert even.read == 2
    assert set(passes.of(even).totals) == {("u", "u"), ("u", "v")}
    assert set(passes.of(odd).totals) == {("u", "u")}
    assert odd.read == 1


def large() -> tuple[Layout, View, dict[str, Tensor]]:
    """A parameter that threads share."""
    layout = Layout.of_parameters({"a": torch.empty(700, 900)})
    draw = torch.Generator().manual_seed(0)
    return (
        layout,
        View("a", (700, 900), (900, 1)),
        {name: torch.randn(630_000, generator=draw) for name in "uv"},
    )


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("with_rows", [False, True])
def test_threads_share_a_parameter(two_threads: None, with_rows: bool) -> None:
    layout, view, vectors = large()
    pair, vectors["copy"] = ("u", "v"), torch.zeros(630_000)
    sums = frozenset(Sum(pair, view, axes) for axes in ((0,), (1,))) if with_rows else frozenset()
    wanted = Wanted(frozenset({pair}), sums, frozenset({("u", "copy")}))
    made = Pass(layout, wanted, compiled=True)(vectors)
    for one in sums:
        expected = direct(vectors["u"], vectors["v"], view, one.axes)
        torch.testing.assert_close(made.sums[one], expected, rtol=0, atol=1e-4)
    expected = (vectors["u"].double() @ vectors["v"].double()).reshape(1)
    torch.testing.assert_close(made.totals[pair], expected, rtol=0, atol=1e-2)
    assert torch.equal(vectors["copy"], vectors["u"])


@pytest.mark.parametrize("shape", [(1, 4, 150_001), (300_001, 2)])
def test_threads_share_long_rows_and_long_columns(two_threads: None, shape: tuple[int, ...]) -> None:
    layout = Layout.of_parameters({"a": torch.empty(shape)})
    draw = torch.Generator().manual_seed(0)
    vectors = {name: torch.randn(layout.size, generator=draw) for name in "uv"}
    view, pair = View("a", shape, torch.empty(shape, device="meta").stride()), ("u", "v")
    sums = [Sum(pair, view, (dim,)) for dim in range(len(shape))]
    made = Pass(layout, Wanted(frozenset({pair}), frozenset(sums)), compiled=True)(vectors)
    for one in sums:
        expected = direct(vectors["u"], vectors["v"], view, one.axes)
        torch.testing.assert_close(made.sums[one], expected, rtol=0, atol=1e-2)


def test_a_view_that_no_kernel_reads_is_beside_one_that_kernels_read() -> None:
    layout = Layout.of_parameters({"a": torch.empty(3, 4, 5)})
    vectors = {"u": torch.randn(60, generator=torch.Generator().manual_seed(0))}
    pair, half = ("u", "u"), View("a", (3, 2, 5), (20, 5, 1))
    sums = [Sum(pair, View("a", (3, 4, 5), (20, 5, 1)), (0, 2)), Sum(pair, half, (0,))]
    made = Pass(layout, Wanted(frozenset({pair}), frozenset(sums)), compiled=True)(vectors)
    for one in sums:
        expected = direct(vectors["u"], vectors["u"], one.view, one.axes)
        torch.testing.assert_close(made.sums[one], expected, rtol=0, atol=1e-4)


@pytest.mark.skipif(compiler() is None, reason="there is no C compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_digest_shows_what_is_done_to_all_entries(two_threads: None, dtype: torch.dtype) -> None:
    """In a size that is a power of 2, where sums of signs and of exponents are zero."""
    layout = Layout.of_parameters({"a": torch.empty(1024, 1024)})
    made = Pass(layout, Wanted(digests=frozenset("u")), compiled=True)
    u = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0), dtype=dtype)
    one = torch.zeros_like(u)
    one[3, 5] = -0.0
    changes = [u, -u, 2 * u, u / 2, u.flip(0), u.roll(512, 1), u.t(), 0 * u, u.sign(), one]
    changes = [change.reshape(-1) for change in changes]
    digests = [made({"u": change}).digests["a", "u"] for change in changes]
    assert len(set(digests)) == len(digests)
    assert digests == [made({"u": change.clone()}).digests["a", "u"] for change in changes]


@pytest.mark.parametrize("variable", [("CC", "no_such_compiler"), ("CC", "true"), (SWITCH, "0")])
def test_without_a_compiler_torch_makes_the_sums(
    monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str]
) -> None:
    monkeypatch.setenv(*variable)
    compiler.cache_clear()
    try:
        layout, _, vectors = large()
        pair = ("u", "v")
        found, expected = (
            Pass(layout, totals(pair), compiled=one)(vectors).totals[pair] for one in (True, False)
        )
        assert torch.equal(found, expected)
    finally:
        compiler.cache_clear()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_shows(compiled: bool, value: float) -> None:
    layout, view, vectors = large()
    vectors["u"][630] = value
    row, pair = Sum(("u", "u"), view, (0,)), ("u", "u")
    made = Pass(layout, Wanted(frozenset({pair}), frozenset({row})), compiled=compiled)(vectors)
    assert not torch.isfinite(made.totals[pair]).any()
    assert not torch.isfinite(made.sums[row][0])
    assert torch.isfinite(made.sums[row][1:]).all()


def test_the_kernel_leaves_small_numbers_as_they_are() -> None:
    """A library that is compiled with -ffast-math would flush them to zero in the whole process."""
    layout, _, vectors = large()
    Pass(layout, totals(("u", "v")), compiled=True)(vectors)
    assert float(torch.tensor(1e-30) * torch.tensor(1e-10)) > 0
