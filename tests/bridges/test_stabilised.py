"""RKC2 of engine "torch": its stability, its order, its error control, and the spectral radius that it goes by."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import expm

import bridges.counted
from bridges import OdeProblem, get_engine, solve_with
from bridges.rkc import stages
from tests.bridges.equations import Y0, decay, oscillator, solve

POINTS = 60
LAPLACIAN = (
    np.diag(-2 * np.ones(POINTS)) + np.diag(np.ones(POINTS - 1), 1) + np.diag(np.ones(POINTS - 1), -1)
) * (POINTS + 1) ** 2
RADIUS = 4.0 * (POINTS + 1) ** 2
PLACES = np.arange(1, POINTS + 1) / (POINTS + 1)
START = np.sin(np.pi * PLACES) + PLACES * (1 - PLACES)


def heat(t, y, dy):
    dy[:] = LAPLACIAN @ y


def polynomial(s: int, z: np.ndarray) -> np.ndarray:
    """What a step of s stages multiplies the solution of y' = λy by, z = hλ, by the stages' own recursion."""
    table = stages(s)
    before, now = np.zeros_like(z), table.first * z
    for j in range(s - 1):
        field, start = z * (1 + now), z
        before, now = (
            now,
            (table.mu[j] * now + table.nu[j] * before + table.mu_h[j] * field + table.gamma_h[j] * start),
        )
    return 1 + now


def of_chebyshev(s: int, z: np.ndarray) -> np.ndarray:
    """1 − b T_s(w0) + b T_s(w0 + w1 z) by the closed form of T_s; b and w1 by its derivatives."""
    w0 = 1 + 2 / 13 / s**2
    angle = math.acosh(w0)
    first = s * math.sinh(s * angle) / math.sinh(angle)
    second = (s**2 * math.cosh(s * angle) - w0 * first) / math.sinh(angle) ** 2
    w1, b = first / second, second / first**2
    x = w0 + w1 * z
    inside = np.cos(s * np.arccos(np.clip(x, -1, 1)))
    beyond = np.cosh(s * np.arccosh(np.maximum(np.abs(x), 1))) * np.sign(x) ** s
    return 1 - b * math.cosh(s * angle) + b * np.where(np.abs(x) <= 1, inside, beyond)


@pytest.mark.parametrize("s", [2, 3, 4, 7, 20, 101])
def test_the_stages_make_the_damped_polynomial_of_chebyshev(s: int) -> None:
    z = np.linspace(-0.653 * (s**2 - 1), 0, 4001)
    found = polynomial(s, z)
    np.testing.assert_allclose(found, of_chebyshev(s, z), rtol=0, atol=1e-11 * s**2)
    assert np.abs(found).max() <= 1 + 1e-12
    assert np.abs(found[z < -4.0]).max(initial=0) < 0.97  # damped wherever it is not near 0
    near = np.array([-1e-3, 1e-3])
    assert np.abs(polynomial(s, near) - np.exp(near)).max() < 1e-9  # of second order: z³ is left
    assert stages(s).nodes[-1] == 1
    assert (np.diff(stages(s).nodes) > 0).all()


@pytest.mark.parametrize("radius", [0.0, 100.0])
def test_it_is_of_second_order_with_two_stages_and_with_many(radius: float) -> None:
    """Steps of one length, which the tolerance does not limit; the radius that is said makes the stages many."""

    def curved(t, y, dy):
        dy[0], dy[1] = y[1], -np.sin(y[0]) - 0.1 * y[1] + 0.3 * np.cos(t)

    exact, _ = solve("scipy", "DOP853", curved, [1.0, 0.0], [0.0, 1.93, 4.0], rtol=1e-12, atol=1e-13)
    errors: list[np.ndarray] = []
    lengths = (0.2, 0.1, 0.05)
    for length in lengths:
        states, solution = solve(
            "torch",
            "RKC2",
            curved,
            [1.0, 0.0],
            [0.0, 1.93, 4.0],
            rtol=0.5,
            atol=1.0,
            max_step=length,
            sharpness=lambda t, y, field, length=length: radius / length,
        )
        assert abs(solution.statistics.steps - 4 / length) < 6  # the first ones grow
        each = solution.statistics.rhs_evaluations / solution.statistics.steps
        assert (2 <= each < 3) if radius == 0 else (12 < each < 15)
        errors.append(np.abs(states - exact).max(axis=1)[1:])
    order = np.polyfit(np.log(lengths), np.log(errors), 1)[0]
    np.testing.assert_allclose(order, 2, atol=0.25)  # at the end, and inside a step


@pytest.mark.parametrize("given", [None, lambda t, y, field: RADIUS])
def test_a_stiff_equation_takes_few_evaluations(given) -> None:
    """The heat equation: an explicit step is shorter than 2/radius, which is 15,000 here."""
    times = [0.0, 0.03, 0.1, 0.5]
    exact = np.array([expm(t * LAPLACIAN) @ START for t in times])
    counts = []
    for rtol in (1e-2, 1e-4, 1e-6):
        states, solution = solve(
            "torch", "RKC2", heat, START, times, rtol=rtol, atol=rtol * 1e-2, sharpness=given
        )
        assert solution.status == "success"
        assert np.abs(states - exact).max() < 0.2 * rtol ** (2 / 3)  # a local error of h³, a global one of h²
        counts.append(solution.statistics.rhs_evaluations)
        assert (solution.statistics.probe_evaluations == 0) or given is not None
    _, explicit = solve("torch", "RK23", heat, START, times, rtol=1e-4, atol=1e-6)
    assert counts[0] < counts[1] < counts[2]
    assert 4 * counts[1] < explicit.statistics.rhs_evaluations


def test_prothero_and_robinson() -> None:
    def stiff(t, y, dy):
        dy[:] = -1e4 * (y - np.cos(t)) - np.sin(t)

    times = [0.0, 5.0, 10.0]
    states, solution = solve("torch", "RKC2", stiff, [1.0], times, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(states[:, 0], np.cos(times), atol=1e-3)
    assert (
        solution.statistics.rhs_evaluations < 1e4
    )  # stability alone would take 50,000 of an explicit method


@pytest.mark.parametrize("wrong", [0.0, 1.0, 1e-3 * RADIUS, 30 * RADIUS, -RADIUS])
def test_a_radius_that_is_wrong_costs_evaluations_and_no_accuracy(wrong: float) -> None:
    times = [0.0, 0.02, 0.05]
    exact = np.array([expm(t * LAPLACIAN) @ START for t in times])
    states, solution = solve(
        "torch", "RKC2", heat, START, times, rtol=1e-4, atol=1e-6, sharpness=lambda t, y, field: wrong
    )
    assert solution.status == "success"
    assert np.abs(states - exact).max() < 1e-3


def test_the_radius_is_looked_at_again_where_it_changes() -> None:
    """A stiffness that grows a hundredfold on the way, and what is said of it."""
    asked: list[float] = []

    def rate(t):
        return 1e3 * (1 + 99 / (1 + np.exp(-20 * (t - 1))))

    def field(t, y, dy):
        dy[:] = -rate(t) * (y - np.cos(t)) - np.sin(t)

    def sharpness(t, y, rhs):
        asked.append(t)
        return 1.2 * rate(t)

    states, solution = solve(
        "torch", "RKC2", field, [1.0], [0.0, 2.0], rtol=1e-4, atol=1e-6, sharpness=sharpness
    )
    np.testing.assert_allclose(states[-1], np.cos(2.0), atol=1e-4)
    during = [t for t in asked if 0.7 < t < 1.3]
    assert len(during) > 0.5 * len(asked)
    assert len(asked) < solution.statistics.steps
    assert solution.statistics.rejected_steps < 0.1 * solution.statistics.steps


def test_the_difference_quotient_of_a_small_entry_does_not_leave_its_range() -> None:
    """An entry of 1e-12 that must stay positive, as a second moment; its scale says so."""

    def field(t, y, dy):
        assert y[1] > 0
        dy[0], dy[1] = -50 * y[0] / (1 + np.sqrt(y[1])), -0.5 * y[1]

    y0 = np.array([1.0, 1e-12])
    states, solution = solve(
        "torch", "RKC2", field, y0, [0.0, 1.0], rtol=1e-4, atol=1e-7 * y0, scales=np.array([1.0, 1e-12])
    )
    assert solution.status == "success"
    np.testing.assert_allclose(states[-1, 1], 1e-12 * np.exp(-0.5), rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_stiff_and_on_tensors(dtype: str) -> None:
    """What float32 rounds are the stages' distances from the step's start: the error is that of float64."""
    rates = -torch.logspace(-1, 4, 500, dtype=torch.float64, device="cpu")
    y0 = torch.cos(torch.arange(500, dtype=torch.float64, device="cpu"))
    of_field, samples = rates.to(getattr(torch, dtype)), []
    problem = OdeProblem(
        lambda t, y, dy: torch.mul(y, of_field, out=dy),
        y0,
        np.array([0.0, 0.3, 2.0]),
        rtol=1e-4,
        atol=1e-7,
        field_dtype=dtype,
    )
    solution = solve_with(get_engine("torch"), problem, "RKC2", lambda i, t, y: samples.append(y.clone()))
    assert solution.status == "success"
    assert float((samples[-1] - y0 * torch.exp(2 * rates)).abs().max()) < 1e-4
    assert solution.statistics.rhs_evaluations < 4000


def test_a_field_that_does_not_depend_on_the_state_has_no_radius() -> None:
    states, solution = solve("torch", "RKC2", lambda t, y, dy: dy.fill(2 * t), Y0, [0.0, 3.0])
    np.testing.assert_allclose(states[-1], Y0 + 9, atol=1e-5)
    assert solution.statistics.rhs_evaluations < 60 * solution.statistics.steps


def test_an_unstable_and_an_oscillating_equation_are_solved_too() -> None:
    states, _ = solve("torch", "RKC2", lambda t, y, dy: decay(t, -y, dy), Y0, [0.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(states[-1], Y0 * np.exp(2 * np.array([1.0, 0.3, 2.0])), rtol=1e-3)
    states, _ = solve("torch", "RKC2", oscillator, [0.0, 1.0], [0.0, 10.0], rtol=1e-6)
    np.testing.assert_allclose(states[-1], [np.sin(10.0), np.cos(10.0)], atol=2e-3)


@pytest.mark.parametrize("growth", [1e2, 1e4])
def test_another_eigenvalue_that_becomes_the_largest_is_noticed(growth: float) -> None:
    """The direction of the largest before has no share in the new one's, whose equation is another."""

    def field(t, y, dy):
        rates = np.array([100.0, 1 + growth / (1 + np.exp(-20 * (t - 2)))])
        dy[:] = -rates * (y - np.sin([t, t + 1])) + np.cos([t, t + 1])

    _, solution = solve("torch", "RKC2", field, np.sin([0.0, 1.0]), [0.0, 4.0], rtol=1e-4, atol=1e-6)
    assert solution.status == "success"
    assert (
        solution.statistics.rhs_evaluations < 3000
    )  # two stages a step alone would take 10,000 of the faster


@pytest.mark.parametrize(("far", "jumps"), [(False, True), (True, True), (False, False)])
def test_stages_that_overflow_are_a_step_back_and_no_field_that_is_not_finite(
    far: bool, jumps: bool, monkeypatch
) -> None:
    """Hundreds of stages for one radius, and then another ten thousand times as large."""
    monkeypatch.setattr(bridges.counted, "is_far", lambda vector: far)

    def field(t, y, dy):
        late = float(t > 1) if jumps else 1 / (1 + np.exp(-1000 * (t - 1)))
        dy[:] = -1e4 * (1 + (1e4 - 1) * late) * (y - math.cos(t)) - math.sin(t)

    with np.errstate(over="ignore", invalid="ignore"):
        states, solution = solve("torch", "RKC2", field, [1.0], [0.0, 1.01], rtol=1e-2, atol=1e-3)
    assert solution.status == "success"
    np.testing.assert_allclose(states[-1], math.cos(1.01), atol=1e-3)


def test_it_goes_on_from_every_step_to_the_same_bits() -> None:
    """The vectors change places from step to step, and sums are rounded in the order of their terms."""
    matrix = np.random.default_rng(0).standard_normal((9, 9))
    matrix = -matrix @ matrix.T

    def field(t, y, dy):
        dy[:] = np.tanh(matrix @ y) + math.sin(3 * t)

    times = np.linspace(0, 0.3, 50)
    problem = OdeProblem(field, np.linspace(-1, 1, 9), times, rtol=1e-4, atol=1e-7)
    engine, places, found = get_engine("torch"), [], []

    def keep(place):
        place = place()
        memory = {name: values.copy() for name, values in place.memory.items()}
        places.append(replace(place, y=place.y.copy(), memory=memory))

    engine.solve(replace(problem, on_step=keep), "RKC2", lambda i, t, y: found.append(y.copy()))
    assert len(places) > 10
    for place in places:
        again: list[np.ndarray] = []
        engine.solve(
            replace(problem, kept=place), "RKC2", lambda i, t, y, again=again: again.append(y.copy())
        )
        np.testing.assert_array_equal(again, found[place.samples :])
