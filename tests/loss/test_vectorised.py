"""Gradients of many samples and at many points at once: against one at a time."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode
from nm_ode import Problem, ProblemError
from nm_ode.loss import VectorisedWarning
from tests.oracles.networks import MODELS, make

COUPLED = "batch norm, train"


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != COUPLED])
def test_sample_gradients_are_those_of_each_sample(kind: str, chunk_size: int | None) -> None:
    problem, _, theta = make(kind, chunk_size=chunk_size)
    for samples, places in (
        (None, range(11)),
        (torch.tensor([3, 9, 3]), [3, 9, 3]),
        (slice(2, 8, 2), range(2, 8, 2)),
    ):
        each = torch.stack([problem.grad(theta, torch.tensor([i])) for i in places])
        assert_close(problem.sample_grads(theta, samples), each)


@given(
    kind=st.sampled_from(sorted(MODELS)),
    members=st.integers(1, 4),
    batch_size=st.none() | st.integers(2, 9),
    chunk_size=st.none() | st.integers(1, 6),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_an_ensembles_gradients_are_those_of_each_member(
    kind: str, members: int, batch_size: int | None, chunk_size: int | None, seed: int
) -> None:
    problem, _, theta = make(kind, chunk_size=None if kind == COUPLED else chunk_size)
    generator = torch.Generator().manual_seed(seed)
    thetas = theta + 0.1 * torch.randn(members, len(theta), generator=generator, dtype=theta.dtype)
    samples = batch_size and torch.randint(11, (members, batch_size), generator=generator)
    losses, gradients = problem.ensemble_loss_and_grad(thetas, samples)
    for i in range(members):
        loss, gradient = problem.loss_and_grad(thetas[i], None if samples is None else samples[i])
        assert_close(losses[i], loss)
        assert_close(gradients[i], gradient)


@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("kind", MODELS)
def test_an_ensembles_hessian_products_are_those_of_each_member(kind: str, chunk_size: int | None) -> None:
    problem, _, theta = make(kind, chunk_size=None if kind == COUPLED else chunk_size)
    generator = torch.Generator().manual_seed(7)
    thetas, vectors = (
        theta + 0.1 * torch.randn(3, len(theta), generator=generator, dtype=theta.dtype) for _ in range(2)
    )
    products = problem.ensemble_hvp(thetas, vectors)
    assert_close(products, torch.stack([problem.hvp(*pair) for pair in zip(thetas, vectors, strict=True)]))
    assert not products.requires_grad
    assert_close(problem.scaled(3.0).ensemble_hvp(thetas, vectors), 3 * products)


def test_what_torch_derives_wrongly_twice_is_right_for_an_ensemble() -> None:
    """The second derivative of torch's own hardsigmoid is missing: it is written out, for many as for one."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Hardsigmoid(), nn.Linear(4, 2), nn.Hardsigmoid())
    problem = Problem(model, F.mse_loss, (torch.randn(6, 3), torch.randn(6, 2)))
    thetas, vectors = torch.randn(2, 4, problem.layout.size, dtype=torch.float64)
    products = problem.ensemble_hvp(thetas, vectors)
    assert products.norm() > 0.01
    assert_close(products, torch.stack([problem.hvp(*pair) for pair in zip(thetas, vectors, strict=True)]))


def test_a_loss_that_is_linear_in_theta_has_no_curvature_anywhere() -> None:
    problem = Problem.from_objective(nn.Linear(3, 1), lambda model, x: model(x).mean(), torch.randn(6, 3))
    assert not problem.ensemble_hvp(torch.randn(2, 4), torch.randn(2, 4)).any()


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        (((3,), (1, 3)), r"thetas have shape \(3,\)"),
        (((2, 3), (2, 4)), r"vectors have shape \(2, 4\); this problem's have \(members, 3\)"),
        (((2, 3), (1, 3)), "there are 2 thetas and 1 vectors"),
    ],
)
def test_members_and_directions_go_together(shapes: Any, sentence: str) -> None:
    problem = Problem(nn.Linear(2, 1), F.mse_loss, (torch.randn(9, 2), torch.randn(9, 1)))
    with pytest.raises(ProblemError, match=sentence):
        problem.ensemble_hvp(*(torch.randn(shape) for shape in shapes))


def test_a_sum_over_samples_is_one_for_an_ensemble_in_chunks() -> None:
    x, y = torch.randn(9, 2), torch.randn(9, 1)
    problem = Problem(nn.Linear(2, 1), nn.MSELoss(reduction="sum"), (x, y), chunk_size=2)
    thetas = torch.randn(3, 3, dtype=torch.float64)
    for samples in (None, torch.randint(9, (3, 5))):
        losses, gradients = problem.ensemble_loss_and_grad(thetas, samples)
        for i in range(3):
            loss, gradient = problem.loss_and_grad(thetas[i], None if samples is None else samples[i])
            assert_close(losses[i], loss)
            assert_close(gradients[i], gradient)
    products = problem.ensemble_hvp(thetas, thetas)
    assert_close(products, torch.stack([problem.hvp(theta, theta) for theta in thetas]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_have_the_problems_dtype_and_no_graph(dtype: torch.dtype) -> None:
    problem, _, theta = make("mlp", dtype)
    rows = problem.sample_grads(theta)
    losses, gradients = problem.ensemble_loss_and_grad(theta[None].double())
    assert {rows.dtype, losses.dtype, gradients.dtype} == {dtype}
    assert not any(found.requires_grad for found in (rows, losses, gradients))


def test_no_more_samples_than_a_chunk_are_read_at_once() -> None:
    asked = []

    class Counts(nm_ode.data.TensorSource):
        def take(self, indices: Any) -> Any:
            batch = super().take(indices)
            asked.append(len(batch[0]))
            return batch

        def placed(self, device: torch.device, dtype: torch.dtype) -> Any:
            return Counts(super().placed(device, dtype).tree)

    data = Counts((torch.randn(12, 2), torch.randn(12, 1)))
    problem = Problem(nn.Linear(2, 1), F.mse_loss, data, chunk_size=4)
    thetas = problem.theta0.repeat(3, 1)
    asked.clear()
    problem.sample_grads(problem.theta0)
    problem.ensemble_loss_and_grad(thetas, torch.randint(12, (3, 2)))
    problem.ensemble_loss_and_grad(thetas, torch.randint(12, (3, 7)))
    problem.ensemble_loss_and_grad(thetas)
    assert max(asked) == 4


def test_with_batch_statistics_a_sample_has_no_gradient_of_its_own() -> None:
    problem, _, theta = make(COUPLED)
    with pytest.raises(ProblemError, match=r"'1' \(BatchNorm1d\) takes its statistics from the batch"):
        problem.sample_grads(theta)
    with pytest.raises(ProblemError, match="neither the mean nor the sum"):
        nm_ode.gradient_noise(problem, theta, 2)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.inner(x)[0][:, -1])


class Branching(nn.Linear):
    """Python decides by a value, which vmap cannot follow."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out if x.isfinite().all() else 2 * out


@pytest.mark.parametrize(
    ("model", "shape"), [(Recurrent(), (6, 4, 3)), (Branching(3, 2), (6, 3))], ids=["LSTM", "branching"]
)
def test_where_vmap_is_not_possible_it_is_said_once_and_the_numbers_are_the_same(
    model: nn.Module, shape: tuple[int, ...]
) -> None:
    problem = Problem(model, F.mse_loss, (torch.randn(shape), torch.randn(shape[0], 2)))
    theta = problem.theta0 + 0.1
    with pytest.warns(VectorisedWarning, match="one at a time, because"):
        rows = problem.sample_grads(theta)
    each = torch.stack([problem.grad(theta, torch.tensor([i])) for i in range(shape[0])])
    assert_close(rows, each)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_close(problem.sample_grads(theta), each)


def test_products_are_taken_one_at_a_time_too() -> None:
    class OfTheta(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            return out.tanh() if out.isfinite().all() else out

    problem = Problem(OfTheta(3, 2), F.mse_loss, (torch.randn(6, 3), torch.randn(6, 2)))
    thetas = torch.randn(2, 8, dtype=torch.float64)
    with pytest.warns(VectorisedWarning, match="one at a time, because"):
        products = problem.ensemble_hvp(thetas, thetas)
    assert_close(products, torch.stack([problem.hvp(theta, theta) for theta in thetas]))


class Doubled(torch.autograd.Function):
    """2x, without a rule for vmap."""

    @staticmethod
    def forward(x: Any) -> Any:
        return x * 2

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * 2


def test_a_gradient_that_vmap_gets_wrong_is_noticed() -> None:
    class Wrong(Doubled):
        """Its rule for vmap forgets a factor."""

        @staticmethod
        def vmap(info: Any, dims: Any, x: Any) -> Any:
            return x * 1, dims[0]

    class Uses(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return Wrong.apply(super().forward(x))

    problem = Problem(Uses(3, 2), F.mse_loss, (torch.randn(6, 3), torch.randn(6, 2)))
    theta = problem.theta0
    with pytest.warns(VectorisedWarning, match="other gradients"):
        rows = problem.sample_grads(theta)
    assert_close(rows, torch.stack([problem.grad(theta, torch.tensor([i])) for i in range(6)]))
    with pytest.warns(VectorisedWarning, match="other gradients"):
        _, gradients = problem.ensemble_loss_and_grad(torch.stack([theta, 2 * theta]))
    assert_close(gradients, torch.stack([problem.grad(theta), problem.grad(2 * theta)]))


def test_a_batching_rule_that_is_right_for_the_first_member_alone_is_noticed() -> None:
    class RightOnce(Doubled):
        @staticmethod
        def vmap(info: Any, dims: Any, x: Any) -> Any:
            scale = torch.ones(info.batch_size, dtype=x.dtype)
            scale[0] = 2
            return x.movedim(dims[0], -1) * scale, x.ndim - 1

    class Uses(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return RightOnce.apply(super().forward(x))

    problem = Problem(Uses(3, 2), F.mse_loss, (torch.randn(6, 3), torch.randn(6, 2)))
    thetas = problem.theta0 * torch.tensor([[1.0], [2.0], [3.0]])
    with pytest.warns(VectorisedWarning, match="other gradients"):
        _, gradients = problem.ensemble_loss_and_grad(thetas)
    assert_close(gradients, torch.stack([problem.grad(theta) for theta in thetas]))


class Padded(nn.Module):
    """Of tokens, of which 0 is padding: its row of the embedding never moves."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(5, 3, padding_idx=0), nn.Linear(3, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.embedding(tokens).mean(dim=1)).tanh()


def test_embeddings_with_padding() -> None:
    """Torch pads the first member's weights alone; whether a batch has padding in it is no matter of luck."""
    torch.manual_seed(0)
    tokens = torch.randint(1, 5, (6, 4))
    tokens[4:, 2:] = 0
    problem = Problem(Padded(), F.mse_loss, (tokens, torch.randn(6, 1)))
    thetas = problem.theta0 * torch.tensor([[1.0], [2.0], [3.0]])
    _, gradients = problem.ensemble_loss_and_grad(thetas)  # of the same tokens for all, which is another rule
    assert_close(gradients, torch.stack([problem.grad(theta) for theta in thetas]))
    without, with_padding = torch.tensor([[0, 1], [1, 2], [2, 3]]), torch.tensor([[0, 4], [5, 2], [4, 5]])
    with pytest.warns(VectorisedWarning, match="padding_idx"):
        problem.ensemble_loss_and_grad(thetas, without)
    _, gradients = problem.ensemble_loss_and_grad(thetas, with_padding)
    each = zip(thetas, with_padding, strict=True)
    assert_close(gradients, torch.stack([problem.grad(theta, own) for theta, own in each]))


def test_an_error_of_the_models_own_comes_out_as_itself() -> None:
    class Fails(nn.Linear):
        fails = False

        def forward(self, x: Tensor) -> Tensor:
            if self.fails:
                raise OSError("no such shard")
            return super().forward(x)

    problem = Problem(Fails(3, 2), F.mse_loss, (torch.randn(6, 3), torch.randn(6, 2)))
    problem.model.fails = True
    with pytest.raises(OSError, match="no such shard"):
        problem.sample_grads(problem.theta0)


def test_shapes_that_do_not_go_together_are_named(tiny: Problem) -> None:
    thetas = tiny.theta0.repeat(3, 1)
    with pytest.raises(ProblemError, match="thetas have shape"):
        tiny.ensemble_loss_and_grad(tiny.theta0)
    with pytest.raises(ProblemError, match="samples have shape"):
        tiny.ensemble_loss_and_grad(thetas, torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(ProblemError, match="theta has shape"):
        tiny.sample_grads(thetas)
    with pytest.raises(ProblemError, match="no samples"):
        tiny.sample_grads(tiny.theta0, slice(0, 0))


@pytest.mark.parametrize(
    "optimizer",
    [
        nm_ode.SGD(lr=0.05),
        nm_ode.SGD(lr=0.05, momentum=0.9, dampening=0.3, weight_decay=0.01),
        nm_ode.SGD(lr=0.05, momentum=0.9, nesterov=True),
        nm_ode.Adam(lr=0.05, weight_decay=0.1),
        nm_ode.AdamW(lr=0.05),
    ],
    ids=lambda optimizer: nm_ode.optimizers.describe(optimizer),
)
def test_an_ensemble_ends_where_its_members_end_one_by_one(optimizer: Any, tiny: Problem) -> None:
    steps, batch_size, members = 7, 3, 4
    found = nm_ode.sgd_ensemble(tiny, optimizer, steps, batch_size=batch_size, members=members, seed=8)
    generator, ends = torch.Generator().manual_seed(8), []
    for _ in range(members):
        state = None
        for _ in range(steps):
            batch = torch.randint(tiny.n_samples, (batch_size,), generator=generator)
            if state is None:
                state = optimizer.init(tiny.theta0, tiny.grad(tiny.theta0, batch))
            state = state + optimizer.increment(state, tiny.grad(state[: tiny.layout.size], batch))
        ends.append(state[: tiny.layout.size])
    torch.testing.assert_close(
        torch.from_numpy(found["theta"].values), torch.stack(ends), rtol=1e-10, atol=1e-12
    )
    none = nm_ode.sgd_ensemble(tiny, optimizer, 0, batch_size=2, members=2)["theta"].values
    assert (none == tiny.theta0.numpy()).all()


@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("kind", ["mlp", "tied", COUPLED])
def test_an_ensembles_losses_are_those_of_each_member(kind: str, chunk_size: int | None) -> None:
    problem, _, theta = make(kind, chunk_size=None if kind == COUPLED else chunk_size)
    generator = torch.Generator().manual_seed(7)
    thetas = theta + 0.1 * torch.randn(3, len(theta), generator=generator, dtype=theta.dtype)
    losses = problem.ensemble_loss(thetas)
    assert_close(losses, torch.stack([problem.loss(one) for one in thetas]))
    assert not losses.requires_grad
    with pytest.raises(ProblemError, match="members"):
        problem.ensemble_loss(theta)


def test_many_gradients_at_once_gain_where_each_is_little_work() -> None:
    problem = make("mlp")[0]
    assert problem.many_are_faster(1)
    assert not problem.many_are_faster(10**9)
