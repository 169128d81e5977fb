"""A sweep whose members take a while, write down that they began, and can go on from any step."""

from __future__ import annotations

from pathlib import Path

CASE = """
name = "slow"
loss = "mse"
flows = ["gradient"]
model = {{ python = "own.py:build" }}

[data]
name = "diabetes"
samples = 20

[optimizer]
lr = 0.02

[training]
steps = {steps}
save_every = 5

[solver]
engine = "scipy"
rtol = 1e-4
check = false

[sweep]
seed = {{ range = {members} }}
vectorise = false
"""

OWN = """
import os
import time

import torch
from torch import nn

from nm_ode.studies import keeping

keeping._EVERY = 0.0  # a checkpoint at every step
HERE = os.path.dirname(os.path.abspath(__file__))


class Slow(nn.Linear):
    def forward(self, x):
        time.sleep(self.pause)
        return super().forward(x)


def build(seed):
    with open(os.path.join(HERE, "begun.txt"), "a") as journal:
        journal.write(f"{seed}\\n")
    print(f"member {seed} begins")
    torch.manual_seed(seed)
    slow = Slow(10, 1)
    with open(os.path.join(HERE, "pause.txt")) as file:  # no part of the code, which makes a member another one
        slow.pause = float(file.read())
    return slow
"""


def write_slow(folder: Path, members: int, *, steps: int = 20, pause: float = 0.01) -> Path:
    """The case file."""
    (folder / "own.py").write_text(OWN)
    (folder / "pause.txt").write_text(str(pause))
    path = folder / "slow.toml"
    path.write_text(CASE.format(members=members, steps=steps))
    return path


def begun(folder: Path) -> list[str]:
    """Seeds of the members, as often as each was begun."""
    journal = folder / "begun.txt"
    return journal.read_text().split() if journal.exists() else []
