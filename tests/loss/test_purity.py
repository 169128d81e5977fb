"""A loss is a function of theta: what a forward pass writes, draws or remembers is refused, or does no harm."""

from __future__ import annotations

import copy
import functools
import random
import uuid
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import nm_ode
from nm_ode import Problem, ProblemError

GENERATOR = torch.Generator().manual_seed(7)
X = torch.randn(24, 4, dtype=torch.float64, generator=GENERATOR)
Y = torch.randn(24, 2, dtype=torch.float64, generator=GENERATOR)
DRAWN = torch.Generator()
NUMPY = np.random.default_rng(0)


def around(last: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = nn.Linear(4, 8)
        for parameter in last.parameters():
            if parameter.requires_grad:
                nn.init.uniform_(parameter, -0.3, 0.3)
    return nn.Sequential(first, nn.Tanh(), last).double()


class Doing(nn.Linear):
    """A linear layer that does something else in its forward pass, and may add to what comes out."""

    def __init__(self, also: Callable[[Any, Tensor], Any], **attributes: Any) -> None:
        super().__init__(8, 2)
        self.also = also
        for name, value in attributes.items():
            if isinstance(value, Tensor):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        more = self.also(self, out)
        return super().forward(x) if more is None else out + more


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


def assert_trains_as_torch_does(model: nn.Module) -> None:
    problem = Problem(model, F.mse_loss, (X, Y))
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=20)
    reference = copy.deepcopy(model)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        F.mse_loss(reference(X), Y).backward()
        optimizer.step()
    assert float(run.full_loss[-1]) == pytest.approx(float(F.mse_loss(reference(X), Y).detach()), rel=1e-9)


@pytest.mark.parametrize("layer", HARMLESS)
def test_what_is_written_and_never_read_does_no_harm(layer: Any) -> None:
    assert_trains_as_torch_does(around(layer()))


class Held:
    """Something that has a generator."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(3)


DRAWS: list[Any] = [
    (lambda m, out: torch.rand(()) < 0.1, {}),
    (lambda m, out: F.dropout(torch.ones(1), 0.5), {}),
    (lambda m, out: np.random.rand(), {}),  # noqa: NPY002
    (lambda m, out: random.random(), {}),
    (lambda m, out: m.rng.random(), {"rng": np.random.default_rng(0)}),
    (lambda m, out: m.rngs["first"][0].random(), {"rngs": {"first": [np.random.default_rng(0)]}}),
    (lambda m, out: m.rng.rand(), {"rng": np.random.RandomState(0)}),
    (lambda m, out: m.rng.random(), {"rng": random.Random(0)}),
    (lambda m, out: m.held.rng.random(), {"held": Held()}),
    (lambda m, out: torch.rand(1, generator=m.rng), {"rng": torch.Generator()}),
    (lambda m, out: torch.rand(1, generator=DRAWN), {}),
    (lambda m, out: NUMPY.random(), {}),
]


@pytest.mark.parametrize(("draw", "attributes"), DRAWS)
def test_a_layer_that_draws_is_refused_though_the_number_has_no_effect(draw: Any, attributes: Any) -> None:
    layer = Doing(lambda m, out: (draw(m, out), None)[1], **attributes)
    with pytest.raises(ProblemError, match=r"the loss is random: module '2' .Doing. draws"):
        Problem(around(layer), F.mse_loss, (X, Y))


def forked(m: Doing, out: Tensor) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.rand(1)


def seeded_fork(m: Doing, out: Tensor) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return 0 * out + torch.rand(2, dtype=out.dtype)


OUT_OF_SIGHT: list[Callable[[Any, Tensor], Any]] = [
    lambda m, out: np.random.default_rng().random(),
    lambda m, out: random.Random().random(),
    lambda m, out: random.SystemRandom().random(),
    lambda m, out: uuid.uuid4(),
    lambda m, out: torch.rand(1, generator=unseeded()),
    forked,
]


def unseeded() -> torch.Generator:
    generator = torch.Generator()
    generator.seed()
    return generator


@pytest.mark.parametrize("draw", OUT_OF_SIGHT)
def test_generators_that_a_pass_makes_or_puts_back_are_found(draw: Any) -> None:
    layer = Doing(lambda m, out: (draw(m, out), None)[1])
    with pytest.raises(ProblemError, match="the loss is random"):
        Problem(around(layer), F.mse_loss, (X, Y))


@pytest.mark.parametrize(
    "draw",
    [
        seeded_fork,
        lambda m, out: torch.rand(2, generator=torch.Generator().manual_seed(3), dtype=out.dtype) + 0 * out,
        lambda m, out: 0 * out + np.random.default_rng(3).random(),
        lambda m, out: 0 * out + random.Random(3).random(),
        lambda m, out: F.dropout(out, 0.0),
    ],
)
def test_what_is_drawn_from_a_fixed_seed_is_a_constant(draw: Any) -> None:
    assert_trains_as_torch_does(around(Doing(draw)))


def test_a_loss_that_draws_is_named() -> None:
    with pytest.raises(ProblemError, match="the loss function draws"):
        Problem(around(nn.Linear(8, 2)), lambda o, t: F.mse_loss(F.dropout(o, 1e-9), t), (X, Y))


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


def test_a_buffer_or_a_loss_with_a_second_name_is_refused() -> None:
    model = around(nn.Linear(8, 2))
    weight = model[0].weight.detach()
    with pytest.raises(ProblemError, match=r"'0.weight'"):
        Problem(model, lambda o, t: F.mse_loss(o, t) + weight.square().sum(), (X, Y))
    model[0].register_buffer("held", weight)
    with pytest.raises(ProblemError, match=r"'0.weight'"):
        Problem(model, F.mse_loss, (X, Y))


def test_a_penalty_on_the_parameters_of_the_original_is_refused() -> None:
    model = around(nn.Linear(8, 2))
    with pytest.raises(ProblemError, match="not in theta"):
        Problem(
            model, lambda o, t: F.mse_loss(o, t) + sum(p.square().sum() for p in model.parameters()), (X, Y)
        )
    frozen = copy.deepcopy(model).requires_grad_(False)
    Problem(model, lambda o, t: F.mse_loss(o, t) + F.mse_loss(o, frozen(X[: len(o)])), (X, Y))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_a_checkpoint_that_torch_cannot_take_the_gradient_of_is_refused() -> None:
    def checkpointed(reentrant: bool) -> nn.Module:
        return around(Doing(lambda m, out: checkpoint(torch.tanh, out, use_reentrant=reentrant)))

    with pytest.raises(ProblemError, match="use_reentrant=False"):
        Problem(checkpointed(True), F.mse_loss, (X, Y))
    assert_trains_as_torch_does(checkpointed(False))


def test_a_scripted_loss_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit's own
        scripted = torch.jit.script(nn.MSELoss())
    with pytest.raises(ProblemError, match=r"torch\.jit"):
        Problem(around(nn.Linear(8, 2)), scripted, (X, Y))


def test_a_branch_that_is_dropped_rarely_is_refused_for_every_seed() -> None:
    rarely = Doing(lambda m, out: 0 * out if torch.rand(()) < 0.1 else out)
    for seed in range(20):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            with pytest.raises(ProblemError, match="random"):
                Problem(around(rarely), F.mse_loss, (X, Y))


def test_a_generator_that_is_held_and_not_drawn_from_is_welcome() -> None:
    assert_trains_as_torch_does(around(Doing(lambda m, out: None, rng=np.random.default_rng(0))))


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_the_callers_generators_stay_where_they_are(rate: float) -> None:
    def loss(out: Tensor, y: Tensor) -> Tensor:
        drawn = random.random() + np.random.rand() + torch.rand(()) if rate else 0.0  # noqa: NPY002
        return F.mse_loss(out, y) + rate * drawn

    model = around(nn.Linear(8, 2))
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    try:
        Problem(model, loss, (X, Y))
    except ProblemError as error:
        assert "random" in str(error)  # noqa: PT017
    after = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_data_that_are_drawn_as_they_are_read_are_refused() -> None:
    class Augmented(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 24

        def __getitem__(self, i: int) -> Any:
            return X[i] + 0 * torch.rand(4), Y[i]

    with pytest.raises(ProblemError, match="the loss is random: reading"):
        Problem(around(nn.Linear(8, 2)), F.mse_loss, Augmented(), chunk_size=24)


class Scaled(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, out: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(out * self.scale, y)


def test_a_loss_with_parameters_of_its_own_is_refused_unless_they_are_frozen() -> None:
    with pytest.raises(ProblemError, match="trainable parameter 'scale'"):
        Problem(nn.Linear(4, 2), Scaled(), (X, Y))
    problem = Problem(nn.Linear(4, 2), Scaled().requires_grad_(False), (X, Y))
    assert problem.layout.size == 10


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_tensors_of_a_loss_follow_the_problems_dtype(dtype: torch.dtype) -> None:
    weight, classes = torch.tensor([1.0, 3.0]), torch.arange(24) % 2
    model = nn.Linear(4, 2)
    output = copy.deepcopy(model).to(dtype)(X.to(dtype))
    expected = float(F.cross_entropy(output, classes, weight=weight.to(dtype)).detach())
    for other in (torch.float32, torch.float64):
        module = nn.CrossEntropyLoss(weight=weight.to(other))
        for loss in (
            module,
            module.forward,
            functools.partial(module),
            functools.partial(F.cross_entropy, weight=weight.to(other)),
        ):
            problem = Problem(model, loss, (X, classes), dtype=dtype)
            assert float(problem.loss(problem.theta0)) == pytest.approx(expected, rel=1e-6)
        assert module.weight.dtype == other  # the caller's own stays
    with pytest.raises(ProblemError, match="float64 here"):
        Problem(model, lambda out, y: F.cross_entropy(out, y, weight=weight), (X, classes))
