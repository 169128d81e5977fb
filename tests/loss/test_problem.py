"""Problem: gradients and Hessian products against dense autodiff; what is refused, and why."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import nm_ode
from nm_ode import Problem, ProblemError
from tests.oracles.dense import dense_gradient, dense_hessian, dense_loss, flat_parameters
from tests.oracles.networks import MODELS, make

NORMALISED = {"layer norm", "batch norm, train", "instance norm"}
WITHOUT_BATCH_STATISTICS = sorted(set(MODELS) - {"batch norm, train"})


def assert_close(actual: torch.Tensor, expected: torch.Tensor, rtol: float) -> None:
    assert (actual - expected).norm() <= rtol * max(float(expected.norm()), 1e-3)


@pytest.mark.parametrize("kind", MODELS)
def test_loss_and_gradient_equal_dense_autograd(kind: str) -> None:
    problem, dense, theta = make(kind)
    loss, gradient = problem.loss_and_grad(theta)
    assert_close(loss, dense(theta), 1e-13)
    assert_close(problem.loss(theta), dense(theta), 1e-13)
    assert_close(gradient, dense_gradient(dense, theta), 1e-12)
    assert torch.equal(problem.grad(theta), gradient)


@pytest.mark.parametrize("kind", MODELS)
def test_gradient_in_float32_equals_dense_autograd(kind: str) -> None:
    problem, dense, theta = make(kind, torch.float32)
    assert problem.grad(theta).dtype == torch.float32
    assert_close(problem.grad(theta), dense_gradient(dense, theta), 1e-5)


# torch.func has no forward mode of weight normalisation, and its reverse mode twice is wrong there (torch 2.13).
@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "weight norm"])
def test_hvp_equals_the_dense_hessian(kind: str) -> None:
    problem, dense, theta = make(kind)
    v = torch.randn(problem.layout.size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gradient, product = problem.grad_and_hvp(theta, v)
    assert_close(product, dense_hessian(dense, theta, reverse_over_reverse=kind in NORMALISED) @ v, 1e-11)
    assert torch.equal(problem.hvp(theta, v), product)
    assert_close(gradient, dense_gradient(dense, theta), 1e-12)


@pytest.mark.parametrize("kind", MODELS)
def test_hvp_equals_a_finite_difference_of_gradients(kind: str) -> None:
    problem, _, theta = make(kind)
    v = torch.randn(problem.layout.size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    h = 1e-5
    # Fourth order, so that what is left is the rounding of the difference; at a ReLU's kink there is none.
    difference = (
        8 * (problem.grad(theta + h * v) - problem.grad(theta - h * v))
        - (problem.grad(theta + 2 * h * v) - problem.grad(theta - 2 * h * v))
    ) / (12 * h)
    assert_close(problem.hvp(theta, v), difference, 1e-8)


# torch's own third derivatives of its normalisations are wrong (2.13): differences of gradients are the oracle there.
WRONG_IN_TORCH = {"weight norm", "layer norm", "batch norm, train", "instance norm", "attention"}


@pytest.mark.parametrize("kind", sorted(set(MODELS) - WRONG_IN_TORCH))
def test_third_derivative_equals_dense_autograd(kind: str) -> None:
    """∇(vᵀHv) by reverse mode thrice, on a dictionary of parameters."""
    problem, dense, theta = make(kind)
    v = torch.randn(problem.layout.size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    leaf = theta.clone().requires_grad_()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        g = torch.autograd.grad(dense(leaf), leaf, create_graph=True)[0]
        h_v = torch.autograd.grad(g @ v, leaf, create_graph=True)[0]
        expected = torch.autograd.grad(h_v @ v, leaf)[0]
    assert_close(problem.third_derivative(theta, v), expected, 1e-11)


@pytest.mark.parametrize("kind", MODELS)
def test_third_derivative_equals_a_second_difference_of_gradients(kind: str) -> None:
    problem, _, theta = make(kind)
    v = torch.randn(problem.layout.size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    h = 1e-4
    difference = sum(
        weight * problem.grad(theta + i * h * v)
        for i, weight in ((-2, -1 / 12), (-1, 4 / 3), (0, -5 / 2), (1, 4 / 3), (2, -1 / 12))
    ) / (h * h)
    third = problem.third_derivative(theta, v)
    if kind == "relu":  # the second difference sees the kinks that ±2h crosses, the derivative does not
        difference = problem.hvp(theta + 1e-6 * v, v).sub(problem.hvp(theta - 1e-6 * v, v)) / 2e-6
    assert_close(third, difference, 1e-5)


def test_hvp_of_a_loss_that_is_linear_in_theta_is_zero() -> None:
    x, y = torch.ones(4, 2), torch.zeros(4)
    problem = Problem(nn.Linear(2, 1), lambda out, y: out.mean(), (x, y))
    assert torch.equal(problem.hvp(problem.theta0, torch.ones(3)), torch.zeros(3, dtype=torch.float64))
    assert torch.equal(problem.third_derivative(problem.theta0, torch.ones(3)), torch.zeros(3).double())


def test_third_derivative_of_a_quadratic_loss_is_zero() -> None:
    problem = Problem(nn.Linear(3, 2), nn.functional.mse_loss, (torch.randn(9, 3), torch.randn(9, 2)))
    ones = torch.ones(problem.layout.size).double()
    assert problem.third_derivative(problem.theta0, ones).norm() < 1e-14


def test_a_subset_is_the_loss_over_its_samples(tiny: Problem) -> None:
    few = torch.tensor([3, 1, 7])
    part = tiny.subset(few)
    theta = tiny.theta0 + 0.1
    assert part.n_samples == 3
    assert torch.equal(part.grad(theta), tiny.grad(theta, few))
    assert torch.equal(part.hvp(theta, theta), tiny.hvp(theta, theta, few))
    assert tiny.n_samples == 20
    assert tiny.subset(None).loss(theta) == tiny.loss(theta)
    with pytest.raises(ProblemError, match="over no samples"):
        tiny.subset(few[:0])


@functools.cache
def in_one_piece(kind: str) -> tuple[Problem, torch.Tensor]:
    problem, _, theta = make(kind)
    return problem, theta


@given(chunk_size=st.integers(1, 12), kind=st.sampled_from(WITHOUT_BATCH_STATISTICS))
@settings(max_examples=60, deadline=None)
def test_chunks_change_nothing_but_rounding(chunk_size: int, kind: str) -> None:
    whole, theta = in_one_piece(kind)
    chunked, _, _ = make(kind, chunk_size=chunk_size)
    v = torch.linspace(-1, 1, whole.layout.size, dtype=torch.float64)
    assert_close(chunked.loss(theta), whole.loss(theta), 1e-13)
    assert_close(chunked.grad(theta), whole.grad(theta), 1e-12)
    assert_close(chunked.hvp(theta, v), whole.hvp(theta, v), 1e-11)
    assert_close(chunked.third_derivative(theta, v), whole.third_derivative(theta, v), 1e-11)


def test_a_sum_over_samples_is_chunked_as_a_sum() -> None:
    x, y = torch.randn(9, 2), torch.randn(9, 1)
    loss = nn.MSELoss(reduction="sum")
    whole, chunked = (Problem(nn.Linear(2, 1), loss, (x, y), chunk_size=size) for size in (None, 4))
    assert_close(chunked.loss(whole.theta0), whole.loss(whole.theta0), 1e-13)


def test_a_chunk_never_holds_more_samples_than_asked() -> None:
    seen = []

    class Watch(nn.Linear):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    problem = Problem(
        Watch(2, 1), nn.functional.mse_loss, (torch.randn(10, 2), torch.randn(10, 1)), chunk_size=4
    )
    seen.clear()
    problem.grad(problem.theta0)
    assert seen == [4, 4, 2]


@pytest.mark.parametrize("samples", [torch.tensor([1, 1, 4]), slice(2, 7)])
def test_a_loss_over_some_samples_is_that_of_a_problem_with_those(samples, tiny: Problem) -> None:
    part = Problem(tiny.model, tiny.loss_fn, (tiny.x[samples], tiny.y[samples]))
    for mine, theirs in zip(
        tiny.loss_and_grad(tiny.theta0, samples), part.loss_and_grad(tiny.theta0), strict=True
    ):
        assert_close(mine, theirs, 1e-14)


def test_tied_parameters_appear_once() -> None:
    problem, _, _ = make("tied")
    assert problem.layout.names == ("encode.weight", "encode.bias", "decode.bias")
    assert problem.layout.size == 35


def test_frozen_parameters_are_constants() -> None:
    problem, _, _ = make("frozen")
    assert "0.weight" not in problem.layout.names
    assert problem.layout.names == ("0.bias", "2.weight", "2.bias")


def test_parameters_are_views_of_theta(tiny: Problem) -> None:
    theta = tiny.theta0 + 1
    tiny.grad(theta)
    assert {p.untyped_storage().data_ptr() for p in tiny.model.parameters()} == {
        theta.untyped_storage().data_ptr()
    }
    assert torch.equal(theta, tiny.theta0 + 1)


@pytest.mark.parametrize("other", [lambda t: t.float(), lambda t: t.repeat_interleave(2)[::2]])
def test_a_theta_of_another_dtype_or_stride_is_converted(tiny: Problem, other) -> None:
    theta = other(tiny.theta0)
    assert_close(tiny.grad(theta), tiny.grad(theta.double().contiguous()), 1e-15)
    assert tiny.grad(theta).dtype == torch.float64


def test_the_callers_model_stays_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = copy.deepcopy(model.state_dict())
    problem = Problem(model, nn.functional.mse_loss, (torch.randn(6, 3), torch.randn(6, 2)))
    problem.grad(problem.theta0 + 1)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float32
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("kind", ["mlp", "batch norm, train"])
def test_evaluations_are_pure(kind: str) -> None:
    problem, _, theta = make(kind)
    first = problem.grad(theta).clone()
    problem.grad(problem.theta0)
    assert torch.equal(problem.grad(theta), first)


def test_a_theta_that_moves_in_place_is_followed(tiny: Problem) -> None:
    theta = tiny.theta0.clone()
    tiny.grad(theta)
    theta += 1
    assert torch.equal(tiny.grad(theta), tiny.grad(tiny.theta0 + 1))


def test_another_vector_at_the_same_address_is_not_mistaken_for_theta(tiny: Problem) -> None:
    size = tiny.layout.size
    memory = torch.cat([tiny.theta0, tiny.theta0 + 1])
    expected = tiny.grad(memory[::2][:size].clone())
    tiny.grad(memory[:size])
    assert torch.equal(tiny.grad(memory[::2][:size]), expected)
    tiny.grad(memory[:size])
    with pytest.raises(ProblemError, match="theta has shape"):
        tiny.grad(memory)


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_a_gradient_is_written_where_it_is_wanted(chunk_size) -> None:
    problem, _, theta = make("mlp", chunk_size=chunk_size)
    out = torch.full_like(theta, torch.nan)
    assert problem.grad(theta, out=out) is out
    assert torch.equal(out, problem.grad(theta))


def test_results_do_not_change_when_theta_moves_on(tiny: Problem) -> None:
    gradient = tiny.grad(tiny.theta0)
    kept = gradient.clone()
    tiny.grad(tiny.theta0 + 1)
    assert torch.equal(gradient, kept)


def test_layout_has_names_shapes_and_layers(tiny: Problem) -> None:
    layout = tiny.layout
    assert layout["linear1.weight"].shape == (4, 3)
    tiny.loss(tiny.theta0)
    assert tiny.theta0[layout["linear2.bias"].slice].tolist() == tiny.model.linear2.bias.tolist()
    assert list(layout.layers) == ["linear1", "linear2"]
    vectors = torch.arange(3.0 * layout.size).reshape(3, -1)
    norms = layout.layer_norms(vectors)
    assert norms.shape == (3, 2)
    torch.testing.assert_close(norms[1, 0], vectors[1, :16].norm())
    torch.testing.assert_close(norms.norm(dim=1), vectors.norm(dim=1))


class DropoutByHand(nn.Linear):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5, training=True)


def scaled_by_batch() -> nn.Module:
    class ByBatch(nn.Linear):
        def forward(self, x):
            out = super().forward(x)
            return out / out.std()

    return ByBatch(3, 2)


REGRESSION = (torch.randn(12, 3), torch.randn(12, 2))
CLASSES = (torch.randn(12, 3), torch.arange(12) % 2)
HALF = torch.float16


@pytest.mark.parametrize(
    ("model", "loss", "data", "options", "reason"),
    [
        (nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.1)), "mse", REGRESSION, {}, "'1' .Dropout. drops units"),
        (nn.LSTM(3, 2, num_layers=2, dropout=0.2), "mse", REGRESSION, {}, "LSTM.*drops units"),
        (DropoutByHand(3, 2), "mse", REGRESSION, {}, "the loss is random"),
        (
            nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)),
            "mse",
            REGRESSION,
            {"chunk_size": 4},
            "'1' .BatchNorm1d. takes its statistics from the batch",
        ),
        (scaled_by_batch(), "mse", REGRESSION, {"chunk_size": 4}, "chunk_size would change the loss"),
        (
            nn.Linear(3, 2),
            nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0], dtype=torch.float64)),
            (CLASSES[0], torch.tensor([0, 0, 0, 1, 1, 0] * 2)),
            {"chunk_size": 5},
            "chunk_size would change the loss",
        ),
        (nn.Linear(3, 2), "mse", REGRESSION, {"dtype": HALF}, "float16 is too coarse"),
        (nn.Linear(3, 2), "mse", REGRESSION, {"dtype": "int32"}, "dtype must be torch.float64"),
        (nn.Linear(3, 2), "mse", REGRESSION, {"chunk_size": 0}, "chunk_size must be at least 1"),
        (nn.Linear(3, 2).requires_grad_(False), "mse", REGRESSION, {}, "no trainable parameter"),
        (
            nn.Sequential(nn.Embedding(4, 2, max_norm=1.0), nn.Flatten()),
            "mse",
            (torch.zeros(3, 1, dtype=torch.int64), torch.zeros(3, 2)),
            {},
            "'0' .Embedding. rescales its weights",
        ),
        (nn.LazyLinear(2), "mse", REGRESSION, {}, "has no shape yet"),
        (nn.Linear(3, 2), "mse", (REGRESSION[0], REGRESSION[1][:5]), {}, "12 inputs and 5 targets"),
        (nn.Linear(3, 2), nn.MSELoss(reduction="none"), REGRESSION, {}, "must return a scalar"),
        (nn.Linear(3, 2), "cross_entropy", REGRESSION, {}, "must be a function.*'cross_entropy'"),
        ("a network", "mse", REGRESSION, {}, "must be a torch.nn.Module; str"),
    ],
)
def test_what_makes_no_flow_is_refused_with_the_reason(model, loss, data, options, reason: str) -> None:
    loss_fn = nn.functional.mse_loss if loss == "mse" else loss
    with pytest.raises(ProblemError, match=reason):
        Problem(model, loss_fn, data, **options)


@pytest.mark.parametrize("kind", ["register_hook", "register_post_accumulate_grad_hook"])
def test_a_hook_that_a_copy_would_lose_is_refused(kind: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    handle = getattr(model[1].weight, kind)(lambda gradient: None)
    with pytest.raises(ProblemError, match=r"'1.weight' has a hook"):
        Problem(model, nn.functional.mse_loss, REGRESSION)
    handle.remove()
    Problem(model, nn.functional.mse_loss, REGRESSION)


def test_parameters_that_share_memory_are_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = nn.Parameter(model[0].weight.detach())
    with pytest.raises(ProblemError, match=r"'0.weight' and '1.weight' share memory"):
        Problem(model, nn.functional.mse_loss, (torch.randn(4, 3), torch.randn(4, 3)))


def test_dropout_in_eval_mode_is_welcome() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).eval()
    assert Problem(model, nn.functional.mse_loss, REGRESSION).layout.size == 8


def test_a_theta_of_the_wrong_length_is_named(tiny: Problem) -> None:
    with pytest.raises(ProblemError, match=r"theta has shape \(3,\)"):
        tiny.grad(torch.zeros(3))
    with pytest.raises(ProblemError, match=r"v has shape \(3,\)"):
        tiny.hvp(tiny.theta0, torch.zeros(3))


def test_token_inputs_stay_integers() -> None:
    model = nn.Sequential(nn.Embedding(6, 3, sparse=True), nn.Flatten(), nn.Linear(6, 2))
    x, y = torch.randint(0, 6, (5, 2)), torch.randint(0, 2, (5,))
    problem = Problem(model, nn.functional.cross_entropy, (x, y))
    dense_model = copy.deepcopy(model).double()
    dense_model[0].sparse = False
    dense = dense_loss(dense_model, nn.functional.cross_entropy, x, y)
    theta = flat_parameters(model).double()
    assert_close(problem.grad(theta), dense_gradient(dense, theta), 1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
@pytest.mark.parametrize("kind", MODELS)
def test_the_gpu_agrees_with_the_cpu(kind: str) -> None:
    here, _, theta = make(kind)
    there, _, _ = make(kind, device="cuda")
    v = torch.linspace(-1, 1, here.layout.size, dtype=torch.float64)
    assert there.grad(theta).device.type == "cuda"
    assert_close(there.grad(theta).cpu(), here.grad(theta), 1e-11)
    assert_close(there.hvp(theta, v).cpu(), here.hvp(theta, v), 1e-10)
    assert_close(there.third_derivative(theta, v).cpu(), here.third_derivative(theta, v), 1e-9)
    assert nm_ode.solve(nm_ode.GradientFlow(there), [0.0, 0.1]).attrs["status"] == "success"
