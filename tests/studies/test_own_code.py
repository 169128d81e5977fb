"""The user's own Python in a case: run, resumed, refused when it has changed; mistakes are told with their line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import nm_ode
from nm_ode.results import study_info
from nm_ode.studies import (
    CaseError,
    StoreError,
    build_study,
    code_files,
    load_case,
    member,
    open_store,
    run_case,
)

NET = """
import torch
from torch import nn

def build(width, seed=0, *, bias=True):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, width, bias=bias), nn.Tanh(), nn.Linear(width, 1)).double()
"""

DATA = """
import torch

def load(samples, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 3, generator=generator, dtype=torch.float64)
    return x, x.sum(1, keepdim=True).sin()
"""

OBJECTIVE = """
def loss(model, batch, power=2):
    x, y = batch
    return (model(x) - y).pow(power).mean()
"""

CASE = """
name = "own"
seed = 3
objective = { python = "my_objective.py:loss" }
flows = ["gradient"]

[model]
python = "my_net.py:build"
width = 4

[data]
python = "my_data.py:load"
samples = 12

[optimizer]
lr = 0.05

[training]
steps = 6

[solver]
rtol = 1e-8
"""

Write = Callable[..., Path]


@pytest.fixture
def own(tmp_path: Path) -> Write:
    """Writes the case and its code with pieces of text replaced, and gives the case file."""

    def write(*edits: tuple[str, str, str]) -> Path:
        texts = {
            "own.toml": CASE,
            "my_net.py": NET,
            "my_data.py": DATA,
            "my_objective.py": OBJECTIVE,
        }
        for file, old, new in edits:
            assert old in texts[file]
            texts[file] = texts[file].replace(old, new)
        for file, text in texts.items():
            (tmp_path / file).write_text(text)
        return tmp_path / "own.toml"

    return write


def run(path: Path, out: Path) -> xr.DataTree:
    outcome = run_case(load_case(path), path, out)
    assert outcome.failures == ()
    return outcome.tree


def test_a_case_of_own_code_is_what_the_code_says(own: Write, tmp_path: Path) -> None:
    tree = run(own(), tmp_path / "out")
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x = torch.randn(12, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    problem = nm_ode.Problem(model, nn.functional.mse_loss, (x, x.sum(1, keepdim=True).sin()))
    expected = nm_ode.train(problem, nm_ode.SGD(lr=0.05), 6)
    np.testing.assert_allclose(tree["discrete/theta"], expected["theta"], rtol=1e-13, atol=1e-15)
    flow = nm_ode.solve(nm_ode.GradientFlow(problem), expected, rtol=1e-8)
    np.testing.assert_allclose(tree["flows/gradient/theta"], flow["theta"], rtol=1e-9)


def test_the_tree_says_which_code_it_is_of(own: Write, tmp_path: Path) -> None:
    path = own()
    info = study_info(run(path, tmp_path / "out"))
    assert list(info.code) == ["my_data.py", "my_net.py", "my_objective.py"]
    assert all(len(known) == 64 for known in info.code.values())
    assert info.case["model"] == {"python": "my_net.py:build", "width": 4}
    assert {file.name for file in code_files(load_case(path), path)} == set(info.code)


def test_keys_of_the_objective_are_its_keyword_arguments(own: Write, tmp_path: Path) -> None:
    path = own(("own.toml", '"my_objective.py:loss"', '"my_objective.py:loss", power = 4'))
    study = build_study(load_case(path), path)
    x, y = study.problem.batch()
    expected = (study.problem.model(x) - y).pow(4).mean().detach()
    assert study.problem.loss(study.problem.theta0) == pytest.approx(float(expected))


def test_own_code_beside_what_is_registered(own: Write, tmp_path: Path) -> None:
    path = own(
        ("own.toml", 'objective = { python = "my_objective.py:loss" }', 'loss = "mse"'),
        ("own.toml", 'python = "my_net.py:build"\nwidth = 4', 'name = "mlp"\nwidths = [3, 4, 1]'),
    )
    tree = run(path, tmp_path / "out")
    assert list(study_info(tree).code) == ["my_data.py"]
    assert tree["discrete"].sizes["param"] == 21
    wrong = own(
        ("own.toml", 'objective = { python = "my_objective.py:loss" }', 'loss = "mse"'),
        ("own.toml", 'python = "my_net.py:build"\nwidth = 4', 'name = "mlp"\nwidths = [5, 4, 1]'),
    )
    with pytest.raises(
        CaseError, match=r"model.widths\[0\]: 5 was given; my_data.py:load has inputs of shape"
    ):
        build_study(load_case(wrong), wrong)


def test_batches_of_any_structure(own: Write, tmp_path: Path) -> None:
    path = own(
        (
            "my_data.py",
            "return x, x.sum(1, keepdim=True).sin()",
            'return {"x": x, "y": x.sum(1, keepdim=True).sin()}',
        ),
        ("my_objective.py", "x, y = batch", 'x, y = batch["x"], batch["y"]'),
    )
    plain = run(own_elsewhere(tmp_path), tmp_path / "plain")
    xr.testing.assert_equal(run(path, tmp_path / "out")["discrete/theta"], plain["discrete/theta"])


def own_elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name, text in (
        ("own.toml", CASE),
        ("my_net.py", NET),
        ("my_data.py", DATA),
        ("my_objective.py", OBJECTIVE),
    ):
        (folder / name).write_text(text)
    return folder / "own.toml"


def test_model_and_data_of_one_file_share_its_classes(own: Write) -> None:
    path = own(
        ("own.toml", "my_data.py:load", "my_net.py:load"),
        ("own.toml", "my_objective.py:loss", "my_net.py:loss"),
        (
            "my_net.py",
            "import torch\n",
            "from __future__ import annotations\nfrom dataclasses import dataclass\nimport torch\n",
        ),
    )
    (path.parent / "my_net.py").write_text(
        (path.parent / "my_net.py").read_text()
        + """
@dataclass
class Batch:
    x: torch.Tensor
    y: torch.Tensor

def load(samples):
    x = torch.randn(samples, 3, dtype=torch.float64)
    return Batch(x, x.sum(1, keepdim=True))

def loss(model, batch):
    assert isinstance(batch, Batch)
    return (model(batch.x) - batch.y).square().mean()
"""
    )
    assert build_study(load_case(path), path).problem.n_samples == 12


def test_what_lies_beside_the_code_can_be_imported_and_counts_as_code(own: Write, tmp_path: Path) -> None:
    path = own(("my_net.py", "import torch\n", "import torch\nfrom own_widths import FACTOR\n"))
    helper = path.parent / "own_widths.py"
    helper.write_text("FACTOR = 2\n")
    info = study_info(run(path, tmp_path / "out"))
    assert "own_widths.py" in info.code
    assert "own_widths" not in sys.modules
    assert not (path.parent / "__pycache__").exists()
    helper.write_text("FACTOR = 3\n")
    with pytest.raises(StoreError, match=r"own_widths.py, which has changed"):
        run_case(load_case(path), path, tmp_path / "out")


def test_an_environment_beside_the_case_is_not_its_code(own: Write, tmp_path: Path, monkeypatch) -> None:
    """A module of C that is forgotten could not be imported again."""
    path = own(("my_net.py", "import torch\n", "import torch\nimport an_installed_package\n"))
    packages = path.parent / ".venv" / "lib" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "an_installed_package.py").write_text("")
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"purelib": str(packages)})
    try:
        code = build_study(load_case(path), path).code.hashes
        assert sorted(code) == ["my_data.py", "my_net.py", "my_objective.py"]
        assert "an_installed_package" in sys.modules
    finally:
        sys.modules.pop("an_installed_package", None)


def test_a_finished_case_is_found_done_and_nothing_is_run(own: Write, tmp_path: Path, monkeypatch) -> None:
    path = own()
    first = run(path, tmp_path / "out")
    monkeypatch.setattr(member, "train", None)
    again = run_case(load_case(path), path, tmp_path / "out")
    assert again.reused
    assert again.tree.identical(first)


@pytest.mark.parametrize("file", ["my_net.py", "my_data.py", "my_objective.py"])
def test_results_of_other_code_are_refused_and_kept(own: Write, tmp_path: Path, file: str) -> None:
    path = own()
    before = run(path, tmp_path / "out")
    (path.parent / file).write_text((path.parent / file).read_text() + "\n# changed\n")
    with pytest.raises(StoreError, match=rf"{file}, which has changed since: .*--out") as caught:
        run_case(load_case(path), path, tmp_path / "out")
    assert len(str(caught.value).splitlines()) == 1
    assert open_store(tmp_path / "out/own/run.zarr").identical(before)
    (path.parent / file).unlink()
    with pytest.raises(StoreError, match=rf"{file}, which is gone since"):
        run_case(load_case(path), path, tmp_path / "out")


def test_an_unfinished_run_goes_on_with_the_same_code_alone(own: Write, tmp_path: Path, monkeypatch) -> None:
    path = own()
    monkeypatch.setattr(member, "solve", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_case(load_case(path), path, tmp_path / "out")
    monkeypatch.undo()
    own(("my_net.py", "nn.Tanh()", "nn.Sigmoid()"))
    with pytest.raises(StoreError, match=r"my_net.py, which has changed"):
        run_case(load_case(path), path, tmp_path / "out")
    own()
    monkeypatch.setattr(member, "train", None)
    assert run_case(load_case(path), path, tmp_path / "out").failures == ()


def interrupted(*arguments, **options):
    raise KeyboardInterrupt


MISTAKES = [
    (
        ("own.toml", "my_net.py:build", "my_nett.py:build"),
        r"model.python: .*my_nett.py cannot be read \(No such file",
    ),
    (
        ("own.toml", "my_net.py:build", "my_net.py:biuld"),
        r"model.python: my_net.py has no function 'biuld'; did you mean 'build'",
    ),
    (
        ("own.toml", "my_net.py:build", "my_net:build"),
        r"model.python: 'my_net:build' was given; it must be 'file.py:function'",
    ),
    (("own.toml", "width = 4", "wdth = 4"), r"model: unknown key 'wdth'; did you mean 'width'\?"),
    (("own.toml", "width = 4", ""), r"model.width: is missing; my_net.py:build takes it"),
    (("own.toml", "width = 4", 'width = 4\nname = "mlp"'), r"model: name and python were given"),
    (("own.toml", "width = 4", 'width = "four"'), r"model.python: my_net.py, line 7: TypeError"),
    (
        ("my_net.py", "def build(", "1 / 0\ndef build("),
        r"model.python: my_net.py, line 5: ZeroDivisionError: division by zero",
    ),
    (("my_net.py", "def build(", "def build)"), r"model.python: my_net.py, line 5: SyntaxError"),
    (
        ("my_net.py", "import torch\n", "import torhc\n"),
        r"model.python: my_net.py, line 2: ModuleNotFoundError: No module named 'torhc'",
    ),
    (
        ("my_net.py", "return nn", "return 3  # nn"),
        r"model.python: my_net.py:build gave int, not a torch.nn.Module",
    ),
    (("my_data.py", "def load(", "def load(*, name, "), r"data.name: is missing; my_data.py:load takes it"),
    (
        ("my_data.py", "    generator", "    raise OSError('no disk')\n    generator"),
        r"data.python: my_data.py, line 5: OSError: no disk",
    ),
    (("my_data.py", "return x, ", "return x[:0], "), r"my_data|0 inputs|samples"),
    (
        ("my_objective.py", "model(x) - y", "model(y) - x"),
        r"objective.python: my_objective.py, line 4: RuntimeError",
    ),
    (
        ("own.toml", "my_objective.py:loss", "my_objective.py:lost"),
        r"objective.python: my_objective.py has no function 'lost'",
    ),
    (
        ("own.toml", '"my_objective.py:loss"', '"my_objective.py:loss", pow = 3'),
        r"objective: unknown key 'pow'; did you mean 'power'",
    ),
    (
        ("own.toml", "objective = {", 'loss = "mse"\nobjective = {'),
        r"loss, or an objective of your own: both was given|both were given",
    ),
    (
        ("own.toml", 'objective = { python = "my_objective.py:loss" }', ""),
        r"loss, or an objective of your own: neither",
    ),
]


@pytest.mark.parametrize(("edit", "sentence"), MISTAKES, ids=[sentence for _, sentence in MISTAKES])
def test_what_is_wrong_with_the_code_is_told_in_one_sentence(own: Write, edit, sentence: str) -> None:
    path = own(edit)
    with pytest.raises(CaseError, match=sentence) as caught:
        build_study(load_case(path), path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1


def test_an_exception_in_the_middle_of_a_run_is_told_too(own: Write, tmp_path: Path) -> None:
    path = own(
        (
            "my_objective.py",
            "def loss",
            "calls = []\ndef loss",
        ),
        (
            "my_objective.py",
            "x, y = batch",
            "x, y = batch\n    calls.append(1)\n    if len(calls) > 30: raise ValueError('enough')",
        ),
    )
    with pytest.raises(CaseError, match=r"objective.python: my_objective.py, line 6: ValueError: enough"):
        run_case(load_case(path), path, tmp_path / "out")


def test_what_goes_wrong_in_a_file_of_several_keys_is_laid_to_none(own: Write, tmp_path: Path) -> None:
    path = own(
        ("own.toml", "my_objective.py:loss", "my_net.py:loss"),
        ("my_net.py", "def build", "def loss(model, batch):\n    raise ValueError('enough')\n\ndef build"),
    )
    with pytest.raises(CaseError, match=r"own\.toml: my_net\.py, line 6: ValueError: enough"):
        run_case(load_case(path), path, tmp_path / "out")


def test_a_loss_that_is_no_scalar_on_one_batch_is_told_in_one_sentence(own: Write, tmp_path: Path) -> None:
    path = own(
        ("own.toml", "steps = 6", "steps = 6\nbatch_size = 5"),
        ("own.toml", 'flows = ["gradient"]\n', ""),
        ("my_objective.py", "    return", "    if len(x) == 2: return (model(x) - y).pow(2)\n    return"),
    )
    with pytest.raises(CaseError, match=r"own\.toml: the objective returns shape \(2, 1\)"):
        run_case(load_case(path), path, tmp_path / "out")
