"""Losses of anything: token ids, several inputs, masks in dicts, outputs that are dataclasses. Against plain torch."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode
from nm_ode import Problem, ProblemError
from nm_ode.data import DataSet, Preparation
from nm_ode.loss.noise import gradient_noise
from nm_ode.loss.nonsmooth import kinks, sides


class LanguageModel(nn.Module):
    """A causal transformer on token ids, (n, length) to logits (n, length, vocabulary)."""

    def __init__(self, vocabulary: int = 7, length: int = 5, dim: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.position = nn.Parameter(0.1 * torch.randn(length, dim))
        self.block = nn.TransformerEncoderLayer(dim, 2, 12, 0.0, "gelu", batch_first=True, norm_first=True)
        self.head = nn.Linear(dim, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], dtype=x.dtype)
        return self.head(self.block(x, src_mask=mask, is_causal=True))


def next_token(model: Any, tokens: Tensor) -> Tensor:
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.text, self.out = nn.Linear(4, 3), nn.Embedding(5, 3), nn.Linear(3, 2)

    def forward(self, image: Tensor, words: Tensor) -> Tensor:
        return self.out(torch.tanh(self.image(image) * self.text(words).mean(dim=1)))


def of_two_inputs(model: Any, batch: Any) -> Tensor:
    (image, words), y = batch
    return F.mse_loss(model(image, words), y)


def masked(model: Any, batch: Any) -> Tensor:
    """Mean square over the entries that the mask keeps, sample by sample."""
    wrong = torch.where(batch["mask"], model(batch["x"]) - batch["y"], 0.0)
    return (wrong.square().sum(dim=1) / batch["mask"].sum(dim=1)).mean()


@dataclass
class Output:
    value: Tensor
    loss: Tensor


class WithLoss(nn.Module):
    """A model that computes its own loss, as those of language libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2))

    def forward(self, x: Tensor, labels: Tensor) -> Output:
        logits = self.layers(x)
        return Output(logits, F.cross_entropy(logits, labels))


class OfPixels(nn.Linear):
    """Linear in images of uint8."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image.flatten(1).to(self.weight.dtype) / 255)


@dataclass(frozen=True)
class Labelled:
    x: Tensor
    labels: Tensor


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def labels(n: int, *shape: int) -> Tensor:
    return torch.randint(0, n, shape)


KINDS: dict[str, Callable[[], tuple[nn.Module, Callable[[Any, Any], Tensor], Any]]] = {
    "language model": lambda: (LanguageModel(), next_token, labels(7, 12, 5)),
    "two inputs": lambda: (TwoInputs(), of_two_inputs, ((drawn(12, 4), labels(5, 12, 3)), drawn(12, 2))),
    "dict with mask": lambda: (
        nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 6)),
        masked,
        {"x": drawn(12, 4), "y": drawn(12, 6), "mask": (torch.arange(72) % 7 != 0).reshape(12, 6)},
    ),
    "dataclasses": lambda: (
        WithLoss(),
        lambda model, batch: model(batch.x, batch.labels).loss,
        Labelled(drawn(12, 4), labels(2, 12)),
    ),
    "images in uint8": lambda: (
        OfPixels(16, 3),
        lambda model, batch: F.cross_entropy(model(batch["image"]), batch["label"]),
        {"image": labels(256, 12, 4, 4).to(torch.uint8), "label": labels(3, 12)},
    ),
}


def of(kind: str, **options: Any) -> tuple[Problem, Callable[[Tensor, Tensor | None], Tensor]]:
    """The problem, and its loss at theta over samples by plain torch on the caller's own model."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model, objective, data = KINDS[kind]()
    own = copy.deepcopy(model).double()

    def take(data: Any, samples: Tensor) -> Any:
        if isinstance(data, Labelled):
            return Labelled(data.x[samples], data.labels[samples])
        if isinstance(data, dict):
            return {name: take(part, samples) for name, part in data.items()}
        return tuple(take(part, samples) for part in data) if isinstance(data, tuple) else data[samples]

    def loss(theta: Tensor, samples: Tensor | None = None) -> Tensor:
        nn.utils.vector_to_parameters(theta, own.parameters())
        return objective(own, take(data, torch.arange(12) if samples is None else samples))

    loss.model = own  # type: ignore[attr-defined]
    return Problem.from_objective(model, objective, data, **options), loss


def plain_gradient(loss: Any, theta: Tensor, samples: Tensor | None = None) -> Tensor:
    return nn.utils.parameters_to_vector(
        torch.autograd.grad(loss(theta, samples), list(loss.model.parameters()))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_loss_gradient_and_curvature_equal_plain_torch(kind: str) -> None:
    problem, loss = of(kind)
    theta = problem.theta0 + 0.1 * torch.linspace(-1, 1, problem.layout.size, dtype=torch.float64)
    few = torch.tensor([3, 1, 7])
    for samples in (None, few):
        value, gradient = problem.loss_and_grad(theta, samples)
        torch.testing.assert_close(value, loss(theta, samples).detach(), rtol=1e-12, atol=0)
        torch.testing.assert_close(gradient, plain_gradient(loss, theta, samples), rtol=1e-10, atol=1e-13)
    v, h = torch.linspace(1, -1, problem.layout.size, dtype=torch.float64), 1e-4
    difference = sum(
        w * plain_gradient(loss, theta + i * h * v)
        for i, w in ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))
    )
    torch.testing.assert_close(problem.hvp(theta, v), difference / h, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk_size", [1, 5])
def test_chunks_change_nothing_but_rounding(kind: str, chunk_size: int) -> None:
    (whole, _), (chunked, _) = of(kind), of(kind, chunk_size=chunk_size)
    theta = whole.theta0 * 1.1
    for one, other in zip(whole.loss_and_grad(theta), chunked.loss_and_grad(theta), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(whole.hvp(theta, theta), chunked.hvp(theta, theta), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_sample_and_ensemble_gradients_equal_plain_torch(kind: str) -> None:
    problem, loss = of(kind)
    theta, samples = problem.theta0, torch.tensor([4, 4, 0])
    each = torch.stack([plain_gradient(loss, theta, samples[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(problem.sample_grads(theta, samples), each, rtol=1e-10, atol=1e-13)
    thetas, batches = torch.stack([theta, theta * 1.2]), torch.tensor([[1, 2, 3], [4, 5, 4]])
    losses, gradients = problem.ensemble_loss_and_grad(thetas, batches)
    for i in range(2):
        torch.testing.assert_close(losses[i], loss(thetas[i], batches[i]).detach(), rtol=1e-12, atol=0)
        torch.testing.assert_close(
            gradients[i], plain_gradient(loss, thetas[i], batches[i]), rtol=1e-10, atol=1e-13
        )


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_trained_its_flow_solved_and_both_compared(kind: str) -> None:
    problem, loss = of(kind)
    optimizer = nm_ode.SGD(lr=0.02)
    run = nm_ode.train(problem, optimizer, 6)
    theta = problem.theta0
    for _ in range(6):
        theta = theta - 0.02 * plain_gradient(loss, theta)
    torch.testing.assert_close(torch.from_numpy(run["theta"].values[-1]), theta, rtol=1e-10, atol=1e-13)
    errors = [
        float(nm_ode.compare(run, nm_ode.solve(flow, run))["relative_error"][-1])
        for flow in (nm_ode.GradientFlow(problem), nm_ode.modified_flow(problem, optimizer, order=2))
    ]
    assert 0 < errors[1] < errors[0] / 10 < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_integers_stay_what_they_are(kind: str) -> None:
    problem, _ = of(kind, dtype=torch.float32)
    given = KINDS[kind]()[2]
    leaves = torch.utils._pytree.tree_leaves
    values = (lambda data: [data.x, data.labels]) if isinstance(given, Labelled) else leaves
    for before, after in zip(values(given), values(problem.batch()), strict=True):
        assert after.dtype == (torch.float32 if before.is_floating_point() else before.dtype)
    assert problem.grad(problem.theta0).dtype == torch.float32


def test_a_mask_that_does_not_depend_on_theta_is_no_kink() -> None:
    assert kinks(of("dict with mask")[0]) == ()
    assert kinks(of("language model")[0]) == ()

    def clipped(model: Any, batch: Any) -> Tensor:
        out = model(batch["x"])
        return torch.where(out.detach() > 0, out, 0.0).mean()

    model, _, data = KINDS["dict with mask"]()
    problem = Problem.from_objective(model, clipped, data)
    assert kinks(problem) == ("where",)
    assert [side.numel() for side in sides(problem, problem.theta0)] == [72]


def test_an_objective_that_is_a_module_is_copied() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.tensor([1.0, 2.0], dtype=torch.float64))

        def forward(self, model: Any, batch: Any) -> Tensor:
            return (model(batch).square() * self.weight).mean()

    objective = Weighted()
    problem = Problem.from_objective(nn.Linear(4, 2), objective, drawn(5, 4))
    before = problem.loss(problem.theta0)
    objective.weight.mul_(3)
    assert problem.loss(problem.theta0) == before
    assert problem.layout.size == 10


def test_what_is_no_loss_of_the_model_is_refused() -> None:
    model = nn.Linear(4, 2, dtype=torch.float64)
    cases: list[tuple[Any, str]] = [
        (lambda _, x: model(x).square().mean(), "does not depend on the model"),
        (lambda copied, x: copied(x).detach().mean(), "does not depend on the model"),
        (lambda copied, x: copied(x), r"objective returns shape \(5, 2\)"),
        (lambda copied, x: float(copied(x).mean()), "objective returns float"),
        (lambda copied, x: copied(x).mean() * torch.rand(()), "the loss is random"),
    ]
    for objective, reason in cases:
        with pytest.raises(ProblemError, match=reason):
            Problem.from_objective(model, objective, drawn(5, 4))


def test_only_the_short_form_has_a_loss_function_inputs_and_targets(tiny: Problem) -> None:
    problem, _ = of("two inputs")
    assert problem.loss_fn is None
    with pytest.raises(ProblemError, match="x and y"):
        problem.x  # noqa: B018
    x, y = tiny.batch()
    assert tiny.loss_fn is F.mse_loss
    assert tiny.x is x
    assert tiny.y is y
    assert tiny.objective(tiny.model, (x, y)) == F.mse_loss(tiny.model(x), y)


def test_gradient_noise_of_a_loss_that_is_no_mean_is_refused() -> None:
    def over_all_kept(model: Any, batch: Any) -> Tensor:
        wrong = torch.where(batch["mask"], model(batch["x"]) - batch["y"], 0.0)
        return wrong.square().sum() / batch["mask"].sum()

    model, _, data = KINDS["dict with mask"]()
    problem = Problem.from_objective(model, over_all_kept, data)
    with pytest.raises(ProblemError, match="neither the mean nor the sum"):
        gradient_noise(problem, problem.theta0, 2)


def test_gradient_noise_of_a_sum_grows_with_the_batch() -> None:
    x, y = drawn(9, 2), drawn(9, 1)
    mean, total = (Problem(nn.Linear(2, 1), nn.MSELoss(reduction=r), (x, y)) for r in ("mean", "sum"))
    theta, size = mean.theta0, 3
    generator = torch.Generator().manual_seed(0)
    draws = torch.randint(9, (4000, size), generator=generator)
    drawn_gradients = torch.stack([total.grad(theta, batch) for batch in draws])
    noise = gradient_noise(total, theta, size)
    assert noise.total == pytest.approx(float(drawn_gradients.var(dim=0).sum()), rel=0.1)
    assert noise.total == pytest.approx(size**2 * gradient_noise(mean, theta, size).total)


class Pair(NamedTuple):
    left: Any
    right: Any


def nested(parts: tuple[Tensor, Tensor]) -> st.SearchStrategy[tuple[Any, Callable[[Any], Any]]]:
    """Trees that hold both parts among others, and how to find them."""

    def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        more = torch.arange(6)
        return st.one_of(
            inner.map(lambda t: ({"in": t[0], "id": more}, lambda b: t[1](b["in"]))),
            inner.map(lambda t: ([more, t[0]], lambda b: t[1](b[1]))),
            inner.map(lambda t: ((t[0],), lambda b: t[1](b[0]))),
            inner.map(lambda t: (Pair(more, t[0]), lambda b: t[1](b.right))),
            inner.map(lambda t: (Labelled(t[0], more), lambda b: t[1](b.x))),
            inner.map(lambda t: (Output(more, t[0]), lambda b: t[1](b.loss))),
        )

    return st.recursive(st.just((parts, lambda b: b)), grown, max_leaves=5)


def small_model() -> tuple[nn.Module, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x, y = (torch.randn(6, k, generator=generator, dtype=torch.float64) for k in (3, 2))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 2), nn.Tanh()), x, y


@functools.cache
def short_form(chunk_size: int | None) -> Problem:
    model, x, y = small_model()
    return Problem(model, F.mse_loss, (x, y), chunk_size=chunk_size)


@given(data=st.data(), chunk_size=st.sampled_from([None, 1, 4]))
@settings(max_examples=60, deadline=None)
def test_a_nested_batch_gives_what_the_short_form_gives(data: st.DataObject, chunk_size: int | None) -> None:
    model, x, y = small_model()
    tree, find = data.draw(nested((x, y)))

    def objective(model: Any, batch: Any) -> Tensor:
        x, y = find(batch)
        return F.mse_loss(model(x), y)

    short = short_form(chunk_size)
    general = Problem.from_objective(model, objective, tree, chunk_size=chunk_size)
    theta = short.theta0 * 1.3
    for samples in (None, torch.tensor([5, 0, 0, 2, 1]), slice(1, 6)):
        assert torch.equal(general.loss(theta, samples), short.loss(theta, samples))
        assert torch.equal(general.grad(theta, samples), short.grad(theta, samples))
        assert torch.equal(general.hvp(theta, theta, samples), short.hvp(theta, theta, samples))
        assert torch.equal(general.sample_grads(theta, samples), short.sample_grads(theta, samples))
    part = general.subset(torch.tensor([1, 3]))
    assert torch.equal(part.grad(theta), short.grad(theta, torch.tensor([1, 3])))


def test_a_data_set_is_pairs_of_its_samples() -> None:
    model, x, y = small_model()

    def objective(model: Any, batch: Any) -> Tensor:
        return F.mse_loss(model(batch[0]), batch[1])

    found = Problem.from_objective(model, objective, DataSet(x, y))
    assert torch.equal(found.grad(found.theta0), short_form(None).grad(found.theta0))


def test_images_of_a_data_set_are_prepared_for_any_objective() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (6, 3, 2, 2), dtype=torch.uint8, generator=generator)
    y = torch.randint(2, (6,), generator=generator)
    data = DataSet(images, y, preparation=Preparation((0.5,) * 3, (0.25,) * 3, flat=True))
    model = nn.Linear(12, 2)
    short = Problem(model, F.cross_entropy, data)
    found = Problem.from_objective(
        model, lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]), data
    )
    assert torch.equal(found.grad(found.theta0), short.grad(short.theta0))


def test_chunks_of_sorted_data_are_refused_where_the_weights_of_chunks_differ() -> None:
    """Within each chunk all samples weigh the same, so that only samples of several chunks show it."""
    tokens = torch.randint(0, 5, (16, 6), generator=torch.Generator().manual_seed(0))
    data = {"token": tokens, "known": torch.arange(6) < torch.arange(1, 5).repeat_interleave(4)[:, None]}

    def objective(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        losses = nn.functional.cross_entropy(model(batch["token"]).mT, batch["token"], reduction="none")
        return (losses * batch["known"]).sum() / batch["known"].sum()

    with pytest.raises(ProblemError, match="chunk_size would change the loss"):
        Problem.from_objective(nn.Embedding(5, 5), objective, data, chunk_size=4)
