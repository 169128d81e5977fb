"""The modified loss of recorded numbers against loss and gradient at the recorded parameters, and against its flow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

import nm_ode
from nm_ode.optimizers.schedules import Drop
from nm_ode.plots import as_tree, modified_loss
from nm_ode.reporting import PLOTS
from nm_ode.reporting.plots.modified_loss import modified_losses, penalty
from nm_ode.reporting.style import svg
from nm_ode.results import ResultError, run_info

OPTIMIZERS = [
    nm_ode.SGD(lr=0.1),
    nm_ode.SGD(lr=0.1, weight_decay=0.2),
    nm_ode.SGD(lr=0.05, momentum=0.6, weight_decay=0.1),
    nm_ode.SGD(lr=0.05, momentum=0.6, dampening=0.5),
    nm_ode.SGD(lr=0.05, momentum=0.6, nesterov=True),
]


def by_hand(
    problem: nm_ode.Problem, thetas: xr.DataArray, optimizer: nm_ode.SGD, lr: np.ndarray
) -> np.ndarray:
    """L + (λ/2)‖θ‖² and its gradient at each theta, with what the optimiser adds of ‖∇L‖²."""
    beta, decay = optimizer.momentum, optimizer.weight_decay
    a = lr * (1 - optimizer.dampening if beta else 1)
    c = (1 - beta + 2 * beta**2) / 2 if optimizer.nesterov else (1 + beta) / 2
    found = []
    for theta in torch.from_numpy(thetas.values.copy()):
        loss, gradient = problem.loss_and_grad(theta)
        gradient = gradient + decay * theta
        found.append((float(loss + decay / 2 * theta @ theta), float(gradient @ gradient)))
    losses, squares = np.array(found).T
    return losses + c * a / (2 * (1 - beta) ** 2) * squares


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_a_slow_manifold_is_the_gradient_flow_of_it(tiny: nm_ode.Problem, optimizer: nm_ode.SGD) -> None:
    """θ̇ = −s∇(L + p‖∇L‖²) = −s(g + 2pHg)."""
    theta = tiny.theta0
    g = tiny.grad(theta) + optimizer.weight_decay * theta
    h_g = tiny.hvp(theta, g) + optimizer.weight_decay * g
    numbers = {**vars(optimizer)}
    field = -(g + 2 * penalty(numbers, optimizer.lr) * h_g) / (1 - optimizer.momentum)
    torch.testing.assert_close(
        nm_ode.SlowManifoldFlow(tiny, optimizer).rhs(0.0, theta), field, rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_along_run_and_flow_it_is_what_their_parameters_give(tiny: nm_ode.Problem, optimizer) -> None:
    observe = [nm_ode.Statistics()]
    run = nm_ode.train(tiny, optimizer, 6, save_every=2, observe=observe)
    flow = nm_ode.solve(nm_ode.SlowManifoldFlow(tiny, optimizer), run, rtol=1e-4, observe=observe)
    paths, missing = modified_losses(as_tree(run, flow))
    assert missing == []
    discrete, along = paths
    # After the last step no gradient was taken.
    np.testing.assert_allclose(discrete.times, run.saved_time[:-1])
    expected = by_hand(tiny, run.theta[:-1], optimizer, np.full(3, optimizer.lr))
    np.testing.assert_allclose(discrete.modified, expected, rtol=1e-12)
    expected = by_hand(tiny, flow.theta, optimizer, np.full(4, optimizer.lr))
    np.testing.assert_allclose(along.modified, expected, rtol=1e-12)
    assert (along.added > 0).all()


def test_with_a_schedule_each_time_has_its_steps_learning_rate(tiny: nm_ode.Problem) -> None:
    optimizer = nm_ode.SGD(lr=0.1)
    run = nm_ode.train(tiny, optimizer, 6, save_every=2, schedule=Drop((3,), 0.5))
    flow = nm_ode.solve(nm_ode.GradientFlow(tiny), run, rtol=1e-4)
    discrete, along = modified_losses(as_tree(run, flow))[0]
    np.testing.assert_allclose(
        discrete.modified, by_hand(tiny, run.theta[:-1], optimizer, np.array([0.1, 0.1, 0.05])), rtol=1e-12
    )
    np.testing.assert_allclose(
        along.modified, by_hand(tiny, flow.theta, optimizer, np.array([0.1, 0.1, 0.05, 0.05])), rtol=1e-12
    )


def test_beside_minibatches_it_is_that_of_full_batch_flows_alone(tiny: nm_ode.Problem) -> None:
    run = nm_ode.train(tiny, nm_ode.SGD(lr=0.1), 6, batch_size=5, save_every=2)
    flow = nm_ode.solve(nm_ode.GradientFlow(tiny), run, rtol=1e-4)
    same = nm_ode.solve(nm_ode.MinibatchFlow.beside(nm_ode.GradientFlow(tiny), run), run)
    paths, missing = modified_losses(as_tree(run, flow, same))
    assert [path.title for path in paths] == [flow.attrs["title"]]
    assert len(missing) == 2
    assert "its batches" in missing[0]
    with pytest.raises(ResultError, match="its batches"):
        modified_loss(run)
    assert not PLOTS["modified_loss"].applies(as_tree(run))


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_of_a_sum_over_samples_it_is_that_of_a_batchs_part(tiny: nm_ode.Problem, decay: float) -> None:
    """The field is that of sL + (λ/2)‖θ‖²: it with (η/4)‖s∇L + λθ‖², over s."""
    optimizer, observe = nm_ode.SGD(lr=1e-3, weight_decay=decay), [nm_ode.Statistics()]

    def total(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (output - y).square().sum()

    problem = nm_ode.Problem(tiny.model, total, (tiny.x, tiny.y))
    run = nm_ode.train(problem, optimizer, 8, batch_size=5, save_every=4, observe=observe)
    flow = nm_ode.solve(nm_ode.modified_flow(problem, optimizer, 2), run, rtol=1e-4, observe=observe)
    (along,) = modified_losses(as_tree(run, flow))[0]
    part = problem.scaled(5 / 20)
    expected = by_hand(part, flow.theta, optimizer, np.full(3, 1e-3)) / (5 / 20)
    np.testing.assert_allclose(along.modified, expected, rtol=1e-12)


def test_what_was_not_recorded_is_said(tiny: nm_ode.Problem) -> None:
    run = nm_ode.train(tiny, nm_ode.SGD(lr=0.1, weight_decay=0.1), 4)
    with pytest.raises(ResultError, match="Statistics"):
        modified_loss(run)
    with pytest.raises(ResultError, match="SGD alone"):
        modified_loss(nm_ode.train(tiny, nm_ode.Adam(lr=0.01), 4))
    seldom = nm_ode.train(
        tiny, nm_ode.SGD(lr=0.1, weight_decay=0.1), 6, save_every=1, observe=[nm_ode.Statistics(every=3)]
    )
    (discrete,) = modified_losses(as_tree(seldom))[0]
    np.testing.assert_allclose(discrete.times, [0.0, 0.3])


def test_a_run_that_diverged_is_drawn_without_a_warning(tiny: nm_ode.Problem) -> None:
    with pytest.raises(nm_ode.TrainingDiverged) as told:
        nm_ode.train(tiny, nm_ode.SGD(lr=1e30), 40, save_every=1)
    PLOTS["modified_loss"].figure(as_tree(told.value.run))
    assert svg(PLOTS["loss"].figure(as_tree(told.value.run)))


def test_a_loop_of_ones_own_does_not_say_enough(tiny: nm_ode.Problem) -> None:
    model = nn.Linear(3, 2).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nm_ode.Recorder(model, optimizer) as recorder:
        for _ in range(2):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(tiny.x), tiny.y).backward()
            optimizer.step()
    with pytest.raises(ResultError, match="loop of one's own"):
        modified_loss(recorder.run)


def test_a_gradient_that_is_not_the_losss_has_none() -> None:
    class Reversed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return -grad

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 1).double()

        def forward(self, x):
            return Reversed.apply(self.linear(x))

    x = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    run = nm_ode.train(nm_ode.Problem(Net(), nn.functional.mse_loss, (x, x[:, :1])), nm_ode.SGD(lr=0.01), 3)
    assert run_info(run).foreign_gradient
    with pytest.raises(ResultError, match="∇L"):
        modified_loss(run)


def test_what_is_drawn_is_what_was_found(with_flows) -> None:
    figure = Figure()
    axes = figure.subplots()
    assert modified_loss(with_flows, ax=axes) is axes
    for path in modified_losses(with_flows)[0]:
        (line,) = (one for one in axes.lines if str(one.get_label()).startswith(path.title))
        np.testing.assert_array_equal(line.get_ydata(), path.modified)
        np.testing.assert_array_equal(line.get_xdata(), path.times)
    assert isinstance(modified_loss(with_flows), Axes)
    below = PLOTS["modified_loss"].figure(with_flows).axes[1]
    assert [len(line.get_xdata()) for line in below.lines] == [2, 3, 3]
