"""Data sets of images as a case file names them: with networks of images, and with networks of vectors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from nm_ode.data import DATA
from nm_ode.data.images.generated import GENERATED
from nm_ode.models import cnn, mlp
from nm_ode.studies import CaseError, build_study, load_case

CASE = """
name = "images"
seed = 3
loss = "cross_entropy"
model = { MODEL }
data = { name = "DATA", folder = "here", samples = 12 }
optimizer = { name = "sgd", lr = 0.1 }
training = { steps = 2 }
"""
MLP = 'name = "mlp", widths = [784, 5, 10]'
CNN = 'name = "cnn", classes = 10, widths = [4]'


def written(folder: Path, data: str, model: str) -> Path:
    path = folder / "images.toml"
    path.write_text(CASE.replace("MODEL", model).replace("DATA", data))
    return path


def by_hand(data: str, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    whole = DATA[data](folder)
    x = whole.x.double() / 255
    mean, std = x.mean(dim=(0, 2, 3), keepdim=True), x.std(dim=(0, 2, 3), keepdim=True, correction=0)
    return ((x - mean) / std)[:12], whole.y[:12]


def test_a_network_of_vectors_takes_images(tmp_path: Path) -> None:
    folder = GENERATED["mnist"](tmp_path / "here", per_class=2, held_out=10)
    path = written(tmp_path, "mnist", MLP)
    problem = build_study(load_case(path), path).problem
    x, y = by_hand("mnist", folder)
    expected = F.cross_entropy(mlp([784, 5, 10], seed=3)(x.flatten(1)), y)
    assert float(problem.loss(problem.theta0)) == pytest.approx(expected.item(), rel=1e-12)


def test_a_network_of_images_takes_them_in_their_shape(tmp_path: Path) -> None:
    folder = GENERATED["cifar10"](tmp_path / "here", per_class=2, held_out=10)
    path = written(tmp_path, "cifar10", CNN)
    problem = build_study(load_case(path), path).problem
    x, y = by_hand("cifar10", folder)
    expected = F.cross_entropy(cnn([4], image=32, channels=3, seed=3)(x), y)
    assert float(problem.loss(problem.theta0)) == pytest.approx(expected.item(), rel=1e-12)


def test_held_out_images_become_vectors_too(tmp_path: Path) -> None:
    data = DATA["mnist"](GENERATED["mnist"](tmp_path / "here", per_class=2, held_out=10))
    test = data.as_vectors().held_out()
    assert test is not None
    images = data.held_out().source().take(None)[0]  # type: ignore[union-attr]
    assert torch.equal(test.source().take(None)[0], images.reshape(10, 784))


def test_a_number_of_inputs_that_is_not_theirs_is_named(tmp_path: Path) -> None:
    GENERATED["mnist"](tmp_path / "here", per_class=2, held_out=10)
    path = written(tmp_path, "mnist", MLP.replace("784", "783"))
    with pytest.raises(
        CaseError, match=r"images.toml: model.widths\[0\]: 783 was given; .* so it must be 784"
    ):
        build_study(load_case(path), path)


@pytest.mark.parametrize("name", GENERATED)
def test_a_folder_that_is_not_there_is_named_with_the_case(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, MLP)
    with pytest.raises(CaseError, match=r"images.toml: data: no folder .*here"):
        build_study(load_case(path), path)
