"""Each example runs, as a user runs it; its numbers are what theory says, and its figures have names and units."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

matplotlib.use("agg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).resolve().parents[1] / "examples"
MARK = "# +"

Run = Callable[[str], dict[str, Any]]


@pytest.fixture
def run_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs one in an empty folder; what it leaves in its namespace. Its figures are looked at."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def run(name: str) -> dict[str, Any]:
        with matplotlib.rc_context():
            found = runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
            require_readable_figures()
        return found

    yield run
    plt.close("all")


def require_readable_figures() -> None:
    """Every figure says what it shows and in which units: its titles are its alternative text."""
    assert plt.get_fignums()
    for number in plt.get_fignums():
        figure = plt.figure(number)
        figure.draw_without_rendering()
        panels = [axes for axes in figure.axes if axes.axison and axes.get_label() != "<colorbar>"]
        assert figure.get_suptitle() or all(axes.get_title() or axes.get_title("left") for axes in panels)
        for axes in panels:
            place = axes.get_subplotspec()
            assert axes.get_xlabel() or not place.is_last_row()
            assert axes.get_ylabel() or not place.is_first_col()


def test_own_loop(run_example: Run, tmp_path: Path) -> None:
    found = run_example("own_loop")
    run = found["run"]
    assert run.sizes["step"] == 140
    assert float(run.loss[-14:].mean()) < 0.2 * float(run.loss[0])
    assert float(run.test_accuracy[-1]) > 0.85
    assert found["error"] < 1e-4 * found["motion"]
    for name, values in plain_loop(tmp_path).items():
        np.testing.assert_array_equal(found["model"].state_dict()[name], values)


def plain_loop(folder: Path) -> dict[str, Any]:
    """The parameters to which the loop comes without the lines that are added to it."""
    lines = (FOLDER / "own_loop.py").read_text().splitlines()
    assert sum(line.endswith(MARK) for line in lines) == 5
    start = next(i for i, line in enumerate(lines) if line.startswith("with "))
    loop = [line[4:] if i > start else line for i, line in enumerate(lines)]
    path = folder / "plain.py"
    path.write_text("\n".join(line for line in loop[: loop.index("", start)] if not line.endswith(MARK)))
    return runpy.run_path(str(path))["model"].state_dict()


def test_two_parameters(run_example: Run) -> None:
    drift = run_example("two_parameters")["drift"]
    assert drift.keys() == {"rescale", "scale"}
    for kind, sign in (("rescale", -1), ("scale", 1)):
        descent, gradient, modified = drift[kind].values()
        assert abs(gradient) < 1e-6  # the flow keeps the charge, to the solver's tolerance
        assert 0 < modified / descent < 1  # the modified flow goes the way of descent, most of it
        assert np.sign(descent) == sign


def test_orders_of_adam(run_example: Run) -> None:
    found = run_example("orders_of_adam")
    for order, seen in zip(found["orders"], found["observed"], strict=True):
        assert (
            abs(seen.order - order) < 0.1 * order
        )  # of a finite learning rate: the next term is some aλ of it
    assert (np.diff(found["errors"], axis=0) < 0).all()


def test_charges_of_a_gpt(run_example: Run) -> None:
    found = run_example("charges_of_a_gpt")
    problem, symmetries, worst = found["problem"], found["symmetries"], found["worst"]
    width, heads, hidden = 16, 2, 32
    each_head = width // heads
    # Query with key and value with output, each a symmetric matrix a head.
    assert symmetries.n_charges("matrix") == 2 * heads * each_head * (each_head + 1) // 2
    assert symmetries.n_charges("scale") == 1
    # Hidden units; norms against what reads them; heads' coordinates are the diagonals of the matrices.
    assert symmetries.n_charges("rescale") == hidden + 3 * width
    assert problem.layout.size == sum(one.numel() for one in found["GPT"]().parameters())
    assert float(worst["exact"].max()) < 1e-4  # but for what LayerNorm's ε does, nothing
    assert float(worst["second_order"].max()) < 1e-2


def test_edge_of_stability(run_example: Run) -> None:
    found = run_example("edge_of_stability")
    gradient, central = found["distances"]
    assert central < 0.4 * gradient
    assert 0.5 < found["predicted"] / found["measured"] < 2
    flow = found["solutions"][1]
    np.testing.assert_allclose(flow.critical_eigenvalue[5:].max("critical"), 2.0, atol=0.01)
    assert 1.8 < float(found["run"].normalised_sharpness.mean()) < 2.2


def test_sweep(run_example: Run) -> None:
    found = run_example("sweep")
    errors = found["errors"]
    assert errors.shape == (4, 3)
    np.testing.assert_allclose(errors[128][1:].values / errors[128][:-1].values, 2.0, rtol=0.05)  # order 1
    assert (errors[8] > 2 * errors[128]).all()  # and with the batches' noise
    assert errors.loc[0.4, 8] > 0.5
    assert len(found["axes"][0].texts) == 12


def test_engines(run_example: Run) -> None:
    found = run_example("engines")
    for time, results in zip(found["times"], found["results"], strict=True):
        for engine, rows in results.items():
            tolerances = 10.0 ** -np.array(found["tolerances"][engine])
            assert (rows[:, 1] < 20 * tolerances).all()
            assert rows[-1, 1] < 0.1 * rows[0, 1]
        explicit, implicit, stabilised = (results[name][0, 0] for name in ("scipy", "sundials", "torch"))
        # Where the time is long stability is what an explicit method pays for.
        assert (max(implicit, stabilised) < 0.7 * explicit) == (time > 100)


def test_paper_figure(run_example: Run) -> None:
    found = run_example("paper_figure")
    errors = found["errors"]
    assert (errors["exact_epsilon"] < 1e-10).all()  # exact, with what BatchNorm's ε does
    assert np.isfinite(errors["first_order"]).tolist() == [True, True, False]  # for no run with momentum
    assert np.isfinite(errors["second_order"]).tolist() == [False, False, True]
    assert np.nanmax([*errors["first_order"], *errors["second_order"]]) < 0.02
    assert (found["folder"] / "charges.pdf").read_bytes().startswith(b"%PDF")
    charge = found["study"]["discrete/charge"]
    plain, decayed = (charge.isel(lr=i).values for i in (0, 1))
    bias = found["study"]["discrete/kind"].values == "translation"
    assert bias.any()
    np.testing.assert_allclose(plain[:, bias], plain[:1, bias].repeat(len(plain), 0), atol=1e-12)
    # exp(−λt), in steps: (1 − ηλ)^k.
    steps = np.arange(len(decayed))[:, None]
    np.testing.assert_allclose(decayed[:, bias], decayed[:1, bias] * (1 - 0.1 * 0.02) ** steps, atol=1e-12)


def test_layers(run_example: Run) -> None:
    gradient, modified = run_example("layers")["compared"]
    assert gradient.layer.values.tolist() == ["conv1", "conv2", "linear"]
    assert (modified.layer_relative_error < 0.1 * gradient.layer_relative_error).all()
    for one in (gradient, modified):
        assert float(one.solver_error) < 0.1 * float(one.error)


def test_minibatch_noise(run_example: Run) -> None:
    found = run_example("minibatch_noise")["found"]
    assert found.p_value > 0.01
    assert found.mean < 3 * found.mean_noise
    assert found.covariance < 2 * found.covariance_noise
