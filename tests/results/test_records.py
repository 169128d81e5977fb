"""What a run or a solution says of itself comes back as it was written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from nm_ode import SGD, Adam, Cosine, Drop, GradientFlow, NmOdeError, Problem, Warmup, solve, train
from nm_ode.parameters import Layout
from nm_ode.results import ResultError, SolveInfo, TimeGrid, decode, encode, run_info, solve_info


@dataclass(frozen=True)
class Everything:
    """A record with every kind of field."""

    text: str
    number: float
    count: int
    flag: bool
    words: tuple[str, ...]
    numbers: tuple[float, ...]
    options: dict[str, object]
    size: int | str
    maybe: float | None = None
    word: Literal["a", "b"] = "a"


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.builds(
        Everything,
        text=st.text(),
        number=finite,
        count=st.integers(-(10**9), 10**9),
        flag=st.booleans(),
        words=st.lists(st.text(), max_size=3).map(tuple),
        numbers=st.lists(finite, max_size=3).map(tuple),
        options=st.dictionaries(
            st.text(),
            st.recursive(
                st.one_of(finite, st.booleans(), st.text()),
                lambda part: st.one_of(st.lists(part), st.dictionaries(st.text(), part, max_size=3)),
                max_leaves=4,
            ),
            max_size=3,
        ),
        size=st.one_of(st.integers(1, 100), st.just("full")),
        maybe=st.one_of(st.none(), finite),
        word=st.sampled_from(["a", "b"]),
    )
)
def test_a_record_comes_back(record: Everything) -> None:
    found = decode(Everything, encode(record))
    # JSON has no difference between true and 1 in options; all else is the same to the type.
    assert found == record
    assert all(
        type(getattr(found, name)) is type(getattr(record, name)) for name in ("flag", "count", "number")
    )


def test_a_record_survives_zarr(tmp_path) -> None:
    record = Everything("θ", 0.1, 3, True, ("x, y",), (1e-300,), {"betas": [0.9, 0.999]}, "full")
    xr.Dataset(attrs=encode(record)).to_zarr(tmp_path / "r.zarr", zarr_format=3, consolidated=False)
    assert decode(Everything, xr.open_zarr(tmp_path / "r.zarr", consolidated=False).attrs) == record


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"count": None}, "count"),
        ({"count": 1.5}, "count"),
        ({"number": "large"}, "number"),
        ({"word": "c"}, "word"),
        ({"options": "{"}, "options"),
        ({"text": 3}, "text"),
    ],
)
def test_what_is_missing_or_of_another_type_is_named(change, told: str) -> None:
    attrs = encode(Everything("", 0.0, 0, False, (), (), {}, 1)) | change
    with pytest.raises(ResultError, match=told):
        decode(Everything, {name: value for name, value in attrs.items() if value is not None})
    assert issubclass(ResultError, NmOdeError)


@pytest.mark.parametrize("schedule", [None, Drop((3,), 0.25), Warmup(4)], ids=str)
@pytest.mark.parametrize("batch_size", ["full", 7])
def test_a_run_says_when_and_with_what_each_step_was_taken(tiny: Problem, batch_size, schedule) -> None:
    optimizer = SGD(lr=0.1, momentum=0.5, dampening=0.2)
    run = train(tiny, optimizer, 6, batch_size=batch_size, seed=3, schedule=schedule)
    info = run_info(run)
    factors = np.ones(6) if schedule is None else schedule.factors(6)
    np.testing.assert_allclose(info.grid.lr, 0.1 * factors, rtol=1e-15)
    np.testing.assert_allclose(info.grid.times, 0.08 * np.append(0, np.cumsum(factors)), rtol=1e-13)
    np.testing.assert_array_equal(info.grid.times, run["saved_time"])
    assert (info.grid.is_full_batch, info.grid.is_constant) == (batch_size == "full", schedule is None)
    assert info.grid.n_samples == tiny.n_samples
    for step, batch in enumerate(info.grid.batches):
        theta = torch.from_numpy(run["theta"].values[step].copy())
        assert float(run["loss"][step]) == float(tiny.loss_and_grad(theta, batch)[0])
    assert info.hyperparameters == {
        "lr": 0.1, "momentum": 0.5, "dampening": 0.2, "weight_decay": 0.0, "nesterov": False,
    }  # fmt: skip
    assert info.layout == tiny.layout
    assert (info.optimizer, info.stateful, info.warm_start, info.status) == ("SGD", True, False, "success")


def test_a_time_belongs_to_the_step_that_is_under_way() -> None:
    grid = TimeGrid.planned(0.1, 0.1, np.array([1.0, 0.5, 2.0]), batch_size="full", seed=0, n_samples=4)
    np.testing.assert_allclose(grid.times, [0.0, 0.1, 0.15, 0.35])
    assert [grid.step_at(t) for t in (-1.0, 0.0, 0.05, 0.12, 0.2, 0.35, 9.0)] == [0, 0, 0, 1, 2, 2, 2]
    assert grid.first(2).steps == 2
    np.testing.assert_array_equal(grid.first(2).times, grid.times[:3])


def test_a_solution_says_how_it_was_solved(tiny: Problem) -> None:
    info = solve_info(solve(GradientFlow(tiny), [0.0, 1.0], rtol=1e-5))
    assert isinstance(info, SolveInfo)
    assert (info.flow, info.expected_order, info.beside, info.map_order) == ("gradient", 1, None, None)
    assert info.gradient_evaluations == info.rhs_evaluations > 0
    assert info.layout == tiny.layout
    assert info.check_status == "success"


def test_what_is_no_run_is_told(tiny: Problem) -> None:
    with pytest.raises(ResultError, match="optimizer"):
        run_info(solve(GradientFlow(tiny), [0.0, 1.0], check=False))
    with pytest.raises(NmOdeError, match=r"not a run|lacks"):
        solve(GradientFlow(tiny), xr.Dataset({"theta": 1, "saved_time": 2}))


def test_a_layout_comes_back() -> None:
    layout = Layout.of(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)))

    @dataclass(frozen=True)
    class Holder:
        layout: Layout

    # get_type_hints needs the names of this function's scope
    Holder.__annotations__["layout"] = Layout
    assert decode(Holder, encode(Holder(layout))).layout == layout


def test_adams_pair_of_betas_comes_back_as_numbers(tiny: Problem) -> None:
    info = run_info(train(tiny, Adam(lr=0.01, betas=(0.8, 0.99)), 2))
    assert list(info.hyperparameters["betas"]) == [0.8, 0.99]


@pytest.mark.parametrize("kept", [slice(0, 4), slice(3, None), slice(None, None, 2), slice(0, 0)])
def test_a_run_that_lost_steps_does_not_tell_wrong_times_or_samples(tiny: Problem, kept: slice) -> None:
    run = train(tiny, SGD(lr=0.1), 8, batch_size=3, schedule=Cosine(final=1e-9))
    assert run_info(run.isel(saved_step=[0, -1])).grid.steps == 8
    with pytest.raises(ResultError, match="left out along 'step'"):
        run_info(run.isel(step=kept))
