"""Products with a Jacobian by differences: right for directions of any size, cheap, and refused where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.differences import DifferenceProduct
from bridges.problem import SolveStopped

seeds = st.integers(0, 10_000)


def curved(seed: int, n: int):
    """A smooth field that is not linear, and its Jacobian."""
    generator = np.random.default_rng(seed)
    a, b = generator.standard_normal((2, n, n))

    def rhs(t: float, y: np.ndarray, dy: np.ndarray) -> None:
        dy[:] = a @ np.tanh(y) + t * b @ y

    def jacobian(t: float, y: np.ndarray) -> np.ndarray:
        return a * (1 - np.tanh(y) ** 2) + t * b

    return rhs, jacobian, generator


@given(
    seed=seeds,
    n=st.integers(1, 8),
    exponent=st.integers(-300, 300),
    size=st.sampled_from([0.0, 1e-6, 1.0, 1e3]),
)
def test_the_product_is_as_good_for_directions_of_any_size(
    seed: int, n: int, exponent: int, size: float
) -> None:
    rhs, jacobian, generator = curved(seed, n)
    y, v = size * generator.standard_normal(n), generator.standard_normal(n)
    out = np.empty(n)
    DifferenceProduct(rhs)(0.7, y, v * 10.0**exponent, out)
    scale = np.linalg.norm(jacobian(0.7, y), 2) * np.linalg.norm(v)
    step = 1.5e-8 * max(1.0, np.linalg.norm(y))
    np.testing.assert_allclose(
        out / 10.0**exponent, jacobian(0.7, y) @ v, rtol=0, atol=scale * (1e-6 + 10 * step * n)
    )


def test_no_direction_has_no_product() -> None:
    out = np.ones(2)
    DifferenceProduct(curved(0, 2)[0])(0.0, np.ones(2), np.zeros(2), out)
    np.testing.assert_array_equal(out, 0)


def test_a_product_takes_one_right_hand_side_while_it_stays_at_one_place() -> None:
    rhs, _, generator = curved(3, 4)
    places: list[tuple[float, float]] = []

    def counted(t, y, dy):
        places.append((t, y[0]))
        rhs(t, y, dy)

    product, out = DifferenceProduct(counted), np.empty(4)
    y = generator.standard_normal(4)
    product(0.0, y, generator.standard_normal(4), out)  # the first asks whether the field is smooth
    for t, place, taken in ((0.0, y, 1), (0.0, y.copy(), 1), (0.1, y, 2), (0.1, y + 1, 2), (0.1, y + 1, 1)):
        before = len(places)
        product(t, place, generator.standard_normal(4), out)
        assert len(places) - before == taken


def test_the_place_is_kept_by_value() -> None:
    """Solvers write the next state into the same array."""
    rhs, jacobian, generator = curved(4, 3)
    product, out, y, v = DifferenceProduct(rhs), np.empty(3), np.zeros(3), generator.standard_normal(3)
    for _ in range(5):
        y[:] = generator.standard_normal(3)
        product(0.0, y, v, out)
        np.testing.assert_allclose(out, jacobian(0.0, y) @ v, atol=1e-5)


@given(seed=seeds)
def test_a_field_in_single_precision_takes_a_step_for_it(seed: int) -> None:
    rhs, jacobian, generator = curved(seed, 4)
    y, v = generator.standard_normal(4), generator.standard_normal(4)

    def single(t, y, dy):
        rhs(t, y.astype(np.float32), dy)
        dy[:] = dy.astype(np.float32)

    exact, out = jacobian(0.7, y) @ v, np.empty(4)
    size = np.linalg.norm(jacobian(0.7, y), 2) * np.linalg.norm(v)
    DifferenceProduct(single, noise=float(np.finfo(np.float32).eps))(0.7, y, v, out)
    assert np.linalg.norm(out - exact) < 2e-2 * size


@given(seed=seeds, size=st.sampled_from([1e-3, 1.0, 1e9]))
def test_noise_has_no_product(seed: int, size: float) -> None:
    generator = np.random.default_rng(seed)

    def noise(t, y, dy):
        dy[:] = size * generator.standard_normal(y.size)

    product, out = DifferenceProduct(noise), np.empty(5)
    with pytest.raises(SolveStopped, match="not smooth") as caught:
        product(0.0, np.ones(5), generator.standard_normal(5), out)
    assert caught.value.status == "step_failure"


@given(seed=seeds, ratio=st.sampled_from([1e3, 1e8, 1e12]))
def test_a_slow_direction_of_a_stiff_field_is_no_noise(seed: int, ratio: float) -> None:
    generator = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(generator.standard_normal((3, 3)))
    matrix = turn @ np.diag([ratio, 1.0, 1.0]) @ turn.T

    def rhs(t, y, dy):
        dy[:] = -matrix @ y

    product, out = DifferenceProduct(rhs), np.empty(3)
    for _ in range(4):
        product(0.0, turn @ np.array([0.0, 1.0, 0.5]), turn[:, 1], out)


def test_what_the_field_raises_leaves_nothing_behind() -> None:
    rhs, jacobian, _ = curved(5, 2)
    fails = True

    def sometimes(t, y, dy):
        if fails:
            dy[:] = 1e300
            raise ZeroDivisionError
        rhs(t, y, dy)

    product, out, y, v = DifferenceProduct(sometimes), np.empty(2), np.ones(2), np.array([1.0, 2.0])
    with pytest.raises(ZeroDivisionError):
        product(0.0, y, v, out)
    fails = False
    product(0.0, y, v, out)
    np.testing.assert_allclose(out, jacobian(0.0, y) @ v, atol=1e-5)


@given(seed=seeds, small=st.sampled_from([1e-6, 1e-12]))
def test_entries_of_other_sizes_take_steps_for_them(seed: int, small: float) -> None:
    """A second moment of 1e-12, moved as far as a parameter, would be below zero: by that this field had no product."""
    generator = np.random.default_rng(seed)
    y = np.concatenate([generator.standard_normal(3), small * generator.uniform(0.5, 2.0, 3)])
    scales = np.repeat([1.0, small], 3)

    def rhs(t: float, y: np.ndarray, dy: np.ndarray) -> None:
        dy[:3], dy[3:] = -y[:3] / np.sqrt(y[3:] / small), small * y[:3] ** 2 - y[3:]

    v, out = generator.standard_normal(6) * scales, np.empty(6)
    root = np.sqrt(y[3:] / small)
    exact = [
        -v[:3] / root + y[:3] * v[3:] / (2 * small * root**3),
        2 * small * y[:3] * v[:3] - v[3:],
    ]
    DifferenceProduct(rhs, scales=scales)(0.0, y, v, out)
    np.testing.assert_allclose(out / scales, np.concatenate(exact) / scales, rtol=0, atol=1e-5)


@pytest.mark.parametrize("y", [(1.0, 0.0, 0.0), (1.0, 1e-9, 1e-9), (0.99, 3.6e-5, 0.01)])
def test_a_field_that_curves_much_is_no_noise(y: tuple[float, ...]) -> None:
    """Robertson's reaction: at its start the quotients are mostly second order."""

    def rhs(t: float, y: np.ndarray, dy: np.ndarray) -> None:
        slow, fast, last = 0.04 * y[0], 3e7 * y[1] ** 2, 1e4 * y[1] * y[2]
        dy[:] = last - slow, slow - last - fast, fast

    v, out = np.array([0.0, 0.0, 1.0]), np.empty(3)
    DifferenceProduct(rhs)(0.0, np.array(y), v, out)
    np.testing.assert_allclose(out, [1e4 * y[1], -1e4 * y[1], 0], atol=1e-4)


def test_a_saddle_of_third_order_is_no_noise() -> None:
    out = np.ones(3)
    DifferenceProduct(lambda t, y, dy: np.power(y, 3, out=dy))(0.0, np.zeros(3), np.ones(3), out)
    np.testing.assert_allclose(out, 0, atol=1e-12)


def test_at_a_jump_there_is_no_product() -> None:
    def rhs(t: float, y: np.ndarray, dy: np.ndarray) -> None:
        dy[:] = np.sign(y) - y

    with pytest.raises(SolveStopped, match="not smooth"):
        DifferenceProduct(rhs)(0.0, np.zeros(3), np.ones(3), np.empty(3))
