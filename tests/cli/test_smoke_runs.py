"""nm-ode run --smoke and --data: what they run, and what is told where data or a GPU are missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nm_ode.results import open_study
from nm_ode.studies import open_store
from tests.studies.conftest import TINY

SMOKE = '\n[smoke]\n"training.steps" = 2\n"training.save_every" = 1\nflows = []\n'


def test_a_smoke_run_has_results_of_its_own(case: Path, call) -> None:
    case.write_text(TINY + SMOKE)
    result = call("run", case, "--smoke")
    assert result.exit_code == 0
    assert open_store(case.parent / "results/tiny_smoke/run.zarr")["discrete"].sizes["step"] == 2
    assert (case.parent / "results/tiny_smoke/report.html").exists()
    assert not (case.parent / "results/tiny").exists()
    assert "Done before" in call("run", case, "--smoke").stdout


def test_a_smoke_run_of_a_sweep_runs_its_members(case: Path, call) -> None:
    case.write_text(f'{TINY}{SMOKE}\n[sweep]\n"optimizer.lr" = [0.1, 0.2]\n')
    result = call("run", case, "--smoke", "--workers", "0")
    assert result.exit_code == 0, result.output
    study = open_study(str(case.parent / "results/tiny_smoke/study.zarr"))
    assert dict(study["discrete"].sizes) | {"lr": 2, "step": 2} == dict(study["discrete"].sizes)


def test_a_case_without_the_table_says_so(case: Path, call) -> None:
    result = call("run", case, "--smoke")
    assert result.exit_code == 2
    assert "smoke: there is no such table" in " ".join(result.stderr.split())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("more", ["", '\n[sweep]\n"optimizer.lr" = [0.1]\n'])
def test_where_a_gpu_is_missing_the_smoke_run_is_offered(case: Path, call, more: str) -> None:
    case.write_text(TINY.replace("seed = 1", 'seed = 1\ndevice = "cuda"') + SMOKE + more)
    result = call("run", case)
    assert result.exit_code == 2
    told = " ".join(result.stderr.split())
    assert "torch sees no GPU here" in told
    assert "tiny.toml --smoke` runs some steps of it" in told


def test_a_folder_for_data_that_have_none_is_a_mistake(case: Path, call) -> None:
    result = call("run", case, "--data", case.parent)
    assert result.exit_code == 2
    assert "lies in no folder" in " ".join(result.stderr.split())
