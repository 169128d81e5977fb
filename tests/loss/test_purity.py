"""A loss is a function of theta: what a forward pass writes or remembers is refused, or does no harm."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nm_ode import Problem, ProblemError
from tests.loss.doing import Doing, X, Y, around, assert_trains_as_torch_does


def rebound(m: Doing, out: Tensor) -> None:
    m.weight.data = torch.renorm(m.weight.data, 2, 0, 0.1)


def bias_rebound(m: Doing, out: Tensor) -> None:
    m.bias.data = m.bias.data - m.bias.data.mean()


def multiplied(m: Doing, out: Tensor) -> None:
    m.weight.data.mul_(0.99)


def clamped(m: Doing, out: Tensor) -> None:
    with torch.no_grad():
        m.weight.clamp_(-0.1, 0.1)


def clamped_without_effect_here(m: Doing, out: Tensor) -> None:
    with torch.no_grad():
        m.weight.clamp_(-50.0, 50.0)


def written_by_numpy(m: Doing, out: Tensor) -> None:
    m.weight.detach().numpy()[:] *= 0.99


def replaced(m: Doing, out: Tensor) -> None:
    m.weight = nn.Parameter(m.weight.detach().clone())


def bounded_at_twice_the_start(m: Doing, out: Tensor) -> None:
    if m.weight.detach().norm() > 1.5:
        m.weight.data.mul_(1.5 / m.weight.detach().norm())


WRITES_THETA = [
    rebound,
    bias_rebound,
    multiplied,
    clamped,
    clamped_without_effect_here,
    written_by_numpy,
    replaced,
    bounded_at_twice_the_start,
]


@pytest.mark.parametrize("also", WRITES_THETA, ids=lambda f: f.__name__)
def test_a_layer_that_writes_its_parameters_is_refused_by_name(also: Any) -> None:
    with pytest.raises(ProblemError, match=r"(?=.*'(weight|bias)')(?=.*'2' .Doing.)"):
        Problem(around(Doing(also)), F.mse_loss, (X, Y))


def test_a_hook_that_writes_a_parameter_is_refused() -> None:
    layer = nn.Linear(8, 2)

    def clamp(module: nn.Linear, inputs: Any) -> None:
        module.weight.data.clamp_(-0.1, 0.1)

    layer.register_forward_pre_hook(clamp)
    with pytest.raises(ProblemError, match=r"'2' .Linear. changes its parameter 'weight'"):
        Problem(around(layer), F.mse_loss, (X, Y))


def far_out_rebound(m: Doing, out: Tensor) -> None:
    if m.weight.detach().norm() > 20:
        m.weight.data = m.weight.data * (20 / m.weight.data.norm())


def far_out_in_place(m: Doing, out: Tensor) -> None:
    if m.weight.detach().norm() > 20:
        m.weight.data.mul_(20 / m.weight.data.norm())


@pytest.mark.parametrize("also", [far_out_rebound, far_out_in_place], ids=lambda f: f.__name__)
@pytest.mark.parametrize("quantity", ["loss", "grad", "hvp", "third_derivative", "sample_grads"])
def test_a_write_that_happens_only_far_away_is_refused_there(also: Any, quantity: str) -> None:
    problem = Problem(around(Doing(also)), F.mse_loss, (X, Y))
    near, far = problem.loss(problem.theta0), problem.theta0 * 100
    more = (far,) if quantity in ("hvp", "third_derivative") else ()
    with pytest.raises(ProblemError, match=r"'2' .Doing. changes its parameter 'weight'"):
        getattr(problem, quantity)(far, *more)
    assert problem.loss(problem.theta0) == near


def test_every_parameter_is_looked_at_when_theta_is_set() -> None:
    problem = Problem(around(nn.Linear(8, 2)), F.mse_loss, (X, Y))
    expected = problem.grad(problem.theta0)
    problem.model[2].weight.data = torch.zeros(
        2, 8, dtype=torch.float64
    )  # the first parameter is where it was
    assert torch.equal(problem.grad(problem.theta0), expected)


def moving_average(m: Doing, out: Tensor) -> Tensor:
    m.mean = 0.9 * m.mean + 0.1 * out.detach().mean(0)
    return -m.mean


def moving_average_in_place(m: Doing, out: Tensor) -> Tensor:
    m.mean.mul_(0.9).add_(0.1 * out.detach().mean(0))
    return -m.mean


def counted(m: Doing, out: Tensor) -> Tensor:
    m.calls += 1
    return out if m.calls > 10_000 else 0 * out


def remembers_the_last(m: Doing, out: Tensor) -> Tensor:
    last, m.last = m.last, float(out.detach().norm())
    return out * last


def remembers_all(m: Doing, out: Tensor) -> Tensor:
    m.all.append(out.detach())
    return m.all[-2] if len(m.all) > 1 else 0 * out


REMEMBERS: list[Any] = [
    (moving_average, {"mean": torch.zeros(2)}, "buffer 'mean'"),
    (moving_average_in_place, {"mean": torch.zeros(2)}, "buffer 'mean'"),
    (moving_average, {"mean": 0.0}, "attribute 'mean'"),
    (counted, {"calls": 0}, "attribute 'calls'"),
    (counted, {"calls": torch.tensor(0)}, "buffer 'calls'"),
    (remembers_the_last, {"last": 0.0}, "depends on the evaluations before"),
    (remembers_all, {"all": []}, "depends on the evaluations before"),
]


@pytest.mark.parametrize(("also", "attributes", "reason"), REMEMBERS)
def test_a_pass_that_reads_what_another_wrote_is_refused(also: Any, attributes: Any, reason: str) -> None:
    with pytest.raises(ProblemError, match=reason):
        Problem(around(Doing(also, **copy.deepcopy(attributes))), F.mse_loss, (X, Y))


def test_spectral_normalisation_is_refused_in_train_mode_and_welcome_in_eval_mode() -> None:
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 2))
    with pytest.raises(ProblemError, match=r"_SpectralNorm.*buffer '_u'.*eval"):
        Problem(around(layer), F.mse_loss, (X, Y))
    assert_trains_as_torch_does(around(layer).eval())


def running_statistics(m: Doing, out: Tensor) -> Tensor:
    mean = out.mean(0)
    m.mean.mul_(0.9).add_(0.1 * mean.detach())
    m.batches += 1
    return -mean


def calls_for_the_record(m: Doing, out: Tensor) -> Tensor:
    m.calls += 1
    m.seen = out
    return 0 * out


def table_made_once(m: Doing, out: Tensor) -> Tensor:
    if m.table is None or len(m.table) < len(out):
        m.table = torch.linspace(0, 1, len(out), dtype=out.dtype)
    return out * m.table[: len(out), None]


class Scratch(nn.Linear):
    """Writes to a buffer before it reads it."""

    def __init__(self) -> None:
        super().__init__(8, 2)
        self.register_buffer("scratch", torch.zeros(64, 2, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        self.scratch[: len(x)].copy_(x[:, :2].detach())
        return super().forward(x) + self.scratch[: len(x)].clone()


HARMLESS: list[Any] = [
    lambda: Doing(running_statistics, mean=torch.zeros(2), batches=torch.tensor(0)),
    lambda: Doing(calls_for_the_record, calls=0),
    lambda: Doing(table_made_once, table=None),
    lambda: nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 2)),
    lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 2)),
    lambda: nn.utils.parametrizations.orthogonal(nn.Linear(8, 2)),
    Scratch,
]


@pytest.mark.parametrize("layer", HARMLESS)
def test_what_is_written_and_never_read_does_no_harm(layer: Any) -> None:
    assert_trains_as_torch_does(around(layer()))


@pytest.mark.parametrize(
    "keep", [lambda w: w, lambda w: [w], lambda w: {"w": w}], ids=["tensor", "list", "dict"]
)
@pytest.mark.parametrize("second", [torch.Tensor.detach, lambda w: w.detach()[1:].t()])
def test_a_second_name_for_a_parameters_memory_is_refused(keep: Any, second: Any) -> None:
    """The original's would follow its optimizer, the copy's would stay."""
    model = around(nn.Linear(8, 2))
    model[0].held = keep(second(model[0].weight))
    with pytest.raises(ProblemError, match=r"0.held.* lies in the memory of parameter '0.weight'"):
        Problem(model, F.mse_loss, (X, Y))
    model[0].held = keep(second(model[0].weight).clone())
    assert_trains_as_torch_does(model)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_a_checkpoint_that_torch_cannot_take_the_gradient_of_is_refused() -> None:
    def checkpointed(reentrant: bool) -> nn.Module:
        return around(Doing(lambda m, out: checkpoint(torch.tanh, out, use_reentrant=reentrant)))

    with pytest.raises(ProblemError, match="use_reentrant=False"):
        Problem(checkpointed(True), F.mse_loss, (X, Y))
    assert_trains_as_torch_does(checkpointed(False))
