"""nm-ode run --smoke and --data: what they run, and what is told where data or a GPU are missing."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from nm_ode.cli import app
from nm_ode.data import DATA
from nm_ode.results import open_study, run_info, study_info
from nm_ode.studies import load, make_data, open_store, smoke
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


def test_results_say_what_they_are_of_beside_a_sweep_too(case: Path, call) -> None:
    case.write_text(TINY + SMOKE)
    other = case.with_name("other.toml")
    other.write_text(f'{TINY}{SMOKE}\n[sweep]\n"optimizer.lr" = [0.1]\n'.replace('"tiny"', '"other"'))
    result = call("run", case, other, "--smoke", "--workers", "0")
    assert result.exit_code == 0, result.output
    text = study_info(open_store(case.parent / "results/tiny_smoke/run.zarr")).case_text
    assert tomllib.loads(text)["name"] == "tiny_smoke"
    assert tomllib.loads(text)["training"]["steps"] == 2


IMAGES = """
name = "images"
dtype = "float32"
device = "cuda"
loss = "cross_entropy"
model = { name = "cnn", classes = 200, widths = [64, 64] }
data = { name = "image_folder", folder = "unpacked", augment = true }
optimizer = { name = "sgd", lr = 0.1 }
training = { steps = 40000, batch_size = 256, full_loss = false }
symmetries = { charges_every = 50 }
observe = [{ name = "held_out", every = 391 }, "sketch"]

[smoke]
"model.widths" = [4]
"model.classes" = 4
"training.steps" = 6
"training.batch_size" = 20
"symmetries.charges_every" = 2
"observe[0].every" = 3
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> tuple[Path, Result]:
    """The folder of a smoke run of images, and what the command said."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "images.toml").write_text(IMAGES)
    arguments = ["run", str(folder / "images.toml"), "--smoke", "--out", str(folder / "out")]
    return folder, CliRunner().invoke(app, arguments)


def test_a_smoke_run_generates_the_images_that_the_case_reads(images) -> None:
    folder, result = images
    assert result.exit_code == 0, result.output
    made = folder / "out/images_smoke"
    assert len(list((made / "images/train").glob("*/*.png"))) == 80
    assert not [
        path for path in made.iterdir() if path.name.startswith("images.") and "cache" not in path.name
    ]
    run = open_store(made / "run.zarr")["discrete"].dataset
    assert run.attrs["status"] == "success"
    assert run.held_out_step.values.tolist() == [0, 3, 6]
    assert run_info(run).grid.n_samples == 80
    assert "full_loss" not in run
    assert run.sizes["charge_step"] == 3
    html = (made / "report.html").read_text()
    assert "nobody trains on" in html
    assert "smoke run" in html


def test_test_samples_are_the_data_sets_own(images) -> None:
    folder, _ = images
    run = open_store(folder / "out/images_smoke/run.zarr")["discrete"].dataset
    data = DATA["image_folder"](folder=folder / "out/images_smoke/images").held_out()
    # At the start all classes are about as likely, and there are as many of each.
    assert len(data.x) == 20
    assert abs(float(run.test_loss[0]) - np.log(4)) < 0.5
    assert float(run.test_accuracy[0]) * 20 == pytest.approx(round(float(run.test_accuracy[0]) * 20))


def test_images_are_generated_once_and_may_be_read_from_elsewhere(images, tmp_path: Path, call) -> None:
    folder, _ = images
    train = folder / "out/images_smoke/images/train"
    before = train.stat().st_mtime_ns
    assert "Done before" in call("run", folder / "images.toml", "--smoke", "--out", folder / "out").stdout
    assert train.stat().st_mtime_ns == before
    other = call("run", folder / "images.toml", "--smoke", "--data", train.parent, "--out", tmp_path)
    assert other.exit_code == 0, other.output
    assert not (tmp_path / "images_smoke/images").exists()
    runs = [
        open_store(out / "images_smoke/run.zarr")["discrete"].dataset for out in (tmp_path, folder / "out")
    ]
    np.testing.assert_array_equal(runs[0].loss, runs[1].loss)


def test_images_that_another_command_generates_meanwhile_are_taken(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "images.toml").write_text(IMAGES)
    case = load(tmp_path / "images.toml", smoke=True, out=tmp_path / "out").case
    made = tmp_path / "out/images_smoke/images"

    def twice(folder: Path) -> None:
        for one in (folder, made):
            one.mkdir()
            (one / "image.png").touch()

    monkeypatch.setattr(smoke, "GENERATED", {"image_folder": twice})
    make_data(case, tmp_path / "out")
    assert list(made.parent.iterdir()) == [made]


def test_where_data_are_missing_it_is_said_where_they_were_looked_for(tmp_path: Path, call) -> None:
    path = tmp_path / "images.toml"
    path.write_text(IMAGES.replace('device = "cuda"\n', ""))
    result = call("run", path)
    told = " ".join(result.stderr.split())
    assert result.exit_code == 2
    for words in (f"no folder {tmp_path / 'unpacked'}", "--data DIR", "images.toml --smoke`"):
        assert words in told
    missing = call("run", path, "--data", tmp_path / "nowhere")
    assert f"no folder {tmp_path / 'nowhere'}" in " ".join(missing.stderr.split())
    assert "--data DIR" not in missing.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_data_and_a_missing_gpu_are_told_together(tmp_path: Path, call) -> None:
    path = tmp_path / "images.toml"
    path.write_text(IMAGES)
    told = call("run", path).stderr
    assert "torch sees no GPU" in told
    assert "no folder" in told
    assert told.count("--smoke`") == 1


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
