"""Optimisers as pure maps of their whole state: torch.optim step for step, and what is said of their stability."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nm_ode import SGD, Adam, AdamW, ArgumentError, RMSprop, ScalarRMSprop
from nm_ode.optimizers import SERIES_LIMIT, Optimizer, TorchScalarRMSprop, describe

probabilities = st.one_of(st.just(0.0), st.floats(0.01, 0.99))


decays = st.one_of(st.just(0.0), st.floats(1e-5, 0.5))


@st.composite
def sgds(draw: st.DrawFn) -> SGD:
    momentum = draw(probabilities)
    nesterov = momentum > 0 and draw(st.booleans())
    return SGD(
        lr=draw(st.floats(1e-4, 1.0)),
        momentum=momentum,
        dampening=0.0 if nesterov else draw(probabilities),
        weight_decay=draw(decays),
        nesterov=nesterov,
    )


@st.composite
def adams(draw: st.DrawFn) -> Adam:
    return draw(st.sampled_from([Adam, AdamW]))(
        lr=draw(st.floats(1e-4, 1.0)),
        # Without a memory of squares a step is m/|d|, which magnifies rounding by as much as d cancels: see below.
        betas=(draw(probabilities), draw(st.floats(0.5, 0.9999))),
        eps=draw(st.sampled_from([1e-8, 1e-3])),
        weight_decay=draw(decays),
    )


@st.composite
def rmsprops(draw: st.DrawFn) -> RMSprop | ScalarRMSprop:
    options = {
        "lr": draw(st.floats(1e-4, 1.0)),
        "alpha": draw(st.floats(0.5, 0.9999)),
        "eps": draw(st.sampled_from([1e-8, 1e-3])),
        "weight_decay": draw(decays),
    }
    if draw(st.booleans()):
        return ScalarRMSprop(**options)
    return RMSprop(**options, momentum=draw(probabilities), centered=draw(st.booleans()))


optimizers = st.one_of(sgds(), adams(), rmsprops())


def gradients(seed: int, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, 7, dtype=torch.float64, generator=generator))


@given(optimizer=optimizers, seed=st.integers(0, 1000))
@settings(max_examples=300, deadline=None)
def test_every_step_equals_torch(optimizer: Optimizer, seed: int) -> None:
    steps_equal_torchs(optimizer, seed, 1e-11)


@pytest.mark.parametrize("betas", [(0.0, 0.0), (0.9, 0.0), (0.0, 0.999)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_without_one_memory_or_both(betas, weight_decay: float) -> None:
    for seed in range(20):
        steps_equal_torchs(Adam(lr=0.01, betas=betas, weight_decay=weight_decay), seed, 1e-9)


def steps_equal_torchs(optimizer: Optimizer, seed: int, tolerance: float) -> None:
    start, *some = gradients(seed, 8)
    theirs = start.clone().requires_grad_()
    torch_optimizer = optimizer.torch_optimizer([theirs])
    state = optimizer.init(start, some[0])
    for gradient in some:
        theirs.grad = gradient.clone()
        torch_optimizer.step()
        state = state + optimizer.increment(state, gradient)
        whole = optimizer.from_torch(torch_optimizer, theirs)
        assert (state - whole).norm() <= tolerance * whole.norm()
        assert (state[:7] - whole[:7]).norm() <= tolerance * whole[:7].norm()


@given(optimizer=optimizers, seed=st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_torch_goes_on_from_a_state(optimizer: Optimizer, seed: int) -> None:
    """Three steps, the state put into a new torch optimiser, three more: as six in one."""
    start, *some = gradients(seed, 7)

    def go(parameter: torch.Tensor, torch_optimizer: torch.optim.Optimizer, few: list[torch.Tensor]) -> None:
        for gradient in few:
            parameter.grad = gradient.clone()
            torch_optimizer.step()

    straight = start.clone().requires_grad_()
    go(straight, optimizer.torch_optimizer([straight]), some)
    first = start.clone().requires_grad_()
    before = optimizer.torch_optimizer([first])
    go(first, before, some[:3])
    state = optimizer.from_torch(before, first)
    second = state[:7].clone().requires_grad_()
    after = optimizer.torch_optimizer([second])
    optimizer.to_torch(after, second, state)
    go(second, after, some[3:])
    torch.testing.assert_close(second, straight, rtol=1e-13, atol=1e-14)


@given(optimizer=optimizers)
@settings(max_examples=50, deadline=None)
def test_the_map_is_pure(optimizer: Optimizer) -> None:
    gradient = torch.full((3,), 3.0, dtype=torch.float64)
    state = torch.full((optimizer.state_layout(3).size,), 1.5, dtype=torch.float64)
    increment = optimizer.increment(state, gradient)
    assert (state == 1.5).all()
    assert (gradient == 3).all()
    again = optimizer.increment(state, gradient)  # centred, a mean above the root of the square has no root
    torch.testing.assert_close(again, increment, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_one_second_moment_of_many_parameters(weight_decay: float) -> None:
    """Of all that have a gradient, a number and a matrix among them: as of one vector."""
    start, *some = gradients(2, 6)
    several = [start[:4].reshape(2, 2).clone(), start[4].clone(), start[5:].clone()]
    theirs = TorchScalarRMSprop([p.requires_grad_() for p in several], lr=0.1, weight_decay=weight_decay)
    optimizer = ScalarRMSprop(lr=0.1, weight_decay=weight_decay)
    state = optimizer.init(start, some[0])
    for gradient in some:
        for parameter, part in zip(several, gradient.split([4, 1, 2]), strict=True):
            parameter.grad = part.reshape(parameter.shape).clone()
        theirs.step()
        state = state + optimizer.increment(state, gradient)
    together = torch.cat([parameter.detach().reshape(-1) for parameter in several])
    torch.testing.assert_close(together, state[:7], rtol=1e-13, atol=1e-14)
    with pytest.raises(ArgumentError, match="alpha must lie in"):
        TorchScalarRMSprop(several, alpha=1.0)


def test_rmsprops_limit_is_where_its_steps_on_a_quadratic_begin_to_grow() -> None:
    """A constant second moment, with weight decay in the curvature that it is applied to."""
    for kind in (RMSprop(1e-3, 1 - 1e-12, 0.0, 0.2), RMSprop(1e-3, 1 - 1e-12, 0.0, 0.2, 0.5)):
        for share, grows in ((0.98, False), (1.02, True)):
            state = torch.zeros(kind.state_layout(1).size, dtype=torch.float64)
            state[:2] = torch.tensor([1e-20, 4e-6])
            root = kind.preconditioner(state, torch.zeros(1))
            curvature = share * kind.stability.limit / kind.stability.step * root - 0.2
            for _ in range(200):
                state = state + kind.increment(state, curvature * state[:1])
            assert (state[0].abs() > 1e-20) == grows


def test_the_layout_of_a_state() -> None:
    assert SGD(lr=0.1).state_layout(5).parts == (("theta", 5),)
    assert SGD(lr=0.1, momentum=0.9).state_layout(5).parts == (("theta", 5), ("velocity", 5))
    layout = Adam(lr=0.1).state_layout(5)
    assert layout.names == ("theta", "exp_avg", "exp_avg_sq", "step")
    assert [len(part) for part in layout.split(torch.arange(16.0))] == [5, 5, 5, 1]
    assert RMSprop(lr=0.1).state_layout(5).names == ("theta", "square_avg")
    every = RMSprop(lr=0.1, momentum=0.9, centered=True).state_layout(5)
    assert every.parts == tuple((name, 5) for name in ("theta", "square_avg", "grad_avg", "velocity"))
    assert ScalarRMSprop(lr=0.1).state_layout(5).parts == (("theta", 5), ("square_avg", 1))
    with pytest.raises(
        ValueError, match=r"shape \(10,\); it must have \(16,\): theta \(5\) \+ exp_avg \(5\)"
    ):
        layout.split(torch.zeros(10))


LINEAR = [
    SGD(lr=0.1),
    SGD(lr=0.1, momentum=0.9),
    SGD(lr=0.1, momentum=0.5, dampening=0.3),
    SGD(lr=0.1, momentum=0.9, nesterov=True),
]


def mode(optimizer: SGD, curvature: float) -> np.ndarray:
    """The update's matrix on L = curvature θ²/2."""
    size = optimizer.state_layout(1).size
    columns = [
        unit + optimizer.increment(unit, curvature * unit[:1])
        for unit in torch.eye(size, dtype=torch.float64)
    ]
    return torch.stack(columns, dim=1).numpy()


@pytest.mark.parametrize("optimizer", LINEAR, ids=str)
def test_the_stability_limit_is_where_an_eigenvalue_leaves_the_unit_circle(optimizer: SGD) -> None:
    def largest(x: float) -> float:
        return np.abs(np.linalg.eigvals(mode(optimizer, x / optimizer.stability.step))).max()

    limit = optimizer.stability.limit
    assert all(largest(x) < 1 for x in np.linspace(0.05, limit - 1e-6, 50))
    assert largest(limit + 1e-6) > 1


@pytest.mark.parametrize("optimizer", LINEAR, ids=str)
def test_the_series_of_the_logarithm_converges_below_its_limit(optimizer: SGD) -> None:
    def largest(x: float) -> float:
        return np.abs(np.linalg.eigvals(mode(optimizer, x / optimizer.stability.step)) - 1).max()

    assert all(largest(x) < 1 for x in np.linspace(1e-3, SERIES_LIMIT - 1e-6, 50))
    assert largest(SERIES_LIMIT + 1e-6) > 1


def test_adam_on_a_fixed_preconditioner_is_heavy_ball_with_dampening() -> None:
    """Its stability limit, on the whole nonlinear map: at the minimum of a quadratic with a constant second moment."""
    optimizer = Adam(lr=1e-3, betas=(0.9, 1 - 1e-12), eps=0.0)
    square, late = 1e-12 * 5e7, 5e7
    for x, grows in ((optimizer.stability.limit * 0.98, False), (optimizer.stability.limit * 1.02, True)):
        state = torch.tensor([1e-20, 0.0, square, late], dtype=torch.float64)
        curvature = x / optimizer.stability.step * optimizer.preconditioner(state, torch.zeros(1))
        for _ in range(100):
            state = state + optimizer.increment(state, curvature * state[:1])
        assert (state[0].abs() > 1e-20) == grows


def test_flow_time_of_a_step() -> None:
    assert SGD(lr=0.2).time_per_step == 0.2
    assert SGD(lr=0.2, momentum=0.9, dampening=0.5).time_per_step == 0.1
    assert SGD(lr=0.2, dampening=0.5).time_per_step == 0.2  # torch ignores dampening without momentum


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lr": -0.1}, "lr must be a positive number; -0.1"),
        ({"lr": 0.0}, "lr must be a positive number"),
        ({"lr": float("nan")}, "lr must be a positive number"),
        ({"lr": 0.1, "momentum": 1.0}, r"momentum must lie in \[0, 1\)"),
        ({"lr": 0.1, "dampening": -1.0}, r"dampening must lie in \[0, 1\)"),
        ({"lr": 0.1, "weight_decay": -1.0}, "weight_decay must be 0 or positive"),
        ({"lr": 0.1, "nesterov": True}, "nesterov needs momentum > 0"),
        ({"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "nesterov": True}, "dampening = 0.1 were given"),
    ],
)
def test_values_out_of_range_are_named(options, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SGD(**options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lr": 0.0}, "lr must be a positive number"),
        ({"lr": 0.1, "betas": (0.9, 1.0)}, r"betas\[1\] must lie in \[0, 1\); 1.0 was given"),
        ({"lr": 0.1, "eps": -1e-8}, "eps must be 0 or positive"),
        ({"lr": 0.1, "weight_decay": -1.0}, "weight_decay must be 0 or positive"),
    ],
)
def test_adams_values_out_of_range_are_named(options, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Adam(**options)


def test_what_a_reader_is_told() -> None:
    assert describe(SGD(lr=0.1)) == "SGD, lr = 0.1"
    assert (
        describe(SGD(lr=0.1, momentum=0.9, nesterov=True)) == "SGD, lr = 0.1, momentum = 0.9, nesterov = on"
    )
    assert describe(Adam(lr=1e-3, betas=(0.8, 0.99))) == "Adam, lr = 0.001, betas = (0.8, 0.99)"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: SGD(lr="0.1"), "lr must be a number; '0.1'"),
        (lambda: Adam(lr=0.1, betas=(0.9,)), "betas must be 2 numbers"),
        (lambda: RMSprop(lr=0.1, alpha=1.0), r"alpha must lie in \[0, 1\)"),
        (lambda: RMSprop(lr=0.1, centered="no"), "centered"),
        (lambda: ScalarRMSprop(lr=0.1, eps=-1.0), "eps must be 0 or positive"),
    ],
)
def test_values_of_another_type_are_named(make, sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        make()
