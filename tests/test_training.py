"""The discrete run: what is recorded is what torch.optim did."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from nm_ode import (
    SGD,
    Adam,
    AdamW,
    GradientFlow,
    Problem,
    RMSprop,
    ScalarRMSprop,
    TrainingDiverged,
    final_state,
    modified_flow,
    solve,
    train,
)
from nm_ode.data import sample_batches
from nm_ode.errors import ArgumentError
from nm_ode.observers import Observer
from nm_ode.results import run_info

MOMENTUM = SGD(lr=0.05, momentum=0.9, dampening=0.2, weight_decay=1e-2)


def test_theta_follows_a_plain_torch_loop_on_the_model_itself(tiny: Problem) -> None:
    import copy

    model = copy.deepcopy(tiny.model)
    torch_optimizer = MOMENTUM.torch_optimizer(model.parameters())
    thetas = [tiny.theta0]
    with torch.no_grad():
        for parameter, slot in zip(model.parameters(), tiny.layout.slots, strict=True):
            parameter.copy_(tiny.theta0[slot.slice].view(slot.shape))
    for _ in range(5):
        torch_optimizer.zero_grad()
        tiny.loss_fn(model(tiny.x), tiny.y).backward()
        torch_optimizer.step()
        thetas.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    run = train(tiny, MOMENTUM, steps=5)
    np.testing.assert_allclose(run["theta"], torch.stack(thetas).numpy(), rtol=1e-12)


def test_records_belong_to_their_steps(tiny: Problem) -> None:
    run = train(tiny, SGD(lr=0.1), steps=6)
    for k in range(6):
        theta = torch.from_numpy(run["theta"].values[k].copy())
        loss, gradient = tiny.loss_and_grad(theta)
        assert float(run["loss"][k]) == float(loss) == float(run["full_loss"][k])
        np.testing.assert_allclose(run["grad_norm"][k], gradient.norm())
        np.testing.assert_allclose(run["update_norm"][k], 0.1 * gradient.norm())
    np.testing.assert_allclose(np.linalg.norm(run["layer_grad_norm"], axis=1), run["grad_norm"])
    np.testing.assert_allclose(np.linalg.norm(run["layer_update_norm"], axis=1), run["update_norm"])
    assert run["layer"].values.tolist() == ["linear1", "linear2"]


def test_flow_time_counts_lr_and_dampening(tiny: Problem) -> None:
    run = train(tiny, MOMENTUM, steps=4)
    np.testing.assert_allclose(run["time"], 0.05 * 0.8 * np.arange(4))
    np.testing.assert_allclose(run["saved_time"], 0.05 * 0.8 * np.arange(5))


def test_theta_is_saved_at_multiples_and_at_the_end(tiny: Problem) -> None:
    run = train(tiny, SGD(lr=0.1), steps=7, save_every=3)
    assert run["saved_step"].values.tolist() == [0, 3, 6, 7]
    every = train(tiny, SGD(lr=0.1), steps=7)
    xr.testing.assert_identical(
        run["theta"].drop_attrs(), every["theta"].sel(saved_step=[0, 3, 6, 7]).drop_attrs()
    )


@pytest.mark.parametrize("batch_size", [6, "full"])
def test_a_seed_fixes_every_bit(tiny: Problem, batch_size) -> None:
    one, other = (train(tiny, MOMENTUM, steps=20, batch_size=batch_size, seed=5) for _ in range(2))
    xr.testing.assert_identical(one, other)


def test_another_seed_takes_other_batches(tiny: Problem) -> None:
    one, other = (train(tiny, MOMENTUM, steps=3, batch_size=6, seed=seed) for seed in (0, 1))
    assert not np.array_equal(one["theta"], other["theta"])


def test_an_epoch_sees_every_sample_once() -> None:
    batches = sample_batches(20, 6, seed=0)
    epochs = [[next(batches) for _ in range(4)] for _ in range(2)]
    for epoch in epochs:
        assert [len(batch) for batch in epoch] == [6, 6, 6, 2]
        assert sorted(torch.cat(epoch).tolist()) == list(range(20))
    assert torch.cat(epochs[0]).tolist() != torch.cat(epochs[1]).tolist()


def test_a_minibatch_run_records_the_loss_of_the_batch_and_of_all(tiny: Problem) -> None:
    run = train(tiny, SGD(lr=0.1), steps=3, batch_size=6, seed=2)
    batches = sample_batches(20, 6, seed=2)
    for k in range(3):
        theta = torch.from_numpy(run["theta"].values[k].copy())
        assert float(run["loss"][k]) == float(tiny.loss_and_grad(theta, next(batches))[0])
        assert float(run["full_loss"][k]) == float(tiny.loss(theta))


def test_divergence_names_the_step_and_keeps_what_was_recorded(tiny: Problem) -> None:
    with pytest.raises(
        TrainingDiverged, match=r"diverged: the loss is (nan|inf) at step \d+ \(lr = 10000\)"
    ) as caught:
        train(tiny, SGD(lr=1e4), steps=500)
    run, step = caught.value.run, caught.value.step
    assert run.sizes["step"] == step
    assert np.isfinite(run["loss"]).all()
    assert run["saved_step"].values.tolist() == list(range(step))


def test_divergence_at_the_very_last_step_is_seen() -> None:
    x, y = torch.ones(2, 1, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    problem = Problem(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, (x, y))
    with pytest.raises(TrainingDiverged, match="at step 1 "):
        train(problem, SGD(lr=1e200), steps=1)


def test_every_variable_has_a_name_and_units(tiny: Problem) -> None:
    run = train(tiny, SGD(lr=0.1), steps=1)
    assert all({"long_name", "units"} <= set(variable.attrs) for variable in run.variables.values())


def test_progress_is_told_step_by_step(tiny: Problem) -> None:
    told = []
    train(tiny, SGD(lr=0.1), steps=3, on_step=told.append)
    assert told == [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 0}, "steps must be at least 1; 0"),
        ({"steps": 1, "save_every": 0}, "save_every must be at least 1"),
        ({"steps": 1, "batch_size": 21}, "from 1 to 20, the number of samples; 21"),
        ({"steps": 1, "batch_size": 0}, "batch_size must be 'full' or from 1"),
        ({"steps": 1, "batch_size": "ful"}, "batch_size must be 'full' or from 1 to 20.*'ful'"),
    ],
)
def test_values_out_of_range_are_named(tiny: Problem, options, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        train(tiny, SGD(lr=0.1), **options)


def test_an_optimiser_of_torchs_is_refused(tiny: Problem) -> None:
    theirs = torch.optim.SGD(tiny.model.parameters(), lr=0.1)
    with pytest.raises(ArgumentError, match=r"SGD of torch.optim.* was given"):
        train(tiny, theirs, steps=1)


STATEFUL = [
    MOMENTUM,
    SGD(lr=0.05, momentum=0.9, nesterov=True),
    Adam(lr=0.01),
    AdamW(lr=0.01),
    RMSprop(lr=0.01, momentum=0.5, centered=True),
    ScalarRMSprop(lr=0.1),
]


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1), *STATEFUL], ids=str)
def test_a_warm_start_goes_on_where_the_run_was(tiny: Problem, optimizer) -> None:
    """Six steps, then six from the final state: as twelve in one."""
    first = train(tiny, optimizer, 6)
    second = train(tiny, optimizer, 6, state0=final_state(first))
    straight = train(tiny, optimizer, 12)
    np.testing.assert_allclose(second["theta"], straight["theta"][6:], rtol=1e-12, atol=1e-14)
    assert (run_info(first).warm_start, run_info(second).warm_start) == (False, True)
    np.testing.assert_array_equal(final_state(second)[: tiny.layout.size], second["theta"][-1])


@pytest.mark.parametrize("optimizer", STATEFUL, ids=str)
def test_the_whole_state_is_kept_at_both_ends(tiny: Problem, optimizer) -> None:
    run = train(tiny, optimizer, 5)
    layout = optimizer.state_layout(tiny.layout.size)
    state = optimizer.init(tiny.theta0, tiny.grad(tiny.theta0))
    np.testing.assert_allclose(run["initial_state"], state, rtol=1e-13, atol=1e-15)
    for _ in range(5):
        state = state + optimizer.increment(state, tiny.grad(state[: tiny.layout.size]))
    assert run["final_state"].shape == (layout.size,)
    np.testing.assert_allclose(run["final_state"], state, rtol=1e-11, atol=1e-13)


def test_plain_descent_has_no_state_but_theta(tiny: Problem) -> None:
    assert "final_state" not in train(tiny, SGD(lr=0.1), 2)


def test_starts_that_do_not_go_together_are_named(tiny: Problem) -> None:
    state = final_state(train(tiny, Adam(lr=0.1), 2))
    with pytest.raises(ValueError, match="theta0 and state0 were given"):
        train(tiny, Adam(lr=0.1), 2, theta0=tiny.theta0, state0=state)
    with pytest.raises(ValueError, match=r"the state has shape \(79,\); it must have \(52,\): theta \(26\)"):
        train(tiny, MOMENTUM, 2, state0=state)


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1), *STATEFUL], ids=str)
def test_an_observer_sees_the_state_before_its_steps(tiny: Problem, optimizer) -> None:
    seen = {}

    class Looker(Observer):
        dim = "look_step"

        def steps(self, context):
            return (0, 2, context.steps)

        def observe(self, view):
            seen[view.step] = view.state()
            return {}

    run = train(tiny, optimizer, 5, observe=[Looker()])
    assert sorted(seen) == [0, 2, 5]
    for step, state in seen.items():
        np.testing.assert_array_equal(state[: tiny.layout.size], run["theta"][step])
    np.testing.assert_array_equal(seen[5], final_state(run))


def test_what_a_run_says_of_its_optimiser(tiny: Problem) -> None:
    info = run_info(train(tiny, Adam(lr=0.01), 2))
    assert info.optimizer == "Adam"
    assert info.hyperparameters["betas"] == [0.9, 0.999]
    assert info.optimizer_text == "Adam, lr = 0.01"
    assert info.time_per_step == 0.01


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
@pytest.mark.parametrize("optimizer", STATEFUL, ids=str)
def test_a_warm_start_and_its_flow_on_the_gpu(tiny: Problem, optimizer) -> None:
    there = Problem(tiny.model, tiny.loss_fn, (tiny.x, tiny.y), device="cuda")
    runs = []
    for problem in (tiny, there):
        warm = final_state(train(problem, optimizer, 20, theta0=tiny.theta0))
        run = train(problem, optimizer, 6, state0=warm)
        solution = solve(modified_flow(problem, optimizer, 3), run, check=False)
        runs.append((run["theta"].values, solution["theta"].values))
    for here, on_gpu in zip(*runs, strict=True):
        np.testing.assert_allclose(on_gpu, here, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("optimizer", STATEFUL, ids=str)
def test_float32_goes_on_from_a_state_too(tiny: Problem, optimizer) -> None:
    coarse = Problem(tiny.model, tiny.loss_fn, (tiny.x, tiny.y), dtype=torch.float32)
    first = train(coarse, optimizer, 6)
    second = train(coarse, optimizer, 6, state0=final_state(first))
    straight = train(coarse, optimizer, 12)
    assert second["theta"].dtype == np.float32
    np.testing.assert_allclose(second["theta"], straight["theta"][6:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", [SGD(lr=1e6), SGD(lr=1e6, momentum=0.5)])
def test_a_run_without_its_end_has_no_final_state(optimizer: SGD) -> None:
    problem = Problem(nn.Linear(2, 1), nn.functional.mse_loss, (torch.randn(6, 2), torch.randn(6, 1)))
    with pytest.raises(TrainingDiverged) as caught:
        train(problem, optimizer, 500)
    with pytest.raises(ArgumentError, match="training diverged"):
        final_state(caught.value.run)
    cut = train(problem, SGD(lr=0.1), 5).isel(saved_step=slice(3))
    with pytest.raises(ArgumentError, match="cut off"):
        final_state(cut)
    with pytest.raises(ArgumentError, match="no saved step"):
        solve(GradientFlow(problem), t=cut.isel(saved_step=slice(0)))


def test_a_run_without_the_loss_over_all_samples_is_the_same_run() -> None:
    x, y = torch.randn(24, 3, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 2
    net = nn.Linear(3, 2)
    problem = Problem(net, nn.functional.cross_entropy, (x, y))
    told = {"batch_size": 8, "save_every": 2, "seed": 3}
    whole = train(problem, SGD(lr=0.1), 6, **told)
    without = train(problem, SGD(lr=0.1), 6, **told, full_loss=False)
    assert set(whole.variables) - set(without.variables) == {"full_loss"}
    np.testing.assert_array_equal(whole.theta, without.theta)
    np.testing.assert_array_equal(whole.loss, without.loss)


def test_a_run_that_leaves_all_numbers_in_its_last_step_is_told_without_the_loss_over_all_samples() -> None:
    x, y = torch.ones(8, 1), torch.zeros(8, 1)
    problem = Problem(nn.Linear(1, 1), nn.functional.mse_loss, (x, y))
    with pytest.raises(TrainingDiverged) as caught:
        train(problem, SGD(lr=1e300), 2, batch_size=4, full_loss=False)
    assert caught.value.step == 1
    with pytest.raises(TrainingDiverged) as caught:
        train(problem, SGD(lr=1e300), 1, batch_size=4, full_loss=False)
    assert caught.value.step == 1
