"""Engine "torch": SciPy's steps on tensors, also with a field in float32, and what a step asks of a device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import DOP853, RK23, RK45

import bridges.counted
from bridges import EngineError, OdeProblem, get_engine, solve_with
from bridges.vectors import distance, is_finite, norm
from tests.bridges.equations import solve

ENGINE = get_engine("torch")
METHODS = tuple(ENGINE.methods)
PAIRS = {"RK23": RK23, "RK45": RK45, "DOP853": DOP853}
SIZE = 7
MATRIX = np.random.default_rng(1).standard_normal((SIZE, SIZE))
MATRIX = -MATRIX @ MATRIX.T / 3
Y0 = np.random.default_rng(2).standard_normal(SIZE)
ATOL = np.geomspace(1e-9, 1e-7, SIZE)


def field(t, y, dy):
    """Not linear, not autonomous, and now and then fast: steps are refused on the way."""
    dy[:] = np.tanh(MATRIX @ y) + np.sin(3 * t) + 20 * np.exp(-((t - 2) ** 2) / 3e-3) * np.cos(y)


def returned(t, y):
    """The field as SciPy takes it."""
    dy = np.empty_like(y)
    field(t, y, dy)
    return dy


def on_tensors(dtype: str = "float64"):
    matrix = torch.tensor(MATRIX, dtype=getattr(torch, dtype), device="cpu")

    def rhs(t, y, dy):
        assert y.dtype == dy.dtype == matrix.dtype
        dy.copy_(torch.tanh(matrix @ y) + np.sin(3 * t) + 20 * np.exp(-((t - 2) ** 2) / 3e-3) * torch.cos(y))

    return rhs


def y0() -> torch.Tensor:
    return torch.tensor(Y0, dtype=torch.float64, device="cpu")


def options(method: str) -> dict:
    if ENGINE.methods[method].step == "required":
        return {"step": 0.05}
    return {"rtol": 1e-4, "atol": 1e-7} if method == "RKC2" else {"rtol": 1e-6, "atol": 1e-9}


def solved(method: str, times, dtype: str = "float64", rhs=None, **more):
    samples: list[np.ndarray] = []

    def keep(index, t, y):
        assert y.dtype == torch.float64
        samples.append(y.numpy().copy())

    given = {**options(method), **more}
    problem = OdeProblem(rhs or on_tensors(dtype), y0(), np.asarray(times, float), field_dtype=dtype, **given)
    return np.array(samples), solve_with(ENGINE, problem, method, keep), samples


@pytest.mark.parametrize("method", PAIRS)
@pytest.mark.parametrize(
    "given",
    [
        {"rtol": 1e-6, "atol": 1e-9},
        {"rtol": 1e-4, "atol": ATOL},
        {"rtol": 1e-6, "atol": 1e-8, "max_step": 0.07},
    ],
)
def test_accepted_steps_and_states_are_scipys(method: str, given) -> None:
    reference = PAIRS[method](returned, 0.0, Y0, 4.0, **given)
    times, states = [0.0], [Y0]
    while reference.status == "running":
        reference.step()
        times.append(reference.t)
        states.append(reference.y)
    found: list[tuple[float, np.ndarray]] = []
    problem = OdeProblem(
        field,
        Y0,
        np.array([0.0, 4.0]),
        on_step=lambda place: found.append((place().t, place().y.copy())),
        **given,
    )
    solution = ENGINE.solve(problem, method, lambda i, t, y: None)
    assert solution.status == "success"
    assert solution.statistics.rhs_evaluations == reference.nfev
    assert solution.statistics.steps == len(times) - 1
    np.testing.assert_allclose([t for t, _ in found], times[1:], rtol=1e-7)
    np.testing.assert_allclose([y for _, y in found], states[1:], rtol=1e-7, atol=1e-8)
    assert "max_step" in given or solution.statistics.rejected_steps > 0


@pytest.mark.parametrize("method", PAIRS)
def test_samples_inside_a_step_are_those_of_scipys_polynomials(method: str) -> None:
    times = np.linspace(0, 4, 173)
    ours, solution = solve("torch", method, field, Y0, times, rtol=1e-3, atol=1e-6)

    reference, found = PAIRS[method](returned, 0.0, Y0, 4.0, rtol=1e-3, atol=1e-6), [Y0]
    while reference.status == "running":
        reference.step()
        inside = reference.dense_output()
        while len(found) < len(times) and times[len(found)] <= reference.t:
            found.append(inside(times[len(found)]))
    np.testing.assert_allclose(ours, found, rtol=1e-8, atol=1e-9)
    assert solution.statistics.rhs_evaluations == reference.nfev


@pytest.mark.parametrize("method", ["Midpoint", "RK8"])
def test_fixed_steps_give_the_numbers_of_the_methods_on_arrays(method: str) -> None:
    times = [0.0, 0.13, 0.5, 0.5000001, 1.7]
    entered: list[int] = []
    given = {"step": 0.1, "restarts": np.array([0.0, 0.3, 1.1]), "on_restart": entered.append}
    theirs, first = solve("scipy", method, field, Y0, times, **given)
    ours, second = solve("torch", method, field, Y0, times, **given)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-14)
    np.testing.assert_allclose(second.error_estimates, first.error_estimates, rtol=1e-9, atol=1e-15)
    assert first.statistics.rhs_evaluations == second.statistics.rhs_evaluations
    assert set(entered) == {0, 1, 2}
    assert entered[: len(entered) // 2] == entered[len(entered) // 2 :]


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_gives_what_an_array_gives(method: str) -> None:
    times = np.linspace(0, 3, 20)
    arrays, first = solve("torch", method, field, Y0, times, **options(method))
    _, second, tensors = solved(method, times)
    assert second.status == "success"
    np.testing.assert_allclose(np.array(tensors), arrays, rtol=1e-9, atol=1e-11)
    assert second.statistics.rhs_evaluations == first.statistics.rhs_evaluations
    assert second.statistics.steps == first.statistics.steps


@pytest.mark.parametrize("method", METHODS)
def test_a_field_in_float32_is_as_accurate_as_its_rounding(method: str) -> None:
    times = np.linspace(0, 1.9, 20)
    _, exact, fine = solved("DOP853", times, rtol=1e-11, atol=1e-13)
    _, double, doubles = solved(method, times)
    _, single, singles = solved(method, times, "float32")
    assert exact.status == double.status == single.status == "success"
    beyond = np.abs(np.array(doubles) - fine).max()
    assert np.abs(np.array(singles) - fine).max() < 2 * beyond + 2e-5


@pytest.mark.parametrize("method", METHODS)
def test_what_a_float32_state_would_lose_is_kept(method: str) -> None:
    """1 + 1e-9 at every step is 1 in float32, however often it is added."""

    def slow(t, y, dy):
        dy.fill_(1e-6)

    more = {"max_step": 1e-3} if ENGINE.methods[method].step == "none" else {"step": 1e-3}
    _, solution, samples = solved(method, [0.0, 1.0], "float32", slow, **more)
    assert solution.statistics.steps > 900
    np.testing.assert_allclose(samples[-1] - Y0, 1e-6, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_solve_of_tensors_goes_on_to_the_same_bits(method: str, dtype: str) -> None:
    times, places, whole = np.array([0.0, 0.4, 1.1, 3.0]), [], {}
    problem = OdeProblem(on_tensors(dtype), y0(), times, field_dtype=dtype, **options(method))

    def copied(place):
        place = place()
        return replace(place, y=place.y.copy(), memory={name: a.copy() for name, a in place.memory.items()})

    watched = replace(problem, on_step=lambda place: places.append(copied(place)))
    ending = ENGINE.solve(watched, method, lambda i, t, y: whole.update({i: y.clone()}))
    for place in (places[0], places[len(places) // 2], places[-1]):
        assert all(isinstance(values, np.ndarray) for values in (place.y, *place.memory.values()))
        again: dict[int, torch.Tensor] = {}
        solution = ENGINE.solve(
            replace(problem, kept=place), method, lambda i, t, y, again=again: again.update({i: y.clone()})
        )
        assert sorted(again) == list(range(place.samples, len(times)))
        assert solution.statistics.rhs_evaluations == ending.statistics.rhs_evaluations
        for i, y in again.items():
            assert torch.equal(y, whole[i])


@pytest.mark.parametrize("method", METHODS)
def test_the_state_that_was_given_is_not_written_to(method: str) -> None:
    start = y0().requires_grad_()
    problem = OdeProblem(on_tensors(), start, np.array([0.0, 0.3, 1.0]), **options(method))
    assert problem.y0.data_ptr() == start.data_ptr()  # and none is made of it
    assert ENGINE.solve(problem, method, lambda i, t, y: None).status == "success"
    assert torch.equal(start, y0())


@pytest.mark.parametrize("method", METHODS)
def test_nothing_follows_torchs_default_device_and_type(method: str) -> None:
    _, plain, expected = solved(method, [0.0, 0.3, 1.0])
    torch.set_default_device("meta")
    torch.set_default_dtype(torch.float16)
    try:
        _, solution, samples = solved(method, [0.0, 0.3, 1.0])
        arrays, _ = solve("torch", method, field, Y0, [0.0, 0.3, 1.0], **options(method))
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert plain.status == solution.status == "success"
    np.testing.assert_array_equal(samples, expected)
    np.testing.assert_allclose(arrays, expected, rtol=1e-9, atol=1e-11)


def test_tolerances_of_entries_may_be_an_array_or_a_tensor() -> None:
    found = [
        solved("DOP853", [0.0, 2.0], atol=atol)[2][-1]
        for atol in (ATOL, torch.tensor(ATOL, dtype=torch.float64, device="cpu"))
    ]
    np.testing.assert_array_equal(*found)
    for wrong in (torch.zeros(SIZE, dtype=torch.float64, device="cpu"), np.zeros(SIZE)):
        with pytest.raises(EngineError, match="atol must be positive"):
            solved("DOP853", [0.0, 2.0], atol=wrong)
    with pytest.raises(EngineError, match=r"atol has shape \(3,\); the state has \(7,\)"):
        solved("DOP853", [0.0, 2.0], atol=torch.ones(3, dtype=torch.float64, device="cpu"))


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    times = np.array([0.0, 1.0])
    for engine, method in (("scipy", "RK23"), ("sundials", "BDF")):
        with pytest.raises(
            EngineError, match=f"{engine}.* takes the state as a NumPy array.* take engine 'torch'"
        ):
            get_engine(engine).solve(OdeProblem(on_tensors(), y0(), times), method, lambda i, t, y: None)
    with pytest.raises(EngineError, match=r"a tensor of float64.* it is one of float32"):
        OdeProblem(on_tensors(), y0().float(), times)
    with pytest.raises(EngineError, match="float32 goes with a state that is a tensor"):
        OdeProblem(field, Y0, times, field_dtype="float32")
    with pytest.raises(EngineError, match="field_dtype must be 'float64' or 'float32'; 'float16'"):
        OdeProblem(on_tensors(), y0(), times, field_dtype="float16")
    with pytest.raises(EngineError, match=r"must be a vector; its shape is \(1, 7\)"):
        OdeProblem(on_tensors(), y0()[None], times)
    with pytest.raises(EngineError, match="not finite"):
        OdeProblem(on_tensors(), y0() * torch.inf, times)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("far", [False, True])
def test_a_field_that_is_not_finite_stops_a_solve_of_tensors(method: str, far: bool, monkeypatch) -> None:
    """Far away it is looked at once a step, and no sample of the step that has it is given."""
    monkeypatch.setattr(bridges.counted, "is_far", lambda vector: far)
    good = on_tensors()

    def rhs(t, y, dy):
        good(t, torch.nan_to_num(y), dy)
        if t > 1.5:
            dy[3] = torch.inf

    _, solution, samples = solved(method, [0.0, 0.5, 1.0, 1.6, 2.0], rhs=rhs)
    assert solution.status == "non_finite"
    assert "right-hand side has entries that are not finite at t = " in solution.message
    assert 1 <= len(samples) < 5
    assert np.isfinite(samples).all()
    assert 0.2 < solution.time <= 1.55  # the step that has it does not count


@pytest.mark.parametrize("method", METHODS)
def test_limits_and_exceptions_of_a_solve_of_tensors(method: str) -> None:
    _, cut, _ = solved(method, [0.0, 50.0], max_rhs=33)
    assert (cut.status, cut.statistics.rhs_evaluations) == ("max_rhs", 33)
    _, few, _ = solved(method, [0.0, 50.0], max_steps=4)
    assert (few.status, few.statistics.steps) == ("max_steps", 4)
    mine = ZeroDivisionError("mine")

    def broken(t, y, dy):
        raise mine

    with pytest.raises(ZeroDivisionError) as caught:
        solved(method, [0.0, 1.0], rhs=broken)
    assert caught.value is mine


@pytest.mark.parametrize("method", METHODS)
def test_a_step_asks_a_device_for_two_numbers_at_most(method: str, monkeypatch) -> None:
    monkeypatch.setattr(bridges.counted, "is_far", lambda vector: True)
    asked: list[str] = []
    after: list[int] = []
    for name in ("item", "tolist", "__float__", "__bool__", "__int__", "numpy", "cpu", "nonzero"):
        original = getattr(torch.Tensor, name)

        def watched(self, *args, original=original, name=name, **given):
            asked.append(name)
            return original(self, *args, **given)

        monkeypatch.setattr(torch.Tensor, name, watched)
    problem = OdeProblem(
        on_tensors(),
        y0(),
        np.array([0.0, 1.9]),
        on_step=lambda place: after.append(len(asked)),
        **options(method),
    )
    solution = ENGINE.solve(problem, method, lambda i, t, y: None)
    assert solution.status == "success"
    taken = np.diff(after)
    # A look at the spectral radius, and a step that is taken back, ask for more.
    assert np.median(taken) <= (2 if ENGINE.methods[method].step == "none" else 1)


def test_norms_of_tensors_are_those_of_arrays(monkeypatch) -> None:
    monkeypatch.setattr(bridges.vectors, "_PIECE", 3)
    a, b = y0(), y0().flip(0)
    assert norm(a) == pytest.approx(np.linalg.norm(Y0), rel=1e-14)
    assert norm(a.float()) == pytest.approx(np.linalg.norm(Y0.astype(np.float32).astype(float)), rel=1e-14)
    assert distance(a, b) == pytest.approx(np.linalg.norm(Y0 - Y0[::-1]), rel=1e-14)
    largest = torch.full((3,), 1.5e308, dtype=torch.float64, device="cpu")
    assert is_finite(largest)  # whose sum is not
    assert not is_finite(torch.tensor([1.0, torch.nan], device="cpu"))
    assert not is_finite(torch.tensor([torch.inf, -torch.inf], device="cpu"))


@pytest.mark.parametrize("method", PAIRS)
def test_a_norm_that_overflows_is_a_step_taken_back_and_no_end(method: str) -> None:
    """One right-hand side is finite and so large that the square of the error is not; tried again it is as always."""
    count = [0]

    def rhs(t, y, dy):
        count[0] += 1
        dy.fill_(1e170) if count[0] == 5 else torch.neg(y, out=dy)

    _, solution, samples = solved(method, [0.0, 1.0], rhs=rhs)
    assert solution.status == "success"
    assert solution.statistics.rejected_steps > 0
    np.testing.assert_allclose(samples[-1], Y0 * np.exp(-1.0), rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_field_so_large_that_its_norm_overflows_at_the_start_ends_as_a_status(method: str) -> None:
    _, solution, samples = solved(method, [0.0, 1.0], rhs=lambda t, y, dy: torch.mul(y, -1e300, out=dy))
    assert solution.status in ("step_failure", "non_finite")
    assert len(samples) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_gpu_gives_what_the_cpu_gives(method: str, dtype: str) -> None:
    matrix, found = torch.tensor(MATRIX, dtype=getattr(torch, dtype), device="cuda"), []

    def rhs(t, y, dy):
        assert y.is_cuda
        assert dy.is_cuda
        dy.copy_(torch.tanh(matrix @ y) + np.sin(3 * t) + 20 * np.exp(-((t - 2) ** 2) / 3e-3) * torch.cos(y))

    times = np.linspace(0, 3, 11)
    problem = OdeProblem(rhs, y0().cuda(), times, field_dtype=dtype, **options(method))
    solution = solve_with(ENGINE, problem, method, lambda i, t, y: found.append(y.cpu().numpy()))
    assert solution.status == "success"
    _, _, expected = solved(method, times, dtype)
    atol = 1e-8 if dtype == "float64" else 2e-5
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol + (1e-4 if method == "RKC2" else 0))

    def broken(t, y, dy):
        dy.copy_(-y)
        if t > 1.5:
            dy[2] = torch.nan

    problem = OdeProblem(broken, y0().cuda(), times, field_dtype=dtype, **options(method))
    solution = solve_with(ENGINE, problem, method, lambda i, t, y: None)
    assert solution.status == "non_finite"
    assert solution.time <= 1.55
