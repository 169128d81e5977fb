"""Laws of the charges of recorded loops: given where they hold, refused with the reason where not."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nm_ode
from nm_ode import Charges, LawError, Recorder

from .witness import batches, network


def sgd(model: nn.Module, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, **options})


def with_charges(
    model: nn.Module, optimizer: torch.optim.Optimizer, between: Any = None, **options: Any
) -> Any:
    symmetries = nm_ode.find_symmetries(network(), batches(1)[0][0], loss="cross_entropy")
    with Recorder(model, optimizer, observe=[Charges(symmetries)], **options) as recorder:
        for i, (x, y) in enumerate(batches(6)):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            if between is not None and i == 3:
                between(model, optimizer)
            optimizer.step()
    return recorder.run


def load(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    state = copy.deepcopy(optimizer.state_dict())
    for kept in state["state"].values():
        kept["momentum_buffer"].mul_(2)
    optimizer.load_state_dict(state)


def drop_a_gradient(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model[2].weight.grad = None  # type: ignore[index]


def other_rate(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0]["lr"] = 0.05


def other_momentum(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0].update(momentum=0.5, weight_decay=0.01)


def other_dampening(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0]["dampening"] = 0.5


def no_momentum(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0]["momentum"] = 0.0


def clear(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.state.clear()


def rest(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for kept in optimizer.state.values():
        kept["momentum_buffer"].zero_()


@pytest.mark.parametrize(
    ("between", "told"),
    [
        (other_dampening, "dampening"),
        (no_momentum, "momentum"),
        (load, "loaded"),
        (drop_a_gradient, r"2\.weight"),
        (clear, "velocity"),
        (rest, "velocity"),
    ],
)
def test_no_law_is_given_of_what_no_law_describes(between: Any, told: str) -> None:
    model = network()
    run = with_charges(model, sgd(model, momentum=0.9), between)
    with pytest.raises(LawError, match=told):
        nm_ode.predict_charges(run, "exact")
    assert run.sizes["step"] == 6


@pytest.mark.parametrize("every", [1, 3])
def test_momentum_that_begins_in_the_run_ends_the_laws_and_not_the_recording(every: int) -> None:
    model = network()
    optimizer = sgd(model)
    symmetries = nm_ode.find_symmetries(network(), batches(1)[0][0], loss="cross_entropy")
    with Recorder(model, optimizer, observe=[Charges(symmetries, every=every)]) as recorder:
        for i, (x, y) in enumerate(batches(9)):
            optimizer.param_groups[0]["momentum"] = 0.9 if i > 3 else 0.0
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert recorder.steps == 9
    with pytest.raises(LawError, match="momentum was switched"):
        nm_ode.predict_charges(recorder.run, "exact")


@pytest.mark.parametrize("between", [other_rate, other_momentum])
def test_laws_follow_settings_that_change(between: Any) -> None:
    model = network()
    run = with_charges(model, sgd(model, momentum=0.9), between)
    np.testing.assert_allclose(nm_ode.predict_charges(run, "exact").charge, run.charge, atol=1e-13)


def halve(model: nn.Module) -> None:
    with torch.no_grad():
        model[0].weight.mul_(0.5)  # type: ignore[index]


def halve_uncounted(model: nn.Module) -> None:
    model[0].weight.data.mul_(0.5)  # type: ignore[index, union-attr, operator]


def replace(model: nn.Module) -> None:
    model[0].weight.data = model[0].weight.data * 0.5  # type: ignore[index, union-attr, operator, assignment]


def clamp_one_entry(model: nn.Module) -> None:
    model[0].weight.data.view(-1)[1] = 0.0  # type: ignore[index, union-attr, operator]


@pytest.mark.parametrize(
    ("write", "at"), [(halve, 3), (halve_uncounted, 3), (replace, 3), (clamp_one_entry, 2)]
)
def test_charges_of_a_parameter_that_was_written_to_have_no_law(write: Any, at: int) -> None:
    """Of all entries torch counts the writes, or they are looked at: a few at each step, all at some (2 is one)."""
    model = network()
    optimizer = sgd(model, momentum=0.9)
    symmetries = nm_ode.find_symmetries(network(), batches(1)[0][0], loss="cross_entropy")
    with Recorder(model, optimizer, observe=[Charges(symmetries)]) as recorder:
        for i, (x, y) in enumerate(batches(6)):
            if i == at:
                write(model)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    run = recorder.run
    beyond = nm_ode.run_info(run).beyond_laws
    assert set(beyond.symmetries) == {"rescale 0 → 2"}
    assert f"written to between steps {at - 1} and {at}" in beyond.of("rescale 0 → 2")
    assert not beyond.of("translation 2")
    predicted = nm_ode.predict_charges(run, "exact")
    assert dict(nm_ode.law_info(predicted).beyond) == dict(beyond.symmetries)
    touched = run.charge_symmetry.values == "rescale 0 → 2"
    assert np.isnan(predicted.charge.values[:, touched]).all()
    np.testing.assert_allclose(
        predicted.charge.values[:, ~touched], run.charge.values[:, ~touched], atol=1e-13
    )


def test_parameters_that_are_put_back_are_none_that_were_written_to() -> None:
    """Averages of the weights in their place while a model is evaluated."""
    model = network()
    optimizer = sgd(model, momentum=0.9)
    symmetries = nm_ode.find_symmetries(network(), batches(1)[0][0], loss="cross_entropy")
    averages = [p.detach().clone() for p in model.parameters()]
    with Recorder(model, optimizer, observe=[Charges(symmetries)]) as recorder:
        for x, y in batches(6):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            kept = [p.data for p in model.parameters()]
            for parameter, average in zip(model.parameters(), averages, strict=True):
                parameter.data = average
            model(x)
            for parameter, one in zip(model.parameters(), kept, strict=True):
                parameter.data = one
    assert not nm_ode.run_info(recorder.run).beyond_laws


@pytest.mark.parametrize(
    ("of_weights", "of_biases", "told"),
    [({"lr": 0.1}, {"lr": 0.05}, "learning rates"), ({"weight_decay": 0.1}, {}, "weight_decay")],
)
def test_no_law_is_given_where_groups_differ(of_weights: Any, of_biases: Any, told: str) -> None:
    model = network()
    weights, biases = (
        [p for p in model.parameters() if (p.ndim > 1) == is_weight] for is_weight in (True, False)
    )
    optimizer = torch.optim.SGD(
        [{"params": weights, **of_weights}, {"params": biases, **of_biases}], lr=0.1, momentum=0.9
    )
    run = with_charges(model, optimizer)
    with pytest.raises(LawError, match=told):
        nm_ode.predict_charges(run, "exact")


def test_no_law_of_sgd_is_given_of_a_class_of_that_name() -> None:
    class SGD(torch.optim.SGD):
        pass

    model = network()
    run = with_charges(model, SGD(model.parameters(), lr=0.1))
    with pytest.raises(LawError, match="does not know"):
        nm_ode.predict_charges(run, "exact")


def by_value(model: nn.Module) -> None:
    torch.nn.utils.clip_grad_value_(model.parameters(), 0.02)


def by_norm(model: nn.Module) -> None:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)


def noise(model: nn.Module) -> None:
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad += 0.01 * torch.randn_like(parameter)


@pytest.mark.parametrize(("change", "lawful"), [(by_value, False), (noise, False), (by_norm, True)])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_changed_gradient_has_a_law_where_it_is_orthogonal_to_the_symmetries(
    change: Any, lawful: bool, autocast: bool
) -> None:
    model = network(torch.float32)
    optimizer = sgd(model, momentum=0.9)
    symmetries = nm_ode.find_symmetries(model, batches(1, torch.float32)[0][0], loss="cross_entropy")
    torch.manual_seed(0)
    with Recorder(model, optimizer, observe=[Charges(symmetries)]) as recorder:
        for x, y in batches(20, torch.float32):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = F.cross_entropy(model(x), y)
            loss.backward()
            change(model)
            optimizer.step()
    run = recorder.run
    motion = float(abs(run.charge - run.charge[0]).max())
    with_residual = nm_ode.predict_charges(run, "exact", with_residual=True)
    assert float(abs(with_residual.charge - run.charge).max()) < 1e-4 * motion
    if lawful:
        assert float(abs(nm_ode.predict_charges(run, "exact").charge - run.charge).max()) < 0.1 * motion
    else:
        for law in ("exact", "second_order"):
            with pytest.raises(LawError, match="with_residual"):
                nm_ode.predict_charges(run, law)


@pytest.mark.parametrize(("change", "lawful"), [(by_value, False), (noise, False), (by_norm, True)])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_gradient_that_is_changed_between_records_alone_is_seen(
    change: Any, lawful: bool, autocast: bool, momentum: float
) -> None:
    every, runs = 5, {}
    for residual in (True, False):
        torch.manual_seed(0)
        model = network(torch.float32)
        optimizer = sgd(model, momentum=momentum)
        symmetries = nm_ode.find_symmetries(model, batches(1, torch.float32)[0][0], loss="cross_entropy")
        observe = [Charges(symmetries, every=every, residual=residual)]
        with Recorder(model, optimizer, observe=observe) as recorder:
            for step, (x, y) in enumerate(batches(21, torch.float32)):
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    loss = F.cross_entropy(model(x), y)
                loss.backward()
                if step % every:
                    change(model)
                optimizer.step()
        runs[residual] = recorder.run
    for law in ("exact", "second_order"):
        if lawful:
            nm_ode.predict_charges(runs[True], law)
        else:
            with pytest.raises(LawError, match=r"not orthogonal .* with_residual=True"):
                nm_ode.predict_charges(runs[True], law)
        # Without the sums nobody can tell, and that is said.
        about = nm_ode.law_info(nm_ode.predict_charges(runs[False], law))
        assert "at the records alone" in about.remarks[0]
        assert about.title == nm_ode.law_info(nm_ode.predict_charges(runs[lawful], law)).title
    predicted = nm_ode.predict_charges(runs[True], "exact", with_residual=True)
    np.testing.assert_allclose(predicted["charge"], runs[True]["charge"], atol=1e-4)
