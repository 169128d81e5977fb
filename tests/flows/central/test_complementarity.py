"""The size of the oscillation: what says that it is a minimum, a slow search of another kind, turns of the basis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from nm_ode.flows.base import OscillationError
from nm_ode.flows.central.complementarity import solve_complementarity

TOLERANCE = 1e-10


def gram(tensors: np.ndarray) -> np.ndarray:
    """½⟨T_ij, T_kl⟩, of tensors (k, k, p)."""
    return 0.5 * np.einsum("ijp,klp->ijkl", tensors, tensors)


def problem(seed: int, k: int, spread: float = 0.0, p: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Random A and T; the entries of T fall by `spread` decades from the first to the last."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((k, k))
    tensors = rng.standard_normal((k, k, p)) * 10.0 ** -np.linspace(0, spread, p)
    return (a + a.T) / 2 - 0.3 * np.eye(k), gram((tensors + tensors.transpose(1, 0, 2)) / 2)


def slack(a: np.ndarray, b: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.einsum("ijkl,kl->ij", b, x) + a


def assert_is_minimum(a: np.ndarray, b: np.ndarray, x: np.ndarray, tolerance: float = TOLERANCE) -> None:
    s = slack(a, b, x)
    size, room = max(np.linalg.norm(a), np.linalg.norm(s - a)), np.linalg.norm(x)
    assert np.array_equal(x, x.T)
    assert np.linalg.eigvalsh(x)[0] >= -1e-14 * room
    assert np.linalg.eigvalsh(s)[0] >= -tolerance * size
    assert abs(np.sum(x * s)) <= tolerance * size * room


@given(seed=st.integers(0, 10**6), k=st.integers(1, 8), spread=st.sampled_from([0.0, 3.0]))
@settings(max_examples=40, deadline=None)
def test_the_conditions_of_a_minimum_hold(seed: int, k: int, spread: float) -> None:
    a, b = problem(seed, k, spread)
    found = solve_complementarity(a, b)
    assert found.kkt <= TOLERANCE
    assert_is_minimum(a, b, found.x)


@pytest.mark.parametrize("seed", range(4))
def test_the_conditions_hold_where_b_spans_twelve_decades(seed: int) -> None:
    a, b = problem(seed, 5, 6.0)
    assert_is_minimum(a, b, solve_complementarity(a, b).x)


@given(seed=st.integers(0, 10**6), k=st.integers(2, 6), rank=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_a_solution_of_known_rank_is_found(seed: int, k: int, rank: int) -> None:
    """A is made so that a given X solves it, with S of the other rank, or less: then complementarity is not strict."""
    _, b = problem(seed, k)
    rng = np.random.default_rng(seed + 1)
    turn = np.linalg.qr(rng.standard_normal((k, k)))[0]
    values = rng.uniform(0.1, 3, k) * (np.arange(k) < rank)
    rest = rng.uniform(0.1, 3, k) * (np.arange(k) >= rank + seed % 2)
    x, s = ((turn * one) @ turn.T for one in (values, rest))
    a = s - np.einsum("ijkl,kl->ij", b, x)
    found = solve_complementarity(a, b)
    assert found.kkt <= TOLERANCE
    assert np.linalg.norm(found.x - x) <= 1e-6 * np.linalg.norm(x)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_search_over_factors_finds_no_less(k: int) -> None:
    """X = FFᵀ, by L-BFGS: slow, of another kind, and blind to the cone."""
    for seed in range(5):
        a, b = problem(seed, k)

        def value(flat: np.ndarray, a: np.ndarray = a, b: np.ndarray = b) -> tuple[float, np.ndarray]:
            factor = flat.reshape(k, k)
            x = factor @ factor.T
            s = slack(a, b, x)
            return 0.5 * float(np.sum(x * (s + a))), (2 * s @ factor).ravel()

        start = np.random.default_rng(seed).standard_normal(k * k)
        other = minimize(value, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-11, "ftol": 1e-15}).x
        other = other.reshape(k, k) @ other.reshape(k, k).T
        assert np.linalg.norm(solve_complementarity(a, b).x - other) <= 1e-5 * (1 + np.linalg.norm(other))


@given(seed=st.integers(0, 10**6), k=st.integers(2, 5))
@settings(max_examples=15, deadline=None)
def test_a_turned_basis_turns_the_solution(seed: int, k: int) -> None:
    a, b = problem(seed, k)
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((k, k)))[0]
    turned = np.einsum("ia,jb,kc,ld,abcd->ijkl", turn, turn, turn, turn, b)
    expected = turn @ solve_complementarity(a, b).x @ turn.T
    found = solve_complementarity(turn @ a @ turn.T, turned).x
    assert np.linalg.norm(found - expected) <= 1e-8 * (1 + np.linalg.norm(expected))


@given(seed=st.integers(0, 10**6), k=st.integers(2, 5), sizes=st.tuples(st.floats(-9, 9), st.floats(-9, 9)))
@settings(max_examples=15, deadline=None)
def test_units_do_not_matter(seed: int, k: int, sizes: tuple[float, float]) -> None:
    a, b = problem(seed, k)
    of_a, of_b = (10.0**one for one in sizes)
    expected = solve_complementarity(a, b).x
    found = solve_complementarity(of_a * a, of_b * b).x * (of_b / of_a)
    assert np.linalg.norm(found - expected) <= 1e-9 * (1 + np.linalg.norm(expected))


@given(seed=st.integers(0, 10**6), k=st.integers(2, 5))
@settings(max_examples=15, deadline=None)
def test_the_solution_is_continuous(seed: int, k: int) -> None:
    """It is Lipschitz in A, with the inverse of B's least eigenvalue, wherever A lies; where X becomes 0 as well."""
    a, b = problem(seed, k)
    flat = b.reshape(k * k, k * k)
    least = np.linalg.eigvalsh(flat)[-(k * (k + 1)) // 2]
    assert least > 0
    shift = np.linalg.eigvalsh(a)[0]
    for base in (a, a - shift * np.eye(k)):
        near = base - 1e-6 * np.eye(k)
        moved = np.linalg.norm(solve_complementarity(near, b).x - solve_complementarity(base, b).x)
        assert moved <= 1.01 * np.sqrt(k) * 1e-6 / least + 1e-9


def test_what_is_written_down() -> None:
    a, b = problem(3, 4)
    positive = solve_complementarity(a @ a.T, b)
    assert (positive.x == 0).all()
    assert (positive.kkt, positive.iterations) == (0, 0)
    one = np.full((1, 1, 1, 1), 4.0)
    assert solve_complementarity(np.array([[-2.0]]), one).x == 0.5
    assert solve_complementarity(np.array([[2.0]]), one).x == 0
    assert solve_complementarity(np.zeros((0, 0)), np.zeros((0, 0, 0, 0))).x.shape == (0, 0)


def test_a_kernel_of_b_that_nothing_drives_does_no_harm() -> None:
    """T_11 alone is not 0, as in a loss with one direction that oscillates."""
    b = np.zeros((2, 2, 2, 2))
    b[0, 0, 0, 0] = 2.0
    found = solve_complementarity(np.diag([-1.0, 1.0]), b)
    np.testing.assert_allclose(found.x, np.diag([0.5, 0.0]), atol=1e-12)
    assert found.kkt <= TOLERANCE


@pytest.mark.parametrize("k", [1, 2, 4])
def test_an_oscillation_without_bound_is_refused(k: int) -> None:
    _, b = problem(1, k)
    for none in (np.zeros_like(b), _without_last(b)):
        with pytest.raises(OscillationError, match="no bound"):
            solve_complementarity(-np.eye(k), none)


def _without_last(b: np.ndarray) -> np.ndarray:
    """T_ij = 0 where i or j is the last."""
    cut = b.copy()
    for axis in range(4):
        cut.swapaxes(0, axis)[-1] = 0
    return cut


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (np.full((2, 2), np.nan), np.ones((2,) * 4), "A .* not finite"),
        (-np.eye(2), np.full((2,) * 4, np.inf), "B .* not finite"),
        (np.array([[0.0, 1.0], [0.0, 0.0]]), np.ones((2,) * 4), "A .* symmetric"),
        (-np.eye(2), np.arange(16.0).reshape((2,) * 4), "B .* symmetric"),
        (-np.eye(2), -np.ones((2,) * 4), "positive semidefinite"),
        (-np.eye(1), -np.ones((1,) * 4), "positive semidefinite"),
        (-np.eye(2), np.ones((3,) * 4), r"\(2, 2\), \(3, 3, 3, 3\)"),
    ],
)
def test_what_is_no_such_problem_is_named(a: np.ndarray, b: np.ndarray, words: str) -> None:
    with pytest.raises(OscillationError, match=words):
        solve_complementarity(a, b)


@pytest.mark.parametrize("off", [1e-11, 1e-10, 1e-9])
def test_directions_that_are_alike_but_for_rounding_share_what_bounds_them(off: float) -> None:
    """⟨X, BX⟩ = (tr X)²: tr X alone is known, and A = −1 needs 1 of it; only a direction without B has no bound."""
    b = np.einsum("ij,kl->ijkl", np.eye(3), np.eye(3))
    for seed in range(4):
        noise = np.random.default_rng(seed).standard_normal((3, 3))
        found = solve_complementarity(-np.eye(3) + off * (noise + noise.T), b)
        assert np.trace(found.x) == pytest.approx(1.0, abs=1e2 * off)
        assert np.linalg.eigvalsh(found.x)[0] > -1e-12
        assert found.kkt < 1e-8
