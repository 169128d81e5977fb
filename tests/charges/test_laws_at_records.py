"""Laws of charges that were recorded at some steps alone: what every step's drivers predict, at the records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import nm_ode
from nm_ode.charges import LAWS, Law, LawError, predict_charges, solve_charges
from nm_ode.charges.exact import exact
from nm_ode.charges.recursion import Recursion
from nm_ode.charges.settings import Settings
from nm_ode.data import digits
from nm_ode.models import mlp
from nm_ode.observers import OPEN_END, Charges, Context, Observer, View
from nm_ode.observers.responses import Responses
from nm_ode.optimizers import Cosine, Drop
from nm_ode.recorder import Recorder
from nm_ode.symmetries import symmetries_of
from tests.oracles.charged import SIGNS, simulate

SGDS: list[dict[str, Any]] = [
    {"lr": 0.05, "weight_decay": 1e-2},
    {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-2},
    {"lr": 0.02, "momentum": 0.9, "dampening": 0.5, "weight_decay": 1e-2},
    {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-2},
    {"lr": 0.02, "momentum": 0.9, "nesterov": True},
]


def options_of(law: str) -> list[dict[str, bool]]:
    """Every way of calling `predict_charges` with it."""
    ways: list[dict[str, bool]] = [{}]
    if LAWS[law].takes_residual:
        ways.append({"with_residual": True})
    if LAWS[law].from_rest is not None:
        ways.append({"from_rest": True})
    return ways


def assert_same_at_records(each: xr.Dataset, some: xr.Dataset, laws: list[str], every: int) -> None:
    """Both predictions, to rounding; and the drivers moved the charges, so that there was something to sum."""
    size = float(np.abs(each["charge"]).max())
    assert float(np.abs(each["charge"] - each["charge"][0]).max()) > 1e-3 * size
    for law in laws:
        for options in options_of(law):
            expected = predict_charges(each, law, **options)["charge"].values[::every]
            found = predict_charges(some, law, **options)["charge"]
            assert found.dims[0] == "charge_step"
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * size, err_msg=f"{law} {options}")


@settings(deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(sorted(SIGNS)),
    momentum=st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    dampening=st.sampled_from([0.0, 0.1, 0.5]),
    weight_decay=st.sampled_from([0.0, 1e-4, 0.1]),
    nesterov=st.booleans(),
    lrs=st.lists(st.floats(1e-4, 0.1), min_size=2, max_size=24),
    every=st.integers(1, 9),
)
def test_sums_give_what_every_steps_drivers_give(
    seed, kind, momentum, dampening, weight_decay, nesterov, lrs, every
):
    nesterov = nesterov and momentum > 0 and dampening == 0
    run, _ = simulate(
        np.array(lrs),
        momentum=momentum,
        dampening=dampening,
        weight_decay=weight_decay,
        nesterov=nesterov,
        translation=kind == "translation",
        signs=SIGNS[kind],
        seed=seed,
    )
    degree = 1 if kind == "translation" else 2
    for name, law in LAWS.items():
        if name == "first_order" and momentum:
            continue
        recursion = law.recursion
        assert recursion is not None
        sums = Responses({name: (recursion, False)}, run.hyperparameters, torch.tensor([degree == 1]))
        z, charges = recursion.start(run), []
        for k in range(len(lrs) + 1):
            if k % every == 0 or k == len(lrs):
                found = sums.values()
                z = found[f"{name}_propagator"][degree - 1] @ z + found[f"{name}_response"].numpy()
                charges.append((k, recursion.charge(z)))
                sums.clear()
            if k < len(lrs):
                own, cross = (torch.from_numpy(one) for one in (run.moved(k), run.crossed(k)))
                if degree == 1:  # as the meter has it
                    own, cross = torch.zeros_like(own), torch.zeros_like(cross)
                sums.add(run.at(k), torch.stack([own, cross, torch.zeros_like(own)]))
        expected = law.predict(run)
        for k, charge in charges:
            np.testing.assert_allclose(
                charge, expected[k], rtol=1e-10, atol=1e-10 * (1 + np.abs(run.driver).max())
            )


@pytest.mark.parametrize("sgd", SGDS, ids=str)
@pytest.mark.parametrize("schedule", [None, Drop((30,), 0.1), Cosine(0.01, warmup=5)], ids=str)
def test_train_predicts_at_records_what_it_predicts_at_each_step(batch_norm, sgd, schedule):
    symmetries, optimizer = symmetries_of(batch_norm), nm_ode.SGD(**sgd)

    def run(every: int) -> xr.Dataset:
        return nm_ode.train(
            batch_norm,
            optimizer,
            60,
            batch_size=64,
            schedule=schedule,
            save_every=60,
            observe=[Charges(symmetries, every)],
        )

    each, some = run(1), run(7)
    laws = ["exact", "second_order", *([] if optimizer.momentum else ["first_order"])]
    assert_same_at_records(each, some, laws, 7)
    # The exact law closes: on the run itself, not only on its own prediction.
    closed = predict_charges(some, "exact", with_residual=True)["charge"] - some["charge"]
    assert float(np.abs(closed).max()) < 1e-12 * float(np.abs(some["charge"]).max())
    comparison = nm_ode.compare(some, predict_charges(some, "exact", with_residual=True))
    np.testing.assert_array_equal(comparison["charge_time"], each["time"][::7])
    assert float(comparison["symmetry_relative_error"].max()) < 1e-10


class Loop:
    """A loop of one's own on minibatches, whose optimiser a schedule may change before any step."""

    def __init__(self, problem: nm_ode.Problem) -> None:
        self.problem, self.symmetries = problem, symmetries_of(problem)

    def run(
        self,
        every: int,
        sgd: Mapping[str, Any],
        change: Callable[[int, dict[str, Any]], None] = lambda step, group: None,
        steps: int = 40,
    ) -> xr.Dataset:
        problem = self.problem
        model = problem.model
        torch.nn.utils.vector_to_parameters(problem.theta0.clone(), model.parameters())
        optimizer = torch.optim.SGD(model.parameters(), **sgd)
        generator = torch.Generator().manual_seed(0)
        with Recorder(model, optimizer, observe=[Charges(self.symmetries, every)]) as recorder:
            for step in range(steps):
                change(step, optimizer.param_groups[0])
                batch = torch.randperm(problem.n_samples, generator=generator)[:64]
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(problem.x[batch]), problem.y[batch])
                loss.backward()
                recorder.loss(loss)
                optimizer.step()
        return recorder.run


@pytest.fixture(scope="module")
def loop() -> Loop:
    data = digits(256)
    model = mlp([64, 16, 12, 10], "relu", norm="batch").double()
    return Loop(nm_ode.Problem(model, nn.functional.cross_entropy, (data.x, data.y)))


def one_cycle(step: int, group: dict[str, Any]) -> None:
    """Learning rate, momentum and weight decay all move, as schedules of one cycle move them."""
    group["lr"] = 0.03 * (0.1 + abs(step - 20) / 20)
    group["momentum"] = 0.85 + 0.1 * abs(step - 20) / 20
    group["weight_decay"] = 1e-2 * (1 + step / 40)


def warm_up(step: int, group: dict[str, Any]) -> None:
    """The first step, and one in the middle, move nothing."""
    group["lr"] = 0.0 if step in (0, 13) else 0.002 * step


@pytest.mark.parametrize("change", [one_cycle, warm_up])
@pytest.mark.parametrize("nesterov", [False, True])
def test_a_loop_that_changes_its_optimiser(loop, change, nesterov):
    sgd = {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-2, "nesterov": nesterov}
    each, some = loop.run(1, sgd, change), loop.run(6, sgd, change)
    assert_same_at_records(each, some, ["exact", "second_order"], 6)
    for run in (each, some):
        gap = predict_charges(run, "exact", with_residual=True)["charge"] - run["charge"]
        assert float(np.abs(gap).max()) < 1e-12 * float(np.abs(run["charge"]).max())


def test_without_the_changed_settings_the_law_would_not_close(loop):
    sgd = {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-2}
    run = loop.run(1, sgd, one_cycle)
    told = run.drop_vars("sgd_settings")
    gap = predict_charges(told, "exact", with_residual=True)["charge"] - run["charge"]
    assert float(np.abs(gap).max()) > 1e-6


@pytest.mark.parametrize("every", [1, 6])
def test_a_velocity_that_begins_in_the_middle_is_refused(loop, every):
    def switch(step: int, group: dict[str, Any]) -> None:
        group["momentum"] = 0.0 if step < 20 else 0.9

    run = loop.run(every, {"lr": 0.02, "momentum": 0.9}, switch)
    with pytest.raises(LawError, match="switched on or off"):
        predict_charges(run, "exact")


def test_an_engine_refuses_a_weight_decay_that_changes(loop):
    run = loop.run(1, {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-2}, one_cycle)
    with pytest.raises(LawError, match="weight decay"):
        solve_charges(run, "second_order")


def test_a_step_that_is_skipped_leaves_no_trace(relu):
    # A GradScaler's step that is not taken: what was seen before it is seen again before the next, at other gradients.
    symmetries = symmetries_of(relu)
    context = Context(relu, nm_ode.SGD(lr=0.1), OPEN_END, (), relu.theta0.device)
    (plain, _), (skipping, _) = (Charges(symmetries, 4, ["exact"]).begin(context) for _ in range(2))
    found: dict[Observer, Any] = {}
    theta = relu.theta0.clone()
    for step in range(9):
        batch = torch.arange(32 * step, 32 * step + 32)
        view, skipped = (
            View(
                relu,
                step,
                0.1 * step,
                theta,
                lr=0.1,
                loss_and_gradient=partial(relu.loss_and_grad, theta, samples),
            )
            for samples in (batch, batch + 1)
        )
        for observer in (plain, skipping):
            if observer is skipping and step in (4, 6):
                if step == 4:
                    observer.observe(skipped)
                observer.follow(skipped)
            if step % 4 == 0:
                found[observer] = observer.observe(view)
            observer.follow(view)
        update = -0.1 * view.gradient
        theta = theta + update
        view.take_update(update)
        for observer in (plain, skipping):
            observer.follow_update(view)
    for name, value in found[plain].items():
        np.testing.assert_array_equal(found[skipping][name], value, err_msg=name)
    assert float(found[plain]["exact_response"].abs().max()) > 0


@pytest.mark.parametrize("skipped", [{4}, {5, 6}, {0, 7}], ids=str)
def test_the_law_closes_over_steps_that_a_grad_scaler_leaves_out(loop, skipped):
    problem, model = loop.problem, loop.problem.model
    torch.nn.utils.vector_to_parameters(problem.theta0.clone(), model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    with Recorder(model, optimizer, observe=[Charges(loop.symmetries, 4)]) as recorder:
        for step in range(20):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(problem.x), problem.y)
            scaler.scale(loss).backward()
            recorder.loss(loss)
            if step in skipped:
                next(model.parameters()).grad.view(-1)[0] = float("inf")
            scaler.step(optimizer)
            scaler.update()
    run = recorder.run
    assert run.sizes["step"] == 20 - len(skipped)
    assert run["charge_step"].values.tolist() == list(range(0, 20 - len(skipped), 4))
    gap = predict_charges(run, "exact", with_residual=True)["charge"] - run["charge"]
    assert float(np.abs(gap).max()) < 1e-12 * float(np.abs(run["charge"]).max())


def test_laws_that_were_not_summed_are_refused(relu):
    symmetries = symmetries_of(relu)
    run = nm_ode.train(relu, nm_ode.SGD(lr=0.1), 9, observe=[Charges(symmetries, 4, ["exact"])])
    with pytest.raises(LawError, match=r"laws=\['second_order'\]"):
        predict_charges(run, "second_order")
    bare = nm_ode.train(relu, nm_ode.SGD(lr=0.1), 9, observe=[Charges(symmetries, 4, [])])
    with pytest.raises(LawError, match=r"laws=\['exact'\]"):
        predict_charges(bare, "exact")
    adam = nm_ode.train(relu, nm_ode.Adam(lr=0.01), 9, observe=[Charges(symmetries, 4)])
    assert "exact_response" not in adam
    with pytest.raises(LawError, match="momentum"):
        nm_ode.train(
            relu, nm_ode.SGD(lr=0.1, momentum=0.9), 9, observe=[Charges(symmetries, 4, ["first_order"])]
        )
    with pytest.raises(LawError, match="did you mean"):
        nm_ode.train(relu, nm_ode.SGD(lr=0.1), 9, observe=[Charges(symmetries, 4, ["exakt"])])


def test_records_that_are_missing_are_seen(relu):
    run = nm_ode.train(relu, nm_ode.SGD(lr=0.1), 20, observe=[Charges(symmetries_of(relu), 4)])
    predict_charges(run.isel(charge_step=slice(3)), "exact")  # the first are whole
    for part in (slice(1, None), slice(None, None, 2), [0, 1, 3]):
        with pytest.raises(LawError, match="missing"):
            predict_charges(run.isel(charge_step=part), "exact")
    # Sums that begin anew in the middle, as where a loop was taken up again without what was remembered.
    broken = run.assign(summed_steps=run["summed_steps"].where(run["charge_step"] != 8, 3))
    with pytest.raises(LawError, match="sums"):
        predict_charges(broken, "exact")


def test_the_residual_can_be_left_out(batch_norm):
    symmetries, sgd = symmetries_of(batch_norm), nm_ode.SGD(lr=0.05, momentum=0.9)
    with_it, without = (
        nm_ode.train(batch_norm, sgd, 20, observe=[Charges(symmetries, 6, residual=residual)])
        for residual in (True, False)
    )
    assert "exact_residual_response" not in without
    np.testing.assert_array_equal(without["exact_response"], with_it["exact_response"])
    np.testing.assert_array_equal(
        predict_charges(without, "exact")["charge"], predict_charges(with_it, "exact")["charge"]
    )
    with pytest.raises(LawError, match="residual=True"):
        predict_charges(without, "exact", with_residual=True)


def test_a_law_without_a_recursion_is_refused_before_the_run(relu):
    name = "of_every_step"
    LAWS.register(name, Law("law of every step", exact))
    try:
        with pytest.raises(LawError, match="every=1"):
            nm_ode.train(relu, nm_ode.SGD(lr=0.1), 9, observe=[Charges(symmetries_of(relu), 4, [name])])
        run = nm_ode.train(relu, nm_ode.SGD(lr=0.1), 9, observe=[Charges(symmetries_of(relu), 4)])
        with pytest.raises(LawError, match="every=1"):
            predict_charges(run, name)
    finally:
        LAWS.unregister(name)


@pytest.mark.parametrize(
    ("sgd", "expected"),
    [
        ({"lr": 0.1}, 64),
        ({"lr": 0.1, "momentum": 0.9}, 72),
        ({"lr": 0.1, "momentum": 0.9, "nesterov": True}, 88),
    ],
    ids=str,
)
def test_bytes_of_a_record_are_those_that_are_stated(relu, sgd, expected):
    run = nm_ode.train(relu, nm_ode.SGD(**sgd), 9, observe=[Charges(symmetries_of(relu), 3)])
    of_charges = [one for one in run.data_vars.values() if {"charge_step", "charge_index"} <= set(one.dims)]
    records, count = run.sizes["charge_step"], run.sizes["charge_index"]
    assert sum(one.nbytes for one in of_charges) == expected * records * count


def test_a_step_without_a_length_moves_nothing():
    still = Settings(0.0, 0.9, 0.0, 0.1, False, first=False)
    for name, law in LAWS.items():
        recursion = law.recursion
        assert isinstance(recursion, Recursion)
        for degree in (1, 2):
            keeps, driven = recursion.step(still, degree)
            np.testing.assert_array_equal(keeps[0], np.eye(len(keeps))[0], err_msg=name)
            assert np.isfinite(driven).all()
