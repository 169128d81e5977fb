"""Arguments: whatever has a plain meaning is taken, and the rest is told in a sentence."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from nm_ode import NmOdeError, Problem, ProblemError
from nm_ode.arguments import as_count, as_device, as_dtype, as_number, as_vector, require_finite
from nm_ode.errors import ArgumentError

LIKE = torch.zeros(3, dtype=torch.float64)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3), np.array(3)])
def test_whole_numbers_of_any_kind_are_counts(value: Any) -> None:
    count = as_count(value, "n")
    assert (count, type(count)) == (3, int)


@pytest.mark.parametrize(
    "value",
    [True, np.True_, "4", 2.5, 4.0, None, 0, -1, torch.tensor(True), torch.tensor([3]), [3], 10**30, random],
)
def test_what_is_no_count_is_named(value: Any) -> None:
    with pytest.raises(ArgumentError, match="steps must be"):
        as_count(value, "steps", most=10**6)


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), torch.tensor(0.5), torch.tensor(0.5, requires_grad=True)]
)
def test_numbers_of_any_kind_are_numbers(value: Any) -> None:
    assert as_number(value, "lr") == 0.5
    assert as_number(2, "lr") == 2.0


@pytest.mark.parametrize(
    "value", [True, "0.1", None, 1j, float("nan"), float("inf"), 10**400, torch.ones(1), [0.1]]
)
def test_what_is_no_number_is_named(value: Any) -> None:
    with pytest.raises(ArgumentError, match="lr must be"):
        as_number(value, "lr")


@pytest.mark.parametrize(
    "value",
    [
        [1, 2, 3],
        (1.0, 2.0, 3.0),
        range(1, 4),
        np.array([1.0, 2.0, 3.0]),
        np.array([3, 2, 1])[::-1],
        np.array([1, 2, 3], dtype=">f4"),
        np.array([1, 2, 3], dtype=np.longdouble),
        np.broadcast_to(np.array([1.0, 2.0, 3.0]), (3,)),
        xr.DataArray([1.0, 2.0, 3.0]),
        pd.Series([1, 2, 3]),
        torch.tensor([1.0, 2.0, 3.0], requires_grad=True),
        torch.tensor([1, 0, 2, 0, 3])[::2],
    ],
)
def test_vectors_of_any_kind_are_vectors(value: Any) -> None:
    vector = as_vector(value, "theta", LIKE)
    assert torch.equal(vector, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    assert vector.is_contiguous()
    assert not vector.requires_grad


def test_a_vector_as_it_should_be_is_not_copied() -> None:
    assert as_vector(LIKE, "theta", LIKE).data_ptr() == LIKE.data_ptr()


@pytest.mark.parametrize(
    "value",
    [
        None, "abc", 1.0, {}, nn.Linear(1, 1), [1j, 2, 3], np.array([True] * 3), torch.zeros(2), torch.zeros(1, 3),
        [torch.zeros(3)], list(nn.Linear(1, 1).parameters()), np.array(["a", "b", "c"]), [[1, 2], [3]], [None, 1, 2],
        torch.zeros(3).to_sparse(), torch.zeros(3, device="meta"), torch.zeros(3, dtype=torch.complex64),
        np.array(["2020-01-01"] * 3, dtype="datetime64[D]"),
    ],
)  # fmt: skip
def test_what_is_no_vector_is_named(value: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^theta "):
        as_vector(value, "theta", LIKE)


def test_values_that_are_not_finite_are_counted() -> None:
    with pytest.raises(
        ArgumentError, match=r"theta0 has 2 values that are NaN and 1 value that is infinite .of 3"
    ):
        as_vector([float("nan"), float("inf"), float("nan")], "theta0", LIKE, finite=True)
    require_finite(torch.full((4,), 1e308, dtype=torch.float64), "theta")  # their sum overflows


@pytest.mark.parametrize(
    "dtype", ["float64", "torch.float64", np.float64, np.dtype("f8"), float, torch.double]
)
def test_dtypes_of_any_kind_are_dtypes(dtype: Any) -> None:
    assert as_dtype(dtype) is torch.float64
    assert as_dtype("float32") is torch.float32


@pytest.mark.parametrize("dtype", [None, 64, "float", "real", int, torch.int64, "complex128", object(), True])
def test_what_is_no_dtype_is_named(dtype: Any) -> None:
    if dtype == "float":
        assert as_dtype(dtype) is torch.float32  # as torch names it
        return
    with pytest.raises(ArgumentError, match=r"dtype must be torch.float64"):
        as_dtype(dtype)


@pytest.mark.parametrize("dtype", ["float16", torch.bfloat16, np.float16])
def test_a_coarse_dtype_is_told_to_be_coarse(dtype: Any) -> None:
    with pytest.raises(ArgumentError, match="too coarse"):
        as_dtype(dtype)


def test_devices() -> None:
    assert as_device("cpu") == as_device(torch.device("cpu"))
    for device in ("gpu", None, "meta", 3.5, "cuda:99"):
        with pytest.raises(ArgumentError, match="device"):
            as_device(device)


X = torch.randn(24, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = X[:, :2].tanh()
MODEL = nn.Linear(4, 2)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem(MODEL, F.mse_loss, (X, Y))


KINDS: dict[str, Any] = {
    "numpy": lambda theta: theta.numpy(),
    "list": lambda theta: theta.tolist(),
    "requires grad": lambda theta: theta.clone().requires_grad_(),
    "strided": lambda theta: theta.repeat_interleave(2)[::2],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_takes_theta_of_every_kind(problem: Problem, kind: str) -> None:
    theta, v = problem.theta0 * 1.1, torch.ones_like(problem.theta0)
    other, along = KINDS[kind](theta), KINDS[kind](v)
    assert problem.loss(other) == problem.loss(theta)
    assert torch.equal(problem.grad(other), problem.grad(theta))
    assert torch.equal(problem.hvp(other, along), problem.hvp(theta, v))
    assert torch.equal(problem.third_derivative(other, along), problem.third_derivative(theta, v))
    assert torch.equal(problem.sample_grads(other), problem.sample_grads(theta))


NO_THETA = [None, "abc", [1.0], {}, 1.0, torch.zeros(10) > 0, torch.zeros(10) + 1j, torch.zeros(1, 10), MODEL]


@pytest.mark.parametrize("wrong", NO_THETA, ids=lambda w: type(w).__name__)
def test_what_is_no_theta_is_named_by_every_method(problem: Problem, wrong: Any) -> None:
    good = problem.theta0
    for call in (problem.loss, problem.grad, problem.sample_grads):
        with pytest.raises(ProblemError, match="theta"):
            call(wrong)
    for product in (problem.hvp, problem.third_derivative):
        with pytest.raises(ProblemError, match="theta"):
            product(wrong, good)
        with pytest.raises(ProblemError, match=r"^v "):
            product(good, wrong)


def test_what_no_gradient_can_be_written_to_is_named(problem: Problem) -> None:
    for out in (torch.zeros(3), problem.theta0.float(), problem.theta0.numpy()):
        with pytest.raises(ProblemError, match="out must be"):
            problem.grad(problem.theta0, out=out)


@pytest.mark.parametrize(
    "samples",
    [[2, 5, -1], (2, 5, 23), np.array([2, 5, 23]), torch.tensor([2, 5, 23], dtype=torch.int32),
     np.isin(np.arange(24), [2, 5, 23]), torch.isin(torch.arange(24), torch.tensor([2, 5, 23])),
     torch.tensor([2, 5, 23], dtype=torch.uint8)],
)  # fmt: skip
def test_samples_of_any_kind(problem: Problem, samples: Any) -> None:
    theta, few = problem.theta0, torch.tensor([2, 5, 23])
    assert torch.equal(problem.grad(theta, samples), problem.grad(theta, few))
    assert torch.equal(problem.sample_grads(theta, samples), problem.sample_grads(theta, few))
    assert problem.subset(samples).n_samples == 3


def test_a_slice_may_go_backwards(problem: Problem) -> None:
    backwards = problem.sample_grads(problem.theta0, slice(None, None, -1))
    assert torch.equal(backwards.flip(0), problem.sample_grads(problem.theta0))


@pytest.mark.parametrize("samples", [[24], [-25], torch.tensor([99]), np.array([3, 24])])
def test_a_sample_that_does_not_exist_is_named(problem: Problem, samples: Any) -> None:
    for call in (problem.loss, problem.sample_grads):
        with pytest.raises(IndexError, match=r"no sample -?[0-9]+; there are 24") as raised:
            call(problem.theta0, samples)
        assert isinstance(raised.value, NmOdeError)


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(),
    st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=3), st.none()), max_size=12),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.sampled_from(
        [X, X.numpy(), X + 1j, X > 0, X.to_sparse(), X.tolist(), MODEL, F.mse_loss, nn.MSELoss, torch.optim.SGD,
         slice(3), slice("a"), torch.float16, np.float64, (X, Y), (X, Y, Y), (X,), [X, Y],
         {"x": X, "y": Y}, X[:0], X[:, :0], np.array(["a"] * 24), np.array([None] * 24), object(),
         torch.utils.data.TensorDataset(X, Y)]
    ),
)  # fmt: skip


@given(what=st.sampled_from(["model", "loss_fn", "data", "dtype", "device", "chunk_size"]), value=ANYTHING)
@settings(max_examples=120, deadline=None)
def test_no_argument_of_a_problem_ends_in_another_ones_words(what: str, value: Any) -> None:
    arguments: dict[str, Any] = {"model": MODEL, "loss_fn": F.mse_loss, "data": (X, Y)} | {what: value}
    try:
        made = Problem(**arguments)
    except NmOdeError:
        return
    assert made.grad(made.theta0).isfinite().all()


@given(name=st.sampled_from(["loss", "grad", "sample_grads"]), theta=ANYTHING, samples=ANYTHING)
@example(name="loss", theta=None, samples=np.float64)
@settings(max_examples=120, deadline=None)
def test_no_argument_of_a_method_ends_in_another_ones_words(name: str, theta: Any, samples: Any) -> None:
    problem = Problem(MODEL, F.mse_loss, (X, Y))
    with contextlib.suppress(NmOdeError):
        assert problem.subset(samples).n_samples > 0
    for arguments in ((theta, None), (problem.theta0, samples)):
        with contextlib.suppress(NmOdeError):
            assert getattr(problem, name)(*arguments).isfinite().all()
