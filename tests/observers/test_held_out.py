"""Loss and accuracy over held-out samples, beside evaluations by hand in torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode
from nm_ode import HeldOut, Problem
from nm_ode.data import Augmentation, DataError, DataSet, Preparation, PreparedSource, TensorSource


def samples(n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator("cpu").manual_seed(seed)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64, device="cpu")
    return x, (x[:, 0] + 0.3 * x[:, 1] > 0).long() + (x[:, 2] > 1).long()


TRAIN, TEST = samples(40, 0), samples(23, 1)


def network(*middle: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 5), *middle, nn.Tanh(), nn.Linear(5, 3)).double()


def with_theta(model: nn.Module, theta: np.ndarray) -> nn.Module:
    nn.utils.vector_to_parameters(torch.from_numpy(theta), model.parameters())
    return model


def test_loss_and_accuracy_are_those_of_the_network_in_eval_mode() -> None:
    model = network()
    problem = Problem(model, F.cross_entropy, TRAIN)
    run = nm_ode.train(
        problem, nm_ode.SGD(lr=0.5), 10, batch_size=16, observe=[HeldOut(TEST, every=4, chunk_size=7)]
    )
    assert run.held_out_step.values.tolist() == [0, 4, 8, 10]
    np.testing.assert_allclose(run.held_out_time, 0.5 * run.held_out_step)
    for step in run.held_out_step.values:
        outputs = with_theta(model, run.theta.sel(saved_step=step).values)(TEST[0]).detach()
        at = run.sel(held_out_step=step)
        assert float(at.test_loss) == pytest.approx(float(F.cross_entropy(outputs, TEST[1])), rel=1e-12)
        assert float(at.test_accuracy) == pytest.approx(float((outputs.argmax(1) == TEST[1]).double().mean()))
    assert run.test_accuracy[-1] > run.test_accuracy[0]


@pytest.mark.parametrize("chunk_size", [7, 40])
def test_batch_norm_takes_its_statistics_from_training_samples(chunk_size: int) -> None:
    model = network(nn.BatchNorm1d(5))
    problem = Problem(model, F.cross_entropy, TRAIN)
    run = nm_ode.train(
        problem, nm_ode.SGD(lr=0.5), 4, observe=[HeldOut(TEST, every=4, chunk_size=chunk_size)]
    )
    trained = with_theta(model, run.theta.values[-1])
    before = trained[0](
        TRAIN[0]
    ).detach()  # one BatchNorm: its inputs are the same in whichever batches they pass
    trained[1].running_mean, trained[1].running_var = before.mean(0), before.var(0, correction=0)
    trained.eval()
    outputs = trained(TEST[0]).detach()
    assert float(run.test_loss[-1]) == pytest.approx(float(F.cross_entropy(outputs, TEST[1])), rel=1e-10)
    assert "40 training samples" in run.test_loss.attrs["long_name"]


def test_observing_changes_nothing_of_the_run() -> None:
    model = network(nn.BatchNorm1d(5))
    problem = Problem(model, F.cross_entropy, TRAIN)
    plain, seen = (
        nm_ode.train(problem, nm_ode.SGD(lr=0.5, momentum=0.9), 6, batch_size=16, observe=observe)
        for observe in ([], [HeldOut(TEST, every=1)])
    )
    np.testing.assert_array_equal(plain.theta, seen.theta)


def test_values_have_no_accuracy_and_a_loss_that_is_a_sum_is_summed() -> None:
    x, y = TEST[0], TEST[0][:, :2] ** 2
    model = nn.Linear(3, 2).double()

    def summed(output: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(output, target, reduction="sum")

    run = nm_ode.train(
        Problem(model, summed, (x[:20], y[:20])),
        nm_ode.SGD(lr=1e-3),
        3,
        observe=[HeldOut((x, y), chunk_size=5)],
    )
    assert "test_accuracy" not in run
    assert float(run.test_loss[0]) == pytest.approx(float(summed(model(x), y).detach()), rel=1e-12)


@dataclass
class Smoothed:
    """A loss that has no hash."""

    by: float = 0.1

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target, label_smoothing=self.by)


def test_a_network_that_gives_no_numbers_classifies_nothing_rightly() -> None:
    x, y = TEST[0].clone(), TEST[1]
    x[y == 0] = torch.nan
    model = network()
    run = nm_ode.train(
        Problem(model, Smoothed(), TRAIN), nm_ode.SGD(lr=0.5), 1, observe=[HeldOut((x, y), chunk_size=5)]
    )
    right = (model(x).argmax(1) == y)[y > 0].sum() / len(y)
    assert float(run.test_accuracy[0]) == pytest.approx(float(right))
    assert np.isnan(run.test_loss).all()


def test_one_observer_serves_two_problems_at_once() -> None:
    """One is a mean and the other a sum over its samples; the samples of both are the same."""

    def objective(model: Any, batch: dict[str, Tensor], reduction: str = "mean") -> Tensor:
        return F.cross_entropy(model(batch["x"]), batch["y"], reduction=reduction)

    held_out, model = HeldOut({"x": TEST[0], "y": TEST[1]}, every=1, chunk_size=5), network()
    mean, total = (
        Problem.from_objective(model, partial(objective, reduction=one), {"x": TRAIN[0], "y": TRAIN[1]})
        for one in ("mean", "sum")
    )
    within: list[Any] = []

    def train_the_other(done: int) -> None:
        within.append(nm_ode.train(total, nm_ode.SGD(lr=1e-3), 1, observe=[held_out]))

    run = nm_ode.train(mean, nm_ode.SGD(lr=0.1), 1, observe=[held_out], on_step=train_the_other)
    wanted = F.cross_entropy(with_theta(model, run.theta.values[-1])(TEST[0]), TEST[1]).detach()
    assert float(run.test_loss[-1]) == pytest.approx(float(wanted), rel=1e-12)
    assert float(within[0].test_loss[0]) == pytest.approx(len(TEST[1]) * float(run.test_loss[0]), rel=1e-12)


def test_a_part_of_prepared_images_is_that_part() -> None:
    x = torch.arange(12 * 4, dtype=torch.uint8, device="cpu").reshape(12, 1, 2, 2)
    y = torch.arange(12, device="cpu") % 2
    source = PreparedSource(TensorSource((x, y)), Preparation((0.5,), (0.25,), Augmentation(pad=1)))
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    problem = Problem(model, F.cross_entropy, source.part(slice(0, 8)))
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), 1, observe=[HeldOut(source.part(slice(8, 12)))])
    wanted = F.cross_entropy(model((x[8:].double() / 255 - 0.5) / 0.25), y[8:]).detach()
    assert float(run.test_loss[0]) == pytest.approx(float(wanted), rel=1e-12)


def test_ignored_labels_are_left_out_of_both() -> None:
    model, (x, y) = network(), TEST
    some = torch.where(torch.arange(23, device="cpu") % 3 == 0, -100, y)
    run = nm_ode.train(
        Problem(model, F.cross_entropy, TRAIN),
        nm_ode.SGD(lr=0.5),
        1,
        observe=[HeldOut((x, some), chunk_size=5)],
    )
    outputs = model(x)[some >= 0].detach()
    assert float(run.test_accuracy[0]) == pytest.approx(
        float((outputs.argmax(1) == some[some >= 0]).double().mean())
    )
    assert float(run.test_loss[0]) == pytest.approx(
        float(F.cross_entropy(outputs, some[some >= 0])), rel=1e-12
    )


@pytest.mark.parametrize("middle", [[], [nn.BatchNorm1d(5)]], ids=["", "BatchNorm"])
def test_any_objective_is_put_together_of_its_chunks(middle: list[nn.Module]) -> None:
    """In eval mode a BatchNorm does not couple the samples, as it does in training."""

    def objective(model: Any, batch: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch["x"]), batch["y"])

    model = network(*middle)
    problem = Problem.from_objective(model, objective, {"x": TRAIN[0], "y": TRAIN[1]})
    test = {"x": TEST[0], "y": TEST[1]}
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.5), 1, observe=[HeldOut(test, chunk_size=5)])
    for norm in (one for one in model if isinstance(one, nn.BatchNorm1d)):
        inputs = model[0](TRAIN[0]).detach()
        norm.running_mean, norm.running_var = inputs.mean(0), inputs.var(0, correction=0)
    model.eval()
    assert float(run.test_loss[0]) == pytest.approx(float(objective(model, test).detach()), rel=1e-12)
    assert "test_accuracy" not in run


def test_a_data_set_is_read_when_it_is_asked_for_and_prepared() -> None:
    x = torch.randint(
        0, 256, (12, 1, 2, 2), dtype=torch.uint8, generator=torch.Generator("cpu").manual_seed(0)
    )
    y, calls = torch.arange(12, device="cpu") % 2, []
    preparation = Preparation((0.5,), (0.25,))

    def read() -> DataSet:
        calls.append(1)
        return DataSet(x, y, preparation=preparation)

    data = DataSet(x, y, preparation=preparation, test=read)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    held_out = HeldOut(data.test)
    assert not calls
    problem = Problem(model, F.cross_entropy, data.source())
    run = nm_ode.train(
        problem, nm_ode.SGD(lr=0.1), 2, observe=[held_out], members=nm_ode.Members(seed=[0, 1])
    )
    assert calls == [1]
    wanted = F.cross_entropy(model((x.double() / 255 - 0.5) / 0.25), y).detach()
    np.testing.assert_allclose(run.test_loss[:, 0], float(wanted), rtol=1e-6)


def test_along_a_flow_it_is_measured_at_each_sample() -> None:
    problem = Problem(network(), F.cross_entropy, TRAIN)
    flow = nm_ode.solve(nm_ode.GradientFlow(problem), t=[0.0, 0.5, 1.0], observe=[HeldOut(TEST)])
    assert flow.test_loss.dims == ("time",)
    assert flow.test_accuracy.shape == (3,)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = nn.BatchNorm1d(3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(torch.tanh(self.norm(x))))


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        (network(), None, "samples that nobody trains on"),
        (network(), (TEST[0][:, :2], TEST[1]), "like those that the run trains on"),
        (network(), (TEST[0], TEST[1] + 5), "labels of no class|target"),
        (Twice().double(), TEST, "more than once"),
    ],
)
def test_what_cannot_be_evaluated_is_said(model: nn.Module, data: Any, said: str) -> None:
    problem = Problem(model, F.cross_entropy, TRAIN)
    with pytest.raises((nm_ode.ArgumentError, nm_ode.ProblemError, DataError), match=said):
        nm_ode.train(problem, nm_ode.SGD(lr=0.1), 2, observe=[HeldOut(data)])
