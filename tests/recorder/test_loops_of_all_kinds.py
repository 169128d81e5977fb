"""What is recorded of each kind of loop is what the loop itself has in hand: theta, gradient, update, loss, lr."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode

from .witness import STEPS, Witness, batches, network, recorder_of

OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "SGD": (torch.optim.SGD, {"lr": 0.1}),
    "momentum, foreach": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "foreach": True}),
    "Nesterov, foreach": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "foreach": True}),
    "momentum, fused": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "fused": True}),
    "maximize": (torch.optim.SGD, {"lr": 0.01, "maximize": True}),
    "Adam": (torch.optim.Adam, {"lr": 0.01}),
    "Adam, foreach": (torch.optim.Adam, {"lr": 0.01, "foreach": True, "weight_decay": 0.1}),
    "AdamW, fused": (torch.optim.AdamW, {"lr": 0.01, "fused": True}),
    "Adam, lr a tensor": (torch.optim.Adam, {"lr": torch.tensor(0.01)}),
    "AMSGrad": (torch.optim.Adam, {"lr": 0.01, "amsgrad": True}),
    "RMSprop": (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.5}),
    "Adagrad": (torch.optim.Adagrad, {"lr": 0.01}),
    "NAdam": (torch.optim.NAdam, {"lr": 0.01}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_torch_optimisers(name: str) -> None:
    kind, options = OPTIMIZERS[name]
    model, witness = network(), Witness()
    optimizer = kind(model.parameters(), **options)
    with recorder_of(model, optimizer) as recorder:
        for x, y in batches(STEPS):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            recorder.loss(loss)
            loss.backward()
            witness.before(model, optimizer, loss.item())
            optimizer.step()
    witness.end(model)
    witness.agrees_with(recorder.run)


class SignDescent(torch.optim.Optimizer):
    """A user's own: it overwrites the gradients."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.sign_()
                    parameter.add_(parameter.grad, alpha=-group["lr"])


class Shrinking(torch.optim.SGD):
    """A user's own that calls its base class, so that torch calls each hook twice, and then goes on."""

    def step(self, closure: Any = None) -> Any:
        made = super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(0.99)
        return made


@pytest.mark.parametrize("kind", [SignDescent, Shrinking])
def test_a_users_own_optimiser(kind: Any) -> None:
    torch.optim.SGD(network().parameters(), lr=0.1)  # from here on torch's class calls hooks too
    model, witness = network(), Witness()
    optimizer = kind(model.parameters(), lr=0.05)
    with recorder_of(model, optimizer) as recorder:
        for x, y in batches(STEPS):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            witness.step(model, optimizer, recorder, loss)
    witness.end(model)
    witness.agrees_with(recorder.run)
    assert nm_ode.run_info(recorder.run).optimizer == kind.__name__
    assert kind.__name__ in nm_ode.run_info(recorder.run).beyond_laws.everything


@pytest.mark.parametrize("has_one", [True, False])
def test_an_optimiser_without_a_learning_rate(has_one: bool) -> None:
    """As those that make up their step by themselves: their rate is None, or not there."""

    class Fixed(torch.optim.Optimizer):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {"lr": None, "size": 0.1} if has_one else {"size": 0.1})

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.sub_(group["size"] * parameter.grad)

    model = network()
    optimizer = Fixed(model.parameters())
    with recorder_of(model, optimizer) as recorder:
        for x, y in batches(STEPS):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    info = nm_ode.run_info(recorder.run)
    assert recorder.run.lr.values.tolist() == [1.0] * STEPS
    assert "counted in steps" in info.remarks[0]
    np.testing.assert_allclose(recorder.run.seen_update, -0.1 * recorder.run.seen_gradient, atol=1e-15)


def test_accumulation_and_clipping() -> None:
    model, witness = network(), Witness()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with recorder_of(model, optimizer) as recorder:
        losses: list[float] = []
        for i, (x, y) in enumerate(batches(3 * STEPS)):
            loss = F.cross_entropy(model(x), y)
            (loss / 3).backward()
            recorder.loss(loss)
            losses.append(loss.item())
            if i % 3 == 2:
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                witness.before(model, optimizer, float(np.mean(losses)))
                optimizer.step()
                optimizer.zero_grad(set_to_none=i % 2 == 0)
                losses = []
    witness.end(model)
    witness.agrees_with(recorder.run)
    assert recorder.run.grad_norm.values == pytest.approx(0.1, rel=1e-4)
    assert recorder.skipped_steps == 0


@pytest.mark.parametrize("fused", [False, True], ids=["scaler skips", "optimiser skips"])
@pytest.mark.parametrize("loss_first", [False, True])
@pytest.mark.parametrize("set_to_none", [False, True])
@pytest.mark.parametrize("unscaled", [False, True])
def test_a_skipped_step_is_none(fused: bool, loss_first: bool, set_to_none: bool, unscaled: bool) -> None:
    model, witness = network(torch.float32), Witness()
    # torch 2.13: where the first step is left out, the velocity of the fused SGD is memory that nobody wrote.
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.0 if fused else 0.9, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=3.0, growth_interval=2)
    with recorder_of(model, optimizer) as recorder:
        for i, (x, y) in enumerate(batches(STEPS, torch.float32)):
            optimizer.zero_grad(set_to_none=set_to_none)
            loss = F.cross_entropy(model(x), y)
            if loss_first:
                recorder.loss(loss)
            scaler.scale(loss).backward()
            if not loss_first:
                recorder.loss(loss)
            if i in (0, 3, 4, STEPS - 1):
                next(iter(model.parameters())).grad[0, 0] = torch.inf  # type: ignore[index]
            else:
                scale = scaler.get_scale()
                witness.before(model, optimizer, loss.item())
                witness.gradients[-1] /= scale
            if unscaled:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
    assert recorder.skipped_steps == 4  # the last one too, which no backward pass follows
    witness.end(model)
    witness.agrees_with(recorder.run, 2e-6)
    assert recorder.steps == STEPS - 4
    assert recorder.skipped_steps == 4


@pytest.mark.parametrize("loss_first", [False, True])
def test_a_parameter_that_is_frozen_in_the_run_hides_no_step_that_was_skipped(loss_first: bool) -> None:
    """Backward passes are seen by hooks on a few parameters, of which the loop may freeze any."""
    model = network(torch.float32)
    layers = [model[0], model[2]]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    wanted = []
    with recorder_of(model, optimizer) as recorder:
        for i, (x, y) in enumerate(batches(12, torch.float32)):
            for j, layer in enumerate(layers):
                layer.requires_grad_(i // 3 % 2 != j or i > 8)  # now the first, now the last
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            if loss_first:
                recorder.loss(loss)
            scaler.scale(loss).backward()
            if not loss_first:
                recorder.loss(loss)
            if i in (0, 3, 4, 6, 9):
                next(p for p in model.parameters() if p.grad is not None).grad.fill_(torch.nan)  # type: ignore[union-attr]
            else:
                wanted.append(loss.item())
            scaler.step(optimizer)
            scaler.update()
    np.testing.assert_allclose(recorder.run.loss, wanted, rtol=1e-6)
    assert recorder.skipped_steps == 5


def test_lbfgs_has_the_gradient_of_its_first_call() -> None:
    model, witness = network(), Witness()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.3, max_iter=4, history_size=3)
    with recorder_of(model, optimizer) as recorder:
        for x, y in batches(4):

            def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                return loss

            first = closure()
            witness.before(model, optimizer, first.item())
            optimizer.step(closure)
    witness.end(model)
    witness.agrees_with(recorder.run)
    assert recorder.skipped_steps == 0  # a closure throws gradients away within its step


@pytest.mark.parametrize("keyword", [False, True])
def test_the_loss_may_be_given_within_a_closure(keyword: bool) -> None:
    model, witness = network(), Witness()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.3, max_iter=3)
    with recorder_of(model, optimizer) as recorder:
        for x, y in batches(3):
            calls: list[float] = []

            def closure(x: Tensor = x, y: Tensor = y, calls: list[float] = calls) -> float:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                recorder.loss(2 * loss)
                calls.append(2 * loss.item())
                return loss.item()

            optimizer.step(closure=closure) if keyword else optimizer.step(closure)
            witness.losses.append(calls[0])
            assert len(calls) > 1
    np.testing.assert_allclose(recorder.run.loss, witness.losses)


def test_groups_schedulers_and_steps_of_size_zero() -> None:
    model, witness = network(), Witness()
    optimizer = torch.optim.SGD(
        [
            {"params": model[0].parameters(), "lr": 0.1},
            {"params": model[2].parameters(), "lr": 0.01, "weight_decay": 0.1},
        ],
        momentum=0.9,
    )
    warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(k, 3) / 3)
    rates = []
    with recorder_of(model, optimizer) as recorder:
        for x, y in batches(STEPS):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            recorder.loss(loss)
            witness.before(model, optimizer, loss.item())
            rates.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            warmup.step()
    witness.end(model)
    run = recorder.run
    witness.agrees_with(run)
    assert run.lr[0] == 0
    assert run.parameter.values.tolist() == ["0.weight", "0.bias", "2.weight", "2.bias"]
    np.testing.assert_array_equal(run.parameter_lr, np.repeat(rates, 2, axis=1))
    assert "weight_decay" in nm_ode.run_info(run).remarks[0]


def test_laws_go_through_a_warm_up_from_zero() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9, weight_decay=0.01)
    warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(k, 3) / 3)
    symmetries = nm_ode.find_symmetries(model, batches(1)[0][0], loss="cross_entropy")
    with nm_ode.Recorder(model, optimizer, observe=[nm_ode.Charges(symmetries)]) as recorder:
        for x, y in batches(STEPS):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            warmup.step()
    run = recorder.run
    np.testing.assert_allclose(nm_ode.predict_charges(run, "exact").charge, run.charge, atol=1e-13)
    assert nm_ode.run_info(run).hyperparameters["lr"] == 0.3


def test_autocast_in_the_loop_reaches_no_number() -> None:
    model, witness = network(torch.float32), Witness()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    with torch.autocast("cpu", torch.bfloat16), recorder_of(model, optimizer) as recorder:
        for x, y in batches(STEPS, torch.float32):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            witness.step(model, optimizer, recorder, loss)
    witness.end(model)
    witness.agrees_with(recorder.run, 1e-7)


def test_other_recorders_and_copies_of_the_optimiser_do_not_matter() -> None:
    import copy

    model, witness = network(), Witness()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with recorder_of(model, optimizer) as recorder, recorder_of(model, optimizer) as other:
        for i, (x, y) in enumerate(batches(STEPS)):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            recorder.loss(loss)
            other.loss(loss)
            witness.before(model, optimizer, loss.item())
            if i == 2:
                twin_model, twin = copy.deepcopy((model, optimizer))
                twin.step()
                del twin_model
            optimizer.step()
    witness.end(model)
    witness.agrees_with(recorder.run)
    assert recorder.run.equals(other.run)


def test_after_the_loop_optimiser_and_model_have_no_hooks() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = recorder_of(model, optimizer)
    with warnings.catch_warnings(), recorder:
        pass
    x, y = batches(1)[0]
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    assert recorder.steps == 0
    assert recorder.run.sizes["step"] == 0
    assert not any(p._backward_hooks or p._post_accumulate_grad_hooks for p in model.parameters())
    assert not optimizer._optimizer_step_pre_hooks  # type: ignore[attr-defined]


def test_a_gradient_penalty_is_no_further_backward_pass() -> None:
    model, witness = network(), Witness()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with recorder_of(model, optimizer) as recorder:
        for x, y in batches(STEPS):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            slopes = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
            loss = loss + 0.1 * sum(slope.square().sum() for slope in slopes)
            recorder.loss(loss)
            loss.backward()
            witness.before(model, optimizer, loss.item())
            optimizer.step()
    witness.end(model)
    witness.agrees_with(recorder.run)
    assert recorder.skipped_steps == 0


def test_dropout_augmentation_and_several_losses_keep_the_laws() -> None:
    """Whatever loss a batch has, its gradient is orthogonal to the symmetries of the network."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 3)).double()
    symmetries = nm_ode.find_symmetries(model, batches(1)[0][0], loss="cross_entropy")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    with nm_ode.Recorder(model, optimizer, observe=[nm_ode.Charges(symmetries)]) as recorder:
        for i, (x, y) in enumerate(batches(30)):
            optimizer.zero_grad()
            out = model(x + 0.1 * torch.randn_like(x))
            loss = F.cross_entropy(out, y) if i % 2 else F.multi_margin_loss(out, y)
            loss.backward()
            recorder.loss(loss)
            optimizer.step()
    run = recorder.run
    assert float(run.charge.std("step").max()) > 1e-2
    np.testing.assert_allclose(nm_ode.predict_charges(run, "exact").charge, run.charge, atol=1e-12)


def test_a_problem_can_be_made_of_a_model_while_it_is_recorded() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with recorder_of(model, optimizer):
        problem = nm_ode.Problem(model, F.cross_entropy, batches(1)[0])
    assert problem.layout.size == 51
