"""Sums over slices against the definition: finite transformations, dense Hessians, matrices written out."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

import nm_ode
from nm_ode.models import cnn, mlp, resnet18, vgg, vit
from nm_ode.observers import Charges
from nm_ode.symmetries import ChargeMeter, Symmetries, find_symmetries, symmetries_of
from nm_ode.symmetries.operations.declared import DECLARED
from tests.oracles.dense import dense_hessian, dense_loss
from tests.oracles.symmetry import generator, mixed, transformed


def problem_of(model: nn.Module, *shape: int, samples: int = 12, classes: int = 3) -> nm_ode.Problem:
    random = torch.Generator().manual_seed(1)
    x = torch.randn(samples, *shape, dtype=torch.float64, generator=random)
    y = torch.randint(classes, (samples,), generator=random)
    return nm_ode.Problem(model, F.cross_entropy, (x, y))


def exact_norms(model: nn.Module) -> nn.Module:
    """Normalisations all but without ε, so that nothing is broken."""
    for module in model.modules():
        if hasattr(module, "eps"):
            module.eps = 1e-16
    return model


EXAMPLES = {
    "relu": lambda: problem_of(mlp([5, 4, 4, 3], "relu"), 5),
    "linear": lambda: problem_of(mlp([5, 4, 4, 3], "identity"), 5),
    "batch norm": lambda: problem_of(exact_norms(mlp([5, 4, 4, 3], "relu", norm="batch")), 5),
    "layer norm": lambda: problem_of(exact_norms(mlp([5, 4, 4, 3], "relu", norm="layer")), 5),
    "cnn": lambda: problem_of(exact_norms(cnn((2, 3), classes=3, batch_norm=True)), 1, 8, 8),
    "resnet": lambda: problem_of(
        exact_norms(resnet18(classes=3, width=1 / 64, norm="group")), 3, 8, 8, samples=4
    ),
    "vit": lambda: problem_of(
        exact_norms(vit(dim=4, depth=1, heads=2, hidden=3, classes=3, mlp="glu", image=4)), 1, 4, 4
    ),
    "weight norm": lambda: problem_of(
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(5, 4)), nn.ReLU(), nn.Linear(4, 3)), 5
    ),
}


@cache
def found_in(name: str) -> tuple[nm_ode.Problem, Symmetries]:
    """An example with its symmetries, which are looked for once."""
    problem = EXAMPLES[name]()
    return problem, symmetries_of(problem)


def a_theta(problem: nm_ode.Problem, seed: int = 3) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return problem.theta0 + 0.1 * torch.randn(problem.layout.size, dtype=torch.float64, generator=random)


def some_charges(count: int) -> list[int]:
    return sorted({0, count // 2, count - 1})


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_finite_transformation_leaves_the_loss(name):
    problem, found = found_in(name)
    theta = a_theta(problem)
    loss = problem.loss(theta)
    for symmetry in found:
        if symmetry.kind == "matrix":
            blocks, d, _ = symmetry.parts[0].view.shape
            matrix = torch.eye(d, dtype=torch.float64) + 0.3 * torch.randn(blocks, d, d, dtype=torch.float64)
            moved = [mixed(theta, problem.layout, symmetry, matrix)]
        else:
            moved = [
                transformed(theta, problem.layout, symmetry, c, 0.4) for c in some_charges(symmetry.count)
            ]
        for other in moved:
            assert (other - theta).norm() > 1e-3, symmetry.name
            torch.testing.assert_close(problem.loss(other), loss, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", EXAMPLES)
def test_sums_are_those_of_the_generator(name):
    problem, found = found_in(name)
    theta = a_theta(problem)
    gradient, meter = a_theta(problem, seed=4), ChargeMeter(problem.layout, found)
    charge, norm, constraint = meter.state(theta, gradient)
    torch.testing.assert_close(meter.charge(theta), charge)
    torch.testing.assert_close(meter.constraint(gradient, theta), constraint)
    for symmetry in found:
        if symmetry.kind == "matrix":
            continue
        for c in some_charges(symmetry.count):
            xi = generator(theta, lambda a, s=symmetry, c=c: transformed(theta, problem.layout, s, c, a))
            k = meter.slices[symmetry.name].start + c
            torch.testing.assert_close(constraint[k], gradient @ xi, rtol=1e-7, atol=1e-9)
            torch.testing.assert_close(norm[k], xi.norm(), rtol=1e-7, atol=1e-9)
            # Q = ⟨θ, 1⟩ = ⟨θ, ξ⟩, and ‖θ_A‖² − ‖θ_B‖² = ⟨θ, ξ⟩.
            torch.testing.assert_close(charge[k], theta @ xi, rtol=1e-7, atol=1e-8)


def test_matrix_charges_are_those_of_the_matrices():
    problem, found = found_in("vit")
    theta, gradient = a_theta(problem), problem.grad(a_theta(problem))
    meter = ChargeMeter(problem.layout, found)
    charge, constraint = meter.charge(theta), meter.constraint(gradient, theta)

    def part(vector, name):
        slot = problem.layout[name]
        return vector[slot.slice].reshape(slot.shape)

    for symmetry in found.of_kind("matrix"):
        made, read = symmetry.name.removeprefix("matrix ").split(" → ")
        for head in range(2):
            rows = slice(2 * head, 2 * head + 2)

            def sides(vector, made=made, read=read, rows=rows):
                a = torch.cat(
                    [part(vector, f"{made}.weight")[rows], part(vector, f"{made}.bias")[rows, None]], 1
                )
                if read.endswith("key"):  # q·k: the key's rows go with M⁻ᵀ, its bias too
                    b = torch.cat(
                        [part(vector, f"{read}.weight")[rows], part(vector, f"{read}.bias")[rows, None]], 1
                    ).T
                else:
                    b = part(vector, f"{read}.weight")[:, rows]
                return a, b

            (a, b), (g_a, g_b) = sides(theta), sides(gradient)
            # The whole d×d constraint g_A W_Aᵀ = W_Bᵀ g_B, of which the symmetric part has charges.
            torch.testing.assert_close(g_a @ a.T, b.T @ g_b, rtol=1e-9, atol=1e-12)
            first = meter.slices[symmetry.name].start + 3 * head
            i, j = torch.triu_indices(2, 2)
            torch.testing.assert_close(
                charge[first : first + 3], (a @ a.T - b.T @ b)[i, j], rtol=1e-12, atol=1e-13
            )
            assert constraint[first : first + 3].abs().max() < 1e-15


@pytest.mark.parametrize("name", ["relu", "linear", "batch norm", "layer norm", "cnn", "vit"])
def test_gradient_and_hessian_constraint_by_a_dense_hessian(name):
    # docs/theory.md §2.1: ⟨g, ξ⟩ = 0 and H ξ = −∂_ξ g, with ξ = Bθ (or a constant): H B θ = −B g.
    problem, found = found_in(name)
    theta = a_theta(problem)
    loss = dense_loss(problem.model, F.cross_entropy, problem.x, problem.y)
    with sdpa_kernel(SDPBackend.MATH):
        gradient, hessian = problem.grad(theta), dense_hessian(loss, theta, reverse_over_reverse=True)
    meter = ChargeMeter(problem.layout, found)
    assert (
        meter.constraint(gradient, theta).abs() <= 1e-11 * gradient.norm() * meter.generator_norm(theta)
    ).all()
    for c in range(meter.count):
        one = torch.zeros(meter.count, dtype=torch.float64)
        one[c] = 1.0
        xi = meter.apply(theta, one) + meter.shift(theta, one)
        expected = -meter.apply(gradient, one)
        assert (hessian @ xi - expected).norm() <= 1e-9 * hessian.norm() * xi.norm()


def test_the_checks_say_what_was_measured(normal):
    found = find_symmetries(mlp([6, 5, 3], "relu", norm="batch"), normal(8, 6))
    scale = found.checks["scale linear1"]
    assert 1e-9 < scale.gradient < 1e-3  # ε = 1e-5 breaks it
    assert scale.epsilon_share == pytest.approx(scale.gradient, rel=1e-6)  # and is all that does
    assert scale.unexplained < 1e-14
    assert all(check.hessian < 1e-10 for check in found.checks.values())
    assert found.checks["rescale norm1 → linear2"].epsilon_share == 0


def test_what_does_not_verify_is_a_defect_and_not_returned(normal, monkeypatch):
    # A wrong rule: tanh taken for homogeneous.
    monkeypatch.setitem(DECLARED, "tanh", DECLARED["relu"])
    found = find_symmetries(mlp([6, 5, 3], "tanh"), normal(8, 6))
    assert [s.name for s in found] == ["translation linear2"]
    (defect,) = found.defects
    assert "rescale linear1 → linear2" in defect


@cache
def meter_of_the_linear_network() -> tuple[nm_ode.Problem, ChargeMeter]:
    problem, found = found_in("linear")
    return problem, ChargeMeter(problem.layout, found)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3))
def test_brackets_are_bilinear_and_symmetric(seed, scale):
    problem, meter = meter_of_the_linear_network()
    u, v = a_theta(problem, seed), a_theta(problem, seed + 1)
    torch.testing.assert_close(meter.bracket(u, v), meter.bracket(v, u))
    torch.testing.assert_close(meter.bracket(scale * u, v), scale * meter.bracket(u, v))
    both = meter.bracket(u + v, u + v)
    torch.testing.assert_close(both, meter.bracket(u, u) + 2 * meter.bracket(u, v) + meter.bracket(v, v))
    quadratic = ~meter.is_translation
    torch.testing.assert_close(meter.charge(u)[quadratic], meter.bracket(u, u)[quadratic])


@pytest.mark.parametrize("widths", [[5, 4, 3], [5, 6, 4, 3]])
def test_symmetries_of_another_model_are_refused(widths):
    found = find_symmetries(mlp([5, 4, 4, 3], "relu"), torch.randn(8, 5))
    other = problem_of(mlp(widths, "relu"), 5)
    with pytest.raises(nm_ode.SymmetryError, match="no trainable parameter"):
        nm_ode.train(other, nm_ode.SGD(lr=0.1), 2, observe=[Charges(found)])


def test_sums_make_no_copies_of_theta():
    # As many charges as there are channels come from views of the flat vector where it lies.
    problem = problem_of(vgg(11, classes=3, image=32, width=1 / 8, hidden=(16,)), 3, 32, 32, samples=4)
    meter = ChargeMeter(problem.layout, find_symmetries(problem.model, problem.x[:4]))
    theta = a_theta(problem)
    meter.charge(theta)  # makes room for the products of some rows, once
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        meter.charge(theta)
    made = sum(max(event.self_cpu_memory_usage, 0) for event in profiler.events())
    assert 0 < made < theta.nbytes / 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
@pytest.mark.parametrize("name", ["batch norm", "vit"])
def test_the_gpu_records_the_charges_of_the_cpu(name):
    here = EXAMPLES[name]()
    model = copy.deepcopy(here.model)  # its parameters view a theta that moves
    there = nm_ode.Problem(model, F.cross_entropy, (here.x, here.y), device="cuda")
    sgd, symmetries = nm_ode.SGD(lr=0.05, momentum=0.9), symmetries_of(here)
    runs = [
        nm_ode.train(problem, sgd, 5, observe=[Charges(symmetries)], theta0=here.theta0.to(problem.device))
        for problem in (here, there)
    ]
    torch.testing.assert_close(
        *(torch.from_numpy(run["charge"].values) for run in runs), rtol=1e-9, atol=1e-11
    )
