"""The Hessian along a loop of one's own, a run of `train` and a flow."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nm_ode
from nm_ode import Every, Hessian
from nm_ode.models import mlp
from nm_ode.observers import View
from tests.curvature.loops import assert_same, loop, probe
from tests.oracles.dense import dense_gradient, dense_hessian, dense_loss, flat_parameters

ALL = {"every": Every(10), "top": 3, "trace": 4, "density": 2, "density_steps": 6}


def loss_of(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("mode", [None, "eval"])
def test_a_loop_is_the_same_bit_for_bit_with_and_without(amp: bool, mode) -> None:
    watched = loop([Hessian(loss_of, probe(), mode=mode, **ALL)], amp=amp)
    assert_same(watched, loop(None, amp=amp))
    run = watched[3]
    assert run["hessian_step"].values.tolist() == [0, 10, 20, 30, 40]
    assert (run["hessian_random"] == (mode is None)).all()
    assert (run["hessian_eigenvalue"][:, 0] > 0).all()


@pytest.mark.slow
def test_a_compiled_loop_too() -> None:
    counted = []

    def compiled(model):
        def backend(graph, inputs):
            counted.append(1)
            from torch._dynamo.backends.debugging import aot_eager

            return aot_eager(graph, inputs)

        return torch.compile(model, backend=backend)

    torch._dynamo.reset()
    alone = loop(None, wrap=compiled)
    without = len(counted)
    torch._dynamo.reset()
    watched = loop([Hessian(loss_of, probe(), **ALL)], wrap=compiled)
    assert_same(watched, alone)
    assert len(counted) == 2 * without  # nothing was compiled anew because of the observer
    eager = loop([Hessian(loss_of, probe(), **ALL)])[3]
    first = (run["hessian_eigenvalue"][0] for run in (watched[3], eager))
    np.testing.assert_array_equal(*first)


class Snapshots(nm_ode.Observer):
    """The model and the step's gradient at the steps at which the Hessian is measured."""

    variables = {"snapshot": nm_ode.Variable((), "number of the snapshot")}  # noqa: RUF012
    dim = "snapshot_step"

    def __init__(self, model: nn.Module, every: int) -> None:
        self.model, self.every, self.kept = model, every, []

    def steps(self, context):
        return Every(self.every).steps(context)

    def observe(self, view: View):
        self.kept.append((copy.deepcopy(self.model), view.gradient.clone()))
        return {"snapshot": len(self.kept)}


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_all_of_it_is_what_dense_matrices_say(mode: str) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(40, 5, dtype=torch.float64), torch.randint(0, 3, (40,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.5)
    snapshots = Snapshots(model, 4)
    hessian = Hessian(
        loss_fn=F.cross_entropy,
        batch=(x[:20], y[:20]),
        every=4,
        top=4,
        trace=30,
        density=5,
        mode=mode,
        tol=1e-7,
    )
    with nm_ode.Recorder(model, optimizer, observe=[snapshots, hessian]) as recorder:
        for k in range(12):
            some = torch.arange(8) + 8 * (k % 5)
            optimizer.zero_grad()
            F.cross_entropy(model(x[some]), y[some]).backward()
            optimizer.step()
    run = recorder.run
    assert len(snapshots.kept) == 3
    for i, (kept, of_step) in enumerate(snapshots.kept):
        kept.train(mode == "train")
        dense = dense_loss(kept, F.cross_entropy, x[:20], y[:20])
        theta = flat_parameters(kept)
        before = copy.deepcopy(kept.state_dict())
        matrix = dense_hessian(dense, theta, reverse_over_reverse=True)
        gradient = dense_gradient(dense, theta)
        kept.load_state_dict(before)
        values, vectors = torch.linalg.eigh(matrix)
        top = vectors[:, -4:]
        at = run.isel(hessian_step=i)
        expected = {
            "hessian_loss": dense(theta),
            "hessian_grad_norm": gradient.norm(),
            "hessian_curvature": gradient @ matrix @ gradient / (gradient @ gradient),
            "hessian_gradient_norm": (matrix @ gradient).norm(),
            "hessian_overlap": (top.T @ gradient).square().sum() / gradient.square().sum(),
            "hessian_step_overlap": (top.T @ of_step).square().sum() / of_step.square().sum(),
        }
        for name, value in expected.items():
            assert float(at[name]) == pytest.approx(float(value), rel=1e-6), name
        np.testing.assert_allclose(at["hessian_eigenvalue"], values.flip(0)[:4], rtol=1e-8)
        assert (at["hessian_eigenvalue_residual"] <= 1e-7 * float(values.abs().max())).all()
        assert float(at["hessian_asymmetry"]) < 1e-10
        assert abs(float(at["hessian_trace"]) - float(matrix.trace())) < 6 * float(at["hessian_trace_error"])
        assert (at["hessian_node"] <= float(values[-1]) + 1e-9).all()
        assert (at["hessian_node"] >= float(values[0]) - 1e-9).all()
        np.testing.assert_allclose(at["hessian_weight"].sum("hessian_rule"), 1)
        assert float(at["hessian_random"]) == 0


def test_gauss_newton_beside_the_hessian() -> None:
    """Of a linear model under a convex loss both are the same matrix."""
    model = nn.Linear(4, 3).double()
    x, y = torch.randn(20, 4, dtype=torch.float64), torch.randint(0, 3, (20,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    both = [
        Hessian(loss_fn=F.cross_entropy, batch=(x, y), every=1, matrix=matrix, tol=1e-8)
        for matrix in ("hessian", "gauss_newton")
    ]
    with nm_ode.Recorder(model, optimizer, observe=both) as recorder:
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    run = recorder.run
    for name in ("eigenvalue", "curvature", "gradient_norm", "loss", "overlap"):
        one, other = run[f"hessian_{name}"].values, run[f"gauss_newton_{name}"].values
        np.testing.assert_allclose(one, other, rtol=1e-8)


@pytest.fixture(scope="module")
def problem() -> nm_ode.Problem:
    source = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, dtype=torch.float64, generator=source)
    y = torch.randint(0, 3, (60,), generator=source)
    return nm_ode.Problem(mlp([6, 8, 3], "relu", seed=2), F.cross_entropy, (x, y))


def test_train_and_a_flow_have_it_too(problem) -> None:
    """All samples of the problem, or an objective of one's own on the problem's model."""
    own = Hessian(loss_of, problem.batch(), every=3, trace=4)
    runs = [
        nm_ode.train(problem, nm_ode.SGD(lr=0.1), 7, observe=[hessian], save_every=1)
        for hessian in (Hessian(every=3, trace=4), own, Hessian(batch=problem.batch(), every=3, trace=4))
    ]
    names = [name for name in runs[0] if str(name).startswith("hessian_")]
    assert len(names) == 14
    for run in runs:
        assert run["hessian_step"].values.tolist() == [0, 3, 6]
        for name in names:
            np.testing.assert_allclose(run[name], runs[0][name], rtol=1e-6, atol=1e-9, err_msg=name)
    for i, step in enumerate(runs[0]["hessian_step"].values):
        theta = torch.from_numpy(runs[0]["theta"].values[step].copy())
        exact = dense_hessian(dense_loss(problem.model, problem.loss_fn, problem.x, problem.y), theta)
        values = torch.linalg.eigvalsh(exact).flip(0)[:5]
        np.testing.assert_allclose(runs[0]["hessian_eigenvalue"][i], values, rtol=1e-4)
    for hessian in (Hessian(), own):
        flow = nm_ode.solve(nm_ode.GradientFlow(problem), t=[0.0, 0.3], observe=[hessian], check=False)
        assert flow["hessian_eigenvalue"].dims == ("time", "hessian_eigenpair")
        np.testing.assert_allclose(flow["hessian_eigenvalue"][0], runs[0]["hessian_eigenvalue"][0], rtol=1e-5)
        np.testing.assert_allclose(flow["hessian_step_overlap"], flow["hessian_overlap"], rtol=1e-6)
    alone = nm_ode.train(problem, nm_ode.SGD(lr=0.1), 7, save_every=1)
    np.testing.assert_array_equal(alone["theta"], runs[1]["theta"])


def test_in_a_finer_dtype_than_the_problems_where_it_is_asked_for(problem) -> None:
    model = copy.deepcopy(problem.model).float().double()  # whose values both dtypes have
    options = {"batch": problem.batch(), "loss_fn": F.cross_entropy, "every": 1, "dtype": torch.float64}
    observers = [Hessian(top=0, **options), nm_ode.Noise(parts=15, **options)]
    coarse, fine = (
        nm_ode.train(
            nm_ode.Problem(model, F.cross_entropy, (problem.x, problem.y), dtype=dtype),
            nm_ode.SGD(lr=0.1),
            1,
            observe=observers,
        )
        for dtype in (torch.float32, torch.float64)
    )
    for name in ("hessian_loss", "noise_trace"):
        np.testing.assert_allclose(coarse[name], fine[name], rtol=1e-12, atol=0)
    with pytest.raises(nm_ode.ArgumentError, match="batch of one's own"):
        Hessian(dtype=torch.float64)


def test_a_recorder_with_a_problem_measures_all_of_it(problem) -> None:
    model = copy.deepcopy(problem.model)
    for parameter, piece in zip(model.parameters(), problem.layout.split(problem.theta0), strict=True):
        parameter.data = piece.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nm_ode.Recorder(model, optimizer, observe=[Hessian(every=3)], problem=problem) as recorder:
        for _ in range(7):
            optimizer.zero_grad()
            F.cross_entropy(model(problem.x), problem.y).backward()
            optimizer.step()
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), 7, observe=[Hessian(every=3)])
    np.testing.assert_allclose(recorder.run["hessian_eigenvalue"], run["hessian_eigenvalue"], rtol=1e-6)


def test_a_run_goes_on_from_a_checkpoint_with_the_same_numbers(problem, tmp_path) -> None:
    def stops(done: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    def run(**options):
        return nm_ode.train(problem, nm_ode.SGD(lr=0.1), 8, observe=[Hessian(every=2)], **options)

    whole = run()
    kept = nm_ode.Checkpoint(tmp_path / "kept", 0)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=kept, on_step=stops)
    after: list[int] = []
    gone_on = run(checkpoint=kept, on_step=after.append)
    assert after == [5, 6, 7, 8]
    for name in whole.data_vars:
        np.testing.assert_array_equal(whole[name], gone_on[name], err_msg=str(name))


def test_constraints_of_symmetries_hold_where_the_symmetry_does(problem) -> None:
    symmetries = nm_ode.symmetries_of(problem)
    assert len({symmetry.kind for symmetry in symmetries}) > 1
    hessian = Hessian(every=3, top=0, symmetries=symmetries)
    run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), 7, observe=[hessian])
    assert run["hessian_constraint"].shape == (3, len(symmetries))
    assert run["hessian_symmetry"].values.tolist() == [symmetry.name for symmetry in symmetries]
    assert float(run["hessian_constraint"].max()) < 1e-10
    curved = nm_ode.Problem(mlp([6, 8, 3], "tanh", seed=2), F.cross_entropy, (problem.x, problem.y))
    broken = nm_ode.train(curved, nm_ode.SGD(lr=0.1), 7, observe=[hessian])["hessian_constraint"]
    kinds = np.array([symmetry.kind for symmetry in symmetries])
    assert (broken.values[:, kinds == "rescale"] > 0.1).all()
    assert (broken.values[:, kinds == "translation"] < 1e-10).all()


def test_where_the_loss_is_not_finite_there_are_no_numbers() -> None:
    model = nn.Linear(3, 1).double()
    x = torch.randn(8, 3, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scale = [1.0]

    def objective(model, batch):
        return (model(batch) * scale[0]).square().mean()

    hessian = Hessian(objective, x, every=1, top=2, trace=2, density=1, density_steps=3, tol=1e-9)
    with nm_ode.Recorder(model, optimizer, observe=[hessian]) as recorder:
        for factor in (1.0, math.nan, 1.0):
            scale[0] = factor
            model.weight.grad, model.bias.grad = torch.zeros(1, 3).double(), torch.zeros(1).double()
            optimizer.step()
    run = recorder.run
    for name in run:
        if str(name).startswith("hessian_") and str(name) not in ("hessian_products", "hessian_random"):
            assert run[name][1].isnull().all(), name
    assert run["hessian_products"][1] == 0
    np.testing.assert_allclose(run["hessian_eigenvalue"][2], run["hessian_eigenvalue"][0])


def test_where_the_gradient_has_no_derivative_there_are_no_numbers() -> None:
    """L = Σ|w|^1.5, whose second derivative at 0 is infinite."""
    model = nn.Linear(3, 1, bias=False).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def objective(model, batch):
        return (model.weight.abs() ** 1.5).sum() + batch.sum()

    hessian = Hessian(objective, torch.ones(1), every=1, top=2)
    with nm_ode.Recorder(model, optimizer, observe=[hessian]) as recorder:
        for _ in range(2):
            model.weight.grad = model.weight.detach().clone()
            optimizer.step()
    run = recorder.run
    assert run["hessian_eigenvalue"][0].notnull().all()
    assert run["hessian_eigenvalue"][1].isnull().all()
    assert float(run["hessian_loss"][1]) == 1
    assert float(run["hessian_grad_norm"][1]) == 0


def test_what_is_asked_is_checked(problem) -> None:
    for options, told in (
        ({"objective": loss_of}, "batch"),
        ({"objective": loss_of, "loss_fn": F.cross_entropy, "batch": 1}, "not both"),
        ({"top": -1}, "top"),
        ({"trace": 1}, "trace"),
        ({"top": 0, "trace": 5}, "trace"),
        ({"matrix": "fisher"}, "matrix"),
        ({"mode": "test"}, "mode"),
        ({"every": 0}, "every"),
        ({"matrix": "gauss_newton", "symmetries": nm_ode.symmetries_of(problem)}, "symmetries"),
    ):
        with pytest.raises(nm_ode.ArgumentError, match=told):
            Hessian(**options)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(nm_ode.ArgumentError, match="objective"):
        nm_ode.Recorder(model, optimizer, observe=[Hessian()]).__enter__()
    with pytest.raises(nm_ode.ArgumentError, match="parameters"):
        nm_ode.Recorder(model, optimizer, observe=[Hessian()], problem=problem).__enter__()


def test_densities_of_a_run_are_those_of_dense_spectra(problem) -> None:
    run = nm_ode.train(
        problem,
        nm_ode.SGD(lr=0.1),
        7,
        observe=[Hessian(every=3, top=0, density=30, density_steps=20)],
        save_every=1,
    )
    found = nm_ode.spectral_density(run, width=0.05)
    assert found["density"].dims == ("hessian_step", "eigenvalue")
    assert found["hessian_step"].values.tolist() == [0, 3, 6]
    for i, step in enumerate(found["hessian_step"].values):
        theta = torch.from_numpy(run["theta"].values[step].copy())
        exact = dense_hessian(dense_loss(problem.model, problem.loss_fn, problem.x, problem.y), theta)
        values, at = torch.linalg.eigvalsh(exact).numpy(), found["eigenvalue"].values
        bells = np.exp(-0.5 * ((at[:, None] - values) / 0.05) ** 2) / (0.05 * math.sqrt(2 * math.pi))
        distance = np.abs(found["density"].values[i] - bells.mean(axis=1))
        assert (distance <= 6 * found["density_error"].values[i] + 2e-3 * bells.mean(axis=1).max()).all()
    assert found.attrs["width"] == 0.05
    with pytest.raises(nm_ode.ArgumentError, match="gauss_newton_node"):
        nm_ode.spectral_density(run, matrix="gauss_newton")


def stored_loop(path, model, steps: int, **options) -> None:
    x = torch.randn(8, model.in_features, generator=torch.Generator().manual_seed(1)).to(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    watching = [
        Hessian(lambda model, x: model(x).tanh().square().mean(), x, every=2, top=3, trace=2, density=2),
        nm_ode.Noise(lambda model, x: model(x).tanh().square().mean(), x, every=2, parts=4),
    ]
    with nm_ode.Recorder(model, optimizer, path, observe=watching, **options):
        for _ in range(steps):
            optimizer.zero_grad()
            model(x).tanh().square().mean().backward()
            optimizer.step()


def test_a_store_has_all_of_it_and_a_loop_goes_on_in_it(tmp_path) -> None:
    model = nn.Linear(6, 4).double()
    whole, parts = copy.deepcopy(model), copy.deepcopy(model)
    stored_loop(tmp_path / "whole", whole, 8)
    stored_loop(tmp_path / "parts", parts, 5)
    stored_loop(tmp_path / "parts", parts, 3, resume=True)
    run, gone_on = nm_ode.open_run(tmp_path / "whole"), nm_ode.open_run(tmp_path / "parts")
    names = [str(name) for name in run if str(name).startswith(("hessian_", "noise_", "layer_noise_"))]
    assert len(names) == 29
    for name in names:
        np.testing.assert_array_equal(run[name], gone_on[name], err_msg=name)
    assert run["hessian_eigenvalue"].attrs["long_name"]
    assert nm_ode.spectral_density(run)["density"].shape == (4, 400)


def test_a_store_does_not_grow_with_the_parameters(tmp_path) -> None:
    stored_loop(tmp_path / "run", nn.Linear(1100, 1000), 1)
    size = sum(file.stat().st_size for file in (tmp_path / "run").rglob("*") if file.is_file())
    assert size < 1100 * 1000 / 4
