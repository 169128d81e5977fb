"""Members of a sweep whose trainings are taken as one: what each would have computed alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nm_ode
from nm_ode.studies import load_sweep, run_case
from nm_ode.studies.sweep.expand import Sweep
from nm_ode.studies.together import Companion, alike, train_companions
from tests.together.runs import assert_same_run

SWEEP = """
name = "small"
loss = "cross_entropy"
flows = [{ kind = "gradient", batches = "full" }]
[model]
name = "mlp"
widths = [64, 4, 10]
activation = "tanh"
[data]
name = "digits"
samples = 40
[optimizer]
name = "sgd"
lr = 0.1
[training]
steps = 6
batch_size = 10
save_every = 3
[solver]
rtol = 1e-3
check = false
"""


def swept(folder: Path, sweep: str, text: str = SWEEP) -> Sweep:
    path = folder / "small.toml"
    path.write_text(f"{text}\n[sweep]\n{sweep}\n")
    found = load_sweep(path)
    assert found is not None
    return found


def companions(sweep: Sweep, folder: Path) -> list[Companion]:
    return [
        Companion(member.case, folder / member.name / member.case.name / "run.zarr", "")
        for member in sweep.members
    ]


def test_what_is_alike(tmp_path: Path) -> None:
    sweep = swept(
        tmp_path,
        '"optimizer.lr" = [0.1, 0.2]\n"optimizer.momentum" = [0.0, 0.5, 0.9]\n"training.steps" = [5, 6]\n'
        'zip = [["optimizer.lr", "training.steps"]]\nseed = { range = 2 }',
    )
    groups = alike({member.name: member.case for member in sweep.members})
    assert sorted(map(len, groups)) == [2, 2, 4, 4]  # steps differ, and without momentum there is no velocity
    assert {name for group in groups for name in group} == {member.name for member in sweep.members}


def test_who_is_the_only_one_of_its_kind_has_no_companions(tmp_path: Path) -> None:
    sweep = swept(tmp_path, '"training.steps" = [5, 6]')
    assert alike({member.name: member.case for member in sweep.members}) == []


@pytest.mark.parametrize(
    ("sweep", "text"),
    [
        ("seed = { range = 2 }", SWEEP),
        (
            '"optimizer.lr" = [0.1, 0.3]\n"optimizer.momentum" = [0.5, 0.9]\nzip = ["lr", "momentum"]',
            SWEEP.replace("save_every", "warm_steps = 4\nsave_every").replace(
                'kind = "gradient"', 'kind = "slow_manifold", order = 1'
            )
            + "[stability]\npoints = 2\n[symmetries]\n[[observe]]\nname = 'statistics'\n",
        ),
        (
            '"optimizer.lr" = [0.1, 0.2]',
            SWEEP.replace("batch_size = 10\nsave_every = 3", "save_every = 1").replace(
                '{ kind = "gradient", batches = "full" }', '{ kind = "central", delayed = true }'
            ),
        ),
    ],
    ids=["seeds", "numbers, after warm steps", "rates, beside a central flow"],
)
def test_each_member_has_what_it_has_alone(tmp_path: Path, sweep: str, text: str) -> None:
    made = swept(tmp_path, sweep, text)
    together = companions(made, tmp_path / "together")
    said: list[str] = []
    assert train_companions(together, made.path, True, say=said.append) == len(made.members)
    assert not said
    for member in made.members:
        for part in ("together", "alone"):
            outcome = run_case(member.case, made.path, tmp_path / part / member.name, say=said.append)
            assert not outcome.failures
        found, expected = (
            nm_ode.open_store(tmp_path / part / member.name / "small" / "run.zarr")
            for part in ("together", "alone")
        )
        assert {node.path for node in found.subtree} == {node.path for node in expected.subtree}
        for group in ("discrete", "discrete/curvature") if "stability" in text else ("discrete",):
            # Lanczos ends at a tolerance of its own.
            assert_same_run(
                found[group].to_dataset(),
                expected[group].to_dataset(),
                1e-5 if "curvature" in group else 1e-9,
            )
        for name in expected["comparison"].children:
            np.testing.assert_allclose(
                found[f"comparison/{name}"].error, expected[f"comparison/{name}"].error, rtol=1e-6
            )
    assert train_companions(together, made.path, True) == 0  # all are there


def test_what_diverges_is_left_to_the_member(tmp_path: Path) -> None:
    text = SWEEP.replace("cross_entropy", "mse").replace('"digits"', '"diabetes"')
    text = text.replace("[64, 4, 10]", "[10, 4, 1]").replace("steps = 6", "steps = 40")
    sweep = swept(tmp_path, '"optimizer.lr" = [0.01, 1e5, 0.02]', text)
    assert train_companions(companions(sweep, tmp_path), sweep.path, True) == 2
    outcome = run_case(sweep.members[1].case, sweep.path, tmp_path / sweep.members[1].name)
    assert any("diverged" in sentence for sentence in outcome.failures)


def test_what_cannot_be_vectorised_is_said(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "import torch\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.linear = nn.Linear(64, 10)\n"
        "    def forward(self, x):\n"
        "        y = self.linear(x)\n"
        "        return y if y.sum() > 0 else 2 * y\n"
        "def build(seed):\n"
        "    torch.manual_seed(seed)\n"
        "    return Net()\n"
    )
    text = SWEEP.replace('name = "mlp"\nwidths = [64, 4, 10]\nactivation = "tanh"', 'python = "own.py:build"')
    sweep, said = swept(tmp_path, "seed = { range = 2 }", text), list[str]()
    assert train_companions(companions(sweep, tmp_path), sweep.path, True, say=said.append) == 0
    assert "vmap" in said[0]
    assert train_companions(companions(sweep, tmp_path), sweep.path, "auto", say=said.append) == 0
    assert len(said) == 1


def test_a_model_that_is_another_one_at_each_seed_is_not_taken_for_the_same(tmp_path: Path) -> None:
    """Not only the start differs: what is not trained is drawn too."""
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "import torch\n"
        "def build(seed):\n"
        "    torch.manual_seed(seed)\n"
        "    frozen, head = nn.Linear(64, 6).requires_grad_(False), nn.Linear(6, 10)\n"
        "    return nn.Sequential(frozen, nn.Tanh(), head)\n"
    )
    text = SWEEP.replace('name = "mlp"\nwidths = [64, 4, 10]\nactivation = "tanh"', 'python = "own.py:build"')
    sweep = swept(tmp_path, "seed = { range = 2 }", text)
    assert train_companions(companions(sweep, tmp_path), sweep.path, True) == 0
