"""Constraints of gradient and Hessian along a run: against dense autodiff, and where a symmetry is broken."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

import nm_ode
from nm_ode.models import mlp
from nm_ode.symmetries import ChargeMeter, Symmetry
from tests.oracles.dense import dense_gradient, dense_hessian, dense_loss
from tests.oracles.networks import OnceRelu

FLOORS = 20.0  # within so many times of its floor a residual is zero for all that can be known


def data(outputs: int, seed: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(24, 3, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, outputs, (24,), generator=generator)


def problem_of(
    activation: str, dtype: torch.dtype = torch.float64, norm: str | None = None
) -> nm_ode.Problem:
    """3-5-4 with cross-entropy: translation of the logits, rescale with ReLU, scale with a normalisation."""
    options = {} if norm is None else {"norm": norm}
    model = mlp([3, 5, 4], activation, seed=2, **options)
    return nm_ode.Problem(model, nn.functional.cross_entropy, data(4), dtype=dtype)


def watched(problem: nm_ode.Problem, symmetries: Sequence[Symmetry], **options) -> xr.Dataset:
    observer = nm_ode.Constraints(symmetries, **{"every": 4, **options})
    return nm_ode.train(problem, nm_ode.SGD(lr=0.3), 9, save_every=4, observe=[observer])


def on_a_batch(symmetries: Sequence[Symmetry], every: int, **options) -> nm_ode.Constraints:
    return nm_ode.Constraints(
        symmetries, every, batch=data(4), loss_fn=nn.functional.cross_entropy, **options
    )


def looped(model: nn.Module, observer: nm_ode.Constraints, *, lr: float, steps: int) -> xr.Dataset:
    """In a loop of one's own, in the model's dtype."""
    x, y = data(4)
    x = x.to(next(model.parameters()).dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    with nm_ode.Recorder(model, optimizer, observe=[observer]) as recorder:
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return recorder.run


def generators(symmetry: Symmetry, layout, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
    """ξ of each charge and its Jacobian ∂ξ/∂θ, dense: one for a translation, weights on a diagonal for the others."""
    found = []
    for charge in range(symmetry.count):
        move = torch.zeros(layout.size, dtype=torch.float64)
        for part in symmetry.parts:
            slot = layout[part.parameter]
            shape = [n if dim in part.axes else 1 for dim, n in enumerate(part.view.shape)]
            mine = (part.index == charge).reshape(shape).expand(part.view.shape)
            part.view.of(move, slot.start).add_(mine * part.weight)
        still = symmetry.kind == "translation"
        found.append((move if still else move * theta, torch.zeros_like(move) if still else move))
    return [(along, torch.diag(factors)) for along, factors in found]


@pytest.fixture(scope="module")
def relu() -> nm_ode.Problem:
    return problem_of("relu")


@pytest.fixture(scope="module")
def found(relu) -> nm_ode.Symmetries:
    return nm_ode.symmetries_of(relu)


@pytest.fixture(scope="module")
def run(relu, found) -> xr.Dataset:
    return watched(relu, found, products=6)


@pytest.fixture(scope="module")
def broken(found) -> tuple[nm_ode.Problem, xr.Dataset]:
    """The ReLU network's symmetries in one with tanh of the same shape: its rescale is none."""
    tanh = problem_of("tanh")
    return tanh, watched(tanh, found, products=6)


def test_what_is_recorded_says_what_it_is(run, found) -> None:
    assert run.gradient_constraint.dims == ("constraint_step", "constraint_symmetry")
    assert run.constraint_step.values.tolist() == [0, 4, 8]
    np.testing.assert_allclose(run.constraint_time, [0.0, 1.2, 2.4])
    assert run.constraint_symmetry.values.tolist() == [one.name for one in found]
    assert run.constraint_kind.values.tolist() == ["translation", "rescale"]
    assert set(run.constraint_reason.values) == {""}
    for name in ("gradient_constraint", "curvature_constraint_floor", "constraint_products"):
        assert run[name].attrs["long_name"]
        assert run[name].attrs["units"] == "1"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("hidden", [nn.ReLU(), nn.Identity()], ids=["rescale", "matrix"])
def test_symmetries_that_hold_are_within_roundings_floor(hidden: nn.Module, dtype: torch.dtype) -> None:
    first, _, second = mlp([3, 5, 4], "relu", seed=2)
    model = nn.Sequential(first, hidden, second)
    problem = nm_ode.Problem(model, nn.functional.cross_entropy, data(4), dtype=dtype)
    run = watched(problem, nm_ode.symmetries_of(problem), every=2)
    assert ("matrix" in run.constraint_kind.values) == isinstance(hidden, nn.Identity)
    for name in ("gradient_constraint", "curvature_constraint"):
        floor = run[f"{name}_floor"]
        assert bool((floor >= torch.finfo(dtype).eps).all())
        assert float(floor.max()) < 1e8 * torch.finfo(dtype).eps
        assert bool((run[name] <= FLOORS * floor).all())


def test_a_broken_symmetry_shows_at_once(broken) -> None:
    _, run = broken
    rescale = run.sel(constraint_symmetry=run.constraint_kind == "rescale")
    for name in ("gradient_constraint", "curvature_constraint"):
        assert float((rescale[name] / rescale[f"{name}_floor"]).min()) > 1e6
        assert float(rescale[name].min()) > 1e-3
    # What is not broken there is still told from what is.
    translation = run.sel(constraint_symmetry=run.constraint_kind == "translation")
    assert bool((translation.gradient_constraint <= FLOORS * translation.gradient_constraint_floor).all())


def test_residuals_are_those_of_dense_autodiff(broken, found) -> None:
    """A broken symmetry has residuals that can be compared; all its generators, the largest."""
    problem, run = broken
    loss = dense_loss(problem.model, problem.loss_fn, problem.x, problem.y)
    for at, step in enumerate(run.constraint_step.values):
        theta = torch.from_numpy(run.theta.sel(saved_step=step).values.copy())
        gradient, hessian = dense_gradient(loss, theta), dense_hessian(loss, theta)
        for i, symmetry in enumerate(found):
            layers = {problem.layout[name].layer for name in symmetry.parameters}
            own = torch.cat([gradient[s.slice] for s in problem.layout.slots if s.layer in layers]).norm()
            firsts, seconds = [], []
            for along, jacobian in generators(symmetry, problem.layout, theta):
                firsts.append(float(abs(gradient @ along) / (own * along.norm())))
                product, expected = hessian @ along, jacobian.T @ gradient
                size = (hessian @ gradient / gradient.norm()).norm()
                scale = max(float(product.norm() + expected.norm()), 1e-3 * float(size * along.norm()))
                seconds.append(float((product + expected).norm()) / scale)
            here = run.isel(constraint_step=at, constraint_symmetry=i)
            assert float(here.gradient_constraint) == pytest.approx(max(firsts), rel=1e-9, abs=1e-14)
            if symmetry.kind == "rescale":
                assert float(here.curvature_constraint) == pytest.approx(max(seconds), rel=1e-9)


def test_generators_that_mix_entries_are_those_of_their_charges() -> None:
    """ξ is half the gradient of a quadratic charge, ∂ξ half its Hessian: by polarisation, for GL(n) between layers."""
    first, tanh, second = mlp([2, 3, 2], "tanh", seed=2)
    x, y = data(2)
    linear, broken = (
        nm_ode.Problem(nn.Sequential(first, hidden, second), nn.functional.cross_entropy, (x[:, :2], y))
        for hidden in (nn.Identity(), tanh)
    )
    (matrix,) = (one for one in nm_ode.symmetries_of(linear) if one.kind == "matrix")
    run = watched(broken, [matrix], products=matrix.count).isel(constraint_step=0)
    theta, meter = broken.theta0, ChargeMeter(broken.layout, [matrix])
    eye = torch.eye(len(theta), dtype=torch.float64)
    pairs = torch.stack([torch.stack([meter.charge(a + b) for a in eye]) for b in eye])
    alone = torch.stack([meter.charge(a) for a in eye])
    loss = dense_loss(broken.model, broken.loss_fn, broken.x, broken.y)
    gradient, hessian = dense_gradient(loss, theta), dense_hessian(loss, theta)
    size = (hessian @ gradient / gradient.norm()).norm()
    firsts, seconds = [], []
    for jacobian in ((pairs - alone - alone[:, None]) / 2).unbind(-1):
        along = jacobian @ theta
        product, expected = hessian @ along, jacobian.T @ gradient
        firsts.append(float(abs(gradient @ along) / (gradient.norm() * along.norm())))
        scale = max(product.norm() + expected.norm(), 1e-3 * size * along.norm())
        seconds.append(float((product + expected).norm() / scale))
    assert float(run.gradient_constraint[0]) == pytest.approx(max(firsts), rel=1e-9)
    assert float(run.curvature_constraint[0]) == pytest.approx(max(seconds), rel=1e-9)
    assert min(max(firsts), max(seconds)) > 1e-3


@pytest.mark.parametrize(
    ("own", "dtype", "inside"),
    [
        (torch.float32, torch.float64, None),
        (torch.float64, torch.float32, None),
        (torch.float32, None, torch.bfloat16),
    ],
    ids=["finer", "coarser", "coarser inside"],
)
@pytest.mark.parametrize("loop", [False, True], ids=["train", "loop"])
def test_the_floor_is_of_the_dtype_that_is_computed_in(
    found, loop: bool, own: torch.dtype, dtype: torch.dtype | None, inside: torch.dtype | None
) -> None:
    x, y = data(4)

    def objective(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=inside is not None):
            return nn.functional.cross_entropy(model(batch[0]), batch[1])

    observer = nm_ode.Constraints(
        found, 1, objective=objective, batch=(x.to(own), y), dtype=dtype, products=6
    )
    if loop:
        run = looped(mlp([3, 5, 4], "relu", seed=2).to(own), observer, lr=0.3, steps=2)
    else:
        run = nm_ode.train(problem_of("relu", own), nm_ode.SGD(lr=0.3), 2, observe=[observer])
    eps = torch.finfo(inside or dtype).eps
    for name in ("gradient_constraint", "curvature_constraint"):
        assert bool((run[name] <= FLOORS * run[f"{name}_floor"]).all())
        assert eps <= float(run[f"{name}_floor"].min()) <= float(run[f"{name}_floor"].max()) < 1e4 * eps
    # Rounded in the dtype that was asked for: not finer, not coarser.
    assert 1e-2 * eps < float(run.curvature_constraint.max()) < 1e4 * eps


def test_a_random_combination_stands_for_many_generators(broken, found) -> None:
    """It is no more than all, shows what is broken, and is another at each step and seed."""
    problem, each = broken
    rescale = [one for one in found if one.kind == "rescale"]
    runs = [watched(problem, rescale, seed=seed) for seed in (0, 0, 1)]
    assert [str(one.constraint_by.values[0]) for one in runs] == [
        "a random combination of its generators"
    ] * 3
    assert set(each.constraint_by.values) == {"each generator"}
    first, again, other = (one.curvature_constraint.values[:, 0] for one in runs)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert bool((runs[0].curvature_constraint > 1e6 * runs[0].curvature_constraint_floor).all())
    # At both thetas: the combination, and H's size in the gradient's direction.
    assert runs[0].constraint_products.values.tolist() == [4.0] * 3
    assert each.constraint_products.values.tolist() == [2 * (1 + 6 + 5.0)] * 3


def test_epsilon_breaks_a_scale_by_a_little(relu) -> None:
    problem = problem_of("tanh", norm="batch")
    found = nm_ode.symmetries_of(problem)
    scale = watched(problem, [one for one in found if one.kind == "scale"])
    assert float(scale.constraint_epsilon[0]) == 1e-5
    ratio = scale.gradient_constraint / scale.gradient_constraint_floor
    assert float(ratio.min()) > 1e3
    assert float(scale.gradient_constraint.max()) < 0.05


def test_without_a_hessian_the_gradients_constraint_is_there_and_the_reason(relu) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp([3, 5, 4], "relu", seed=2)

        def forward(self, x):
            first, _, second = self.inner
            return second(OnceRelu.apply(first(x)))

    plain = nm_ode.symmetries_of(relu)
    problem = nm_ode.Problem(Net(), nn.functional.cross_entropy, data(4))
    translation = [one for one in nm_ode.symmetries_of(problem) if one.kind == "translation"]
    assert len(translation) == sum(one.kind == "translation" for one in plain) == 1
    run = watched(problem, translation)
    assert bool(run.curvature_constraint.isnull().all())
    assert bool(run.curvature_constraint_floor.isnull().all())
    assert "second derivative" in str(run.constraint_reason.values[0])
    assert bool((run.gradient_constraint <= FLOORS * run.gradient_constraint_floor).all())
    assert run.constraint_products.values.tolist() == [0.0] * 3
    # Also on a batch of one's own, in a loop of one's own.
    own = looped(Net(), on_a_batch(translation, 2), lr=0.1, steps=3)
    assert "second derivative" in str(own.constraint_reason.values[0])
    assert bool(own.curvature_constraint.isnull().all())
    ratio = own.gradient_constraint / own.gradient_constraint_floor
    assert bool((ratio <= FLOORS).all())


def test_a_loop_of_ones_own_has_the_numbers_of_train(broken, found) -> None:
    _problem, run = broken
    own = looped(mlp([3, 5, 4], "tanh", seed=2), on_a_batch(found, 4, products=6), lr=0.3, steps=9)
    for name in ("gradient_constraint", "curvature_constraint"):
        np.testing.assert_allclose(own[name], run[name], rtol=1e-9, atol=1e-11)


def test_the_hessians_may_be_left_out_and_samples_be_few(relu, found) -> None:
    run = watched(relu, found, hessian=False, samples=6)
    assert "curvature_constraint" not in run
    assert "constraint_reason" not in run.coords
    assert bool((run.gradient_constraint <= FLOORS * run.gradient_constraint_floor).all())


def test_along_a_flow_each_sample_has_them(relu, found, run) -> None:
    observer = nm_ode.Constraints(found, hessian=False)
    flow = nm_ode.solve(nm_ode.GradientFlow(relu), run, rtol=1e-3, observe=[observer])
    assert flow.gradient_constraint.dims == ("time", "constraint_symmetry")
    assert bool((flow.gradient_constraint <= FLOORS * flow.gradient_constraint_floor).all())


def test_where_the_gradient_is_not_finite_all_are_nan(found) -> None:
    run = looped(mlp([3, 5, 4], "relu", seed=2), on_a_batch(found, 1), lr=1e200, steps=3)
    last = run.isel(constraint_step=-1)
    assert math.isnan(float(last.gradient_constraint[0]))
    assert math.isnan(float(last.curvature_constraint[0]))


def test_no_symmetries_at_all_observe_nothing(relu) -> None:
    assert not any("constraint" in str(name) for name in watched(relu, []).variables)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"symmetries": "rescale"}, "sequence of symmetries"),
        ({"symmetries": [1]}, "sequence of symmetries"),
        ({"every": 0}, "every"),
        ({"products": 0}, "products"),
        ({"hessian": 3}, "hessian"),
        ({"mode": "test"}, "mode"),
        ({"mode": "eval"}, "batch of one's own"),
        ({"batch": (torch.zeros(1, device="cpu"),), "samples": 3}, "samples"),
        ({"loss_fn": nn.functional.mse_loss}, "batch"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_mistakes_are_one_sentence(found, options: dict, said: str) -> None:
    with pytest.raises(nm_ode.ArgumentError, match=said):
        nm_ode.Constraints(**{"symmetries": found, **options})


def test_symmetries_of_another_model_are_refused(found) -> None:
    other = nm_ode.Problem(mlp([3, 6, 4], "relu"), nn.functional.cross_entropy, data(4))
    with pytest.raises(nm_ode.SymmetryError, match="no trainable parameter"):
        watched(other, found)
