"""The package as a whole: what importing it brings in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import nm_ode

ROOT = Path(__file__).resolve().parents[1]
LATE = ("juliacall", "juliapkg", "diffeqpy", "matplotlib", "dask")


IMPORTS = (
    "import nm_ode",
    "import nm_ode.studies",
    "import nm_ode.cli",
    "[getattr(nm_ode, name) for name in nm_ode.__all__]",
)


def modules_after(*lines: str) -> list[set[str]]:
    """What is imported after each line of one process."""
    told = "import sys; print(chr(0), *sys.modules)"
    code = "\n".join(f"{line}\n{told}" for line in lines)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    printed = [line for line in done.stdout.splitlines() if line.startswith(chr(0))]
    return [{name.split(".")[0] for name in line.split()[1:]} for line in printed]


@pytest.fixture(scope="module")
def imported() -> dict[str, set[str]]:
    """What is there after each of `IMPORTS`, each of which comes on top of those before it."""
    return dict(zip(IMPORTS, modules_after(*IMPORTS), strict=True))


@pytest.mark.parametrize("code", IMPORTS)
def test_importing_brings_in_no_julia_and_no_plotting(imported, code: str) -> None:
    assert "nm_ode" in imported[code]
    assert not imported[code] & set(LATE)


def test_importing_the_package_alone_costs_nothing(imported) -> None:
    assert not imported["import nm_ode"] & {"torch", "numpy", "xarray", "scipy"}


def test_bridges_know_neither_torch_nor_xarray() -> None:
    (loaded,) = modules_after("import bridges; [bridges.get_engine(name) for name in bridges.engine_names()]")
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
