"""What case files observe beside charges and stability: Hessian, noise, sketches, statistics, scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch.nn import functional as F

import nm_ode
from nm_ode.data import digits
from nm_ode.reporting.report import write_report
from nm_ode.results import study_info
from nm_ode.sketches import standard_error
from nm_ode.studies import CaseError, build_study, code_files, load_case, run_case
from tests.studies.conftest import TINY, reduced

Write = Callable[..., Path]

OBSERVED = """
[symmetries]

[[observe]]
name = "hessian"
every = 5
top = 2
trace = 4
density = 2
density_steps = 4
samples = 20
symmetries = true
along = "both"

[[observe]]
name = "noise"
every = 5
parts = 8

[[observe]]
name = "sketch"
m = 512
by_layer = true

[[observe]]
name = "statistics"

[[observe]]
name = "constraints"
every = 5
samples = 20

[[observe]]
name = "scores"
every = 5
functions = { share_right = { python = "scores.py:accuracy", first = 100, last = 160 } }
"""

TINY_FLOWS = '["gradient", { kind = "modified", order = 2, form = "hessian" }]'

SCORES = """
from nm_ode.data import digits

def accuracy(model, first, last):
    data = digits()
    return (model(data.x[first:last].double()).argmax(-1) == data.y[first:last]).double().mean()
"""


def written(folder: Path, *pairs: tuple[str, str], observed: str = OBSERVED) -> Path:
    """The case file, with pieces of its text replaced."""
    (folder / "scores.py").write_text(SCORES)
    text = TINY + observed
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path = folder / "observed.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    path = written(
        tmp_path_factory.mktemp("observed"), ("rtol = 1e-5", 'rtol = 1e-5\nengine = ["sundials", "scipy"]')
    )
    outcome = run_case(load_case(path), path, path.parent / "out")
    assert outcome.failures == ()
    assert run_case(load_case(path), path, path.parent / "out").reused
    return outcome.tree


def test_a_case_has_what_the_same_observers_give_in_python(tree: xr.DataTree, tmp_path: Path) -> None:
    study = build_study(load_case(written(tmp_path)), tmp_path / "observed.toml")
    problem, optimizer = study.problem, study.optimizer
    data = digits()
    x, y = data.x[100:160].double(), data.y[100:160]
    hessian = nm_ode.Hessian(
        every=5,
        top=2,
        trace=4,
        density=2,
        density_steps=4,
        samples=20,
        symmetries=nm_ode.symmetries_of(problem),
    )
    observe = [
        hessian,
        nm_ode.Noise(every=5, parts=8),
        nm_ode.Sketch(512, by_layer=True),
        nm_ode.Statistics(),
        nm_ode.Constraints(nm_ode.symmetries_of(problem), every=5, samples=20),
        nm_ode.Scores({"share_right": lambda model: (model(x).argmax(-1) == y).double().mean()}, 5),
    ]
    run = nm_ode.train(problem, optimizer, 10, seed=1, save_every=5, observe=observe)
    found = tree["discrete"].dataset
    assert "theta" not in found
    for name in run.data_vars:
        np.testing.assert_allclose(found[name], run[name], rtol=1e-9, atol=1e-12, err_msg=str(name))
    flow = nm_ode.solve(
        nm_ode.GradientFlow(problem), run, theta0=problem.theta0, rtol=1e-5, observe=[hessian, observe[5]]
    )
    solution = tree["flows/gradient"].dataset
    for name in ("hessian_eigenvalue", "hessian_constraint", "share_right"):
        np.testing.assert_allclose(solution[name], flow[name], rtol=1e-4, atol=1e-9, err_msg=name)
    assert not any(str(name).startswith("noise_") for name in solution.data_vars)  # unless the case says so
    assert solution["theta_sketch"].dims == ("time", "sketch_index")


def test_distances_by_sketches_are_those_by_theta(tree: xr.DataTree, tmp_path: Path) -> None:
    path = written(tmp_path, observed="")
    whole = run_case(load_case(path), path, tmp_path / "out").tree
    for flow in ("gradient", "modified_2_hessian"):
        there, here = (one[f"comparison/{flow}"].dataset for one in (whole, tree))
        for name in ("error", "layer_error"):
            away = np.abs(here[name].values[1:] / there[name].values[1:] - 1)
            assert away.max() < 4 * standard_error(512), (flow, name)
    # Both engines are near the flow: their distance is that of two solutions at this tolerance.
    distance = tree["flows/gradient"]["engine_distance"].values[0]
    assert (distance[1:] > 0).all()
    assert distance.max() < 1e-3


def test_the_report_shows_it(tree: xr.DataTree, tmp_path: Path) -> None:
    page = write_report(tree, tmp_path / "report.html").read_text()
    for text in ("What was observed", "estimated from sketches", f"{standard_error(512):.1%}"):
        assert text in page


def test_the_store_says_of_which_code_it_is(tree: xr.DataTree, tmp_path: Path) -> None:
    info = study_info(tree)
    assert list(info.code) == ["scores.py"]
    written_again = info.case["observe"][5]["functions"]["share_right"]
    assert written_again == {"python": "scores.py:accuracy", "first": 100, "last": 160}
    path = written(tmp_path)
    assert [file.name for file in code_files(load_case(path), path)] == ["scores.py"]


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('name = "hessian"\ntrace = 1', "observe[0]: trace must be 0 or at least 2"),
        ('name = "hessian"\nevery = 0', "observe[0]: every"),
        ('name = "hessian"\nevery = "often"', "observe[0].every"),
        ('name = "hessian"\nmatrix = "fisher"', "observe[0].matrix"),
        ('name = "hessian"\nbatch = [1]', "unknown key 'batch'"),
        ('name = "hessian"\nchunk_size = 3', "unknown key 'chunk_size'"),
        ('name = "hessian"\ntops = 3', "did you mean 'top'"),
        ('name = "hessian"\nsymmetries = true', "observe[0].symmetries: true stands for those of the case"),
        ('name = "constraints"', "observe[0].symmetries: true stands for those of the case"),
        ('name = "constraints"\nproducts = 0', "observe[0]: products"),
        ('name = "constraints"\nbatch = [1]', "unknown key 'batch'"),
        ('name = "hessian"\nalong = "flow"', "observe[0].along"),
        ('name = "noise"\nparts = 2', "observe[0]: parts"),
        ('name = "noise"\nparts = 64', "observe: Noise takes the batch's"),
        ('name = "sketch"\nm = 3', "observe[0]: m must be"),
        ('name = "scores"', "observe[0].functions: is missing"),
        ("name = 'scores'\nfunctions = {}", "observe[0]: Scores takes"),
        ("name = 'scores'\nfunctions = { a = 1 }", "observe[0].functions.a"),
        (
            "name = 'scores'\nfunctions = { a = { python = 'scores.py:accurate' } }",
            "observe[0].functions.a.python: scores.py has no function 'accurate'; did you mean 'accuracy'",
        ),
        (
            "name = 'scores'\nfunctions = { a = { python = 'scores.py:accuracy', first = 1 } }",
            "observe[0].functions.a.last: is missing",
        ),
        (
            "name = 'scores'\nfunctions = { loss = { python = 'scores.py:accuracy', first = 1, last = 2 } }",
            "observe: two observers have a variable 'loss'",
        ),
    ],
)
def test_what_does_not_go_is_told_with_its_place(tmp_path: Path, table: str, told: str) -> None:
    path = written(tmp_path, observed=f"[[observe]]\n{table}\n")
    with pytest.raises(CaseError) as error:
        build_study(load_case(path), path)
    assert told in str(error.value)


def test_a_sketch_goes_with_a_warm_start_where_the_start_is_known(tmp_path: Path) -> None:
    sketch = '[[observe]]\nname = "sketch"\nm = 2048\n'
    warm = ("steps = 10", "steps = 10\nwarm_steps = 4")
    with pytest.raises(CaseError, match="keep_theta"):
        build_study(load_case(written(tmp_path, warm, observed=sketch)), tmp_path / "observed.toml")
    # With momentum the run has its whole first state, theta in it, and the flow that starts with it starts there.
    pairs = [warm, ("lr = 0.1", "lr = 0.1\nmomentum = 0.5"), (TINY_FLOWS, '["second_order"]')]
    path = written(tmp_path, *pairs, observed=sketch)
    by_sketch = run_case(load_case(path), path, tmp_path / "out").tree
    path = written(tmp_path, *pairs, observed="")
    by_theta = run_case(load_case(path), path, tmp_path / "other").tree
    for name in by_theta["comparison"].children:
        one, other = (tree[f"comparison/{name}"]["error"].values for tree in (by_sketch, by_theta))
        np.testing.assert_allclose(one[1:], other[1:], rtol=5 * standard_error(2048), err_msg=name)


def test_orders_are_seen_by_sketches(tmp_path: Path) -> None:
    sweep = """
[sweep]
"optimizer.lr" = [0.2, 0.1]
constraint = "lr * steps = 1"
reduce = "order"

[[observe]]
name = "sketch"
m = 4096
"""
    path = written(tmp_path, ("rtol = 1e-5", "rtol = 1e-8"), ("save_every = 5", ""), observed=sweep)
    trees, made = reduced(path, tmp_path / "out")
    assert all("theta" not in tree["discrete"] for tree in trees.values())
    found = made["convergence"]
    np.testing.assert_allclose(found["observed_order"], [1, 2], atol=0.2)
    size = float(np.linalg.norm(build_study(load_case(path), path).problem.theta0))
    rounding = 2.0**-52 * size * np.sqrt([5, 10])
    ratio = found["rounding"].values / rounding
    assert ratio[0] == pytest.approx(ratio[1], rel=0.1)  # of the sketches' norms
    assert (ratio > 0.5).all()


def test_a_solve_beside_sketches_starts_where_the_run_did() -> None:
    x = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    problem = nm_ode.Problem(torch.nn.Linear(4, 2), F.mse_loss, (x, x[:, :2].sin()))
    optimizer = nm_ode.SGD(lr=0.1, momentum=0.9)
    start = nm_ode.final_state(nm_ode.train(problem, optimizer, 5))
    runs = [
        nm_ode.train(problem, optimizer, 5, state0=start, observe=observe)
        for observe in ([nm_ode.Sketch(64)], [])
    ]
    flow = nm_ode.SecondOrderFlow(problem, optimizer)
    by_sketch, by_theta = (nm_ode.solve(flow, run, check=False) for run in runs)
    np.testing.assert_allclose(by_sketch["theta"], by_theta["theta"], rtol=1e-12)
