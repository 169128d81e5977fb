"""The package as a whole: what importing it brings in, and the README's example."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import nm_ode

ROOT = Path(__file__).resolve().parents[1]
LATE = ("juliacall", "juliapkg", "diffeqpy", "matplotlib", "dask")


def modules_after(code: str) -> set[str]:
    code += "\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize(
    "code",
    [
        "import nm_ode",
        "import nm_ode; [getattr(nm_ode, name) for name in nm_ode.__all__]",
        "import nm_ode.cli",
        "import nm_ode.studies",
    ],
)
def test_importing_brings_in_no_julia_and_no_plotting(code: str) -> None:
    assert not modules_after(code) & set(LATE)


def test_importing_the_package_alone_costs_nothing() -> None:
    assert not modules_after("import nm_ode") & {"torch", "numpy", "xarray", "scipy"}


def test_bridges_know_neither_torch_nor_xarray() -> None:
    loaded = modules_after("import bridges; [bridges.get_engine(name) for name in bridges.engine_names()]")
    assert not loaded & {"torch", "xarray", "nm_ode"}


def test_only_results_reads_the_attributes_of_a_dataset() -> None:
    others = [path for path in (ROOT / "nm_ode").rglob("*.py") if "results" not in path.parts]
    assert len(others) > 100
    assert [path.name for path in others if ".attrs" in path.read_text(encoding="utf-8")] == []


def test_every_public_name_is_there_and_in_dir() -> None:
    for name in nm_ode.__all__:
        assert getattr(nm_ode, name) is not None
    assert set(nm_ode.__all__) <= set(dir(nm_ode))
    with pytest.raises(AttributeError, match="no attribute 'slove'"):
        nm_ode.slove  # noqa: B018


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        torch.manual_seed(0)  # models that are not seeded are the same, whatever ran before
        exec(compile(block, "README.md", "exec"), {})
