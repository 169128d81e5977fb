"""What many members gain by taking each step at once: `train(…, members=…)` against as many calls of `train`, in turns.

    python benchmarks/together.py [--save]

64 seeds of networks with about 2,000 parameters; smaller and larger ones beside, to see where it ends. Of the loop one
call of `train` is taken in each round, times the number of members. Seconds are those that the thread computed, which
other programs on the machine do not add to. `speed_up` is the median over the rounds;
`largest_difference` is that of the rounds: of one member's parameters at the end, in the two ways, relative to their
norm.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from measuring import keep_pages, report
from torch import nn

import nm_ode
from nm_ode import SGD, Adam, Members, Optimizer, Problem
from nm_ode.models import cnn, mlp

MEMBERS, ROUNDS = 64, 5


@dataclass(frozen=True)
class Training:
    network: Callable[[], nn.Module]
    optimizer: Optimizer
    batch_size: Any
    steps: int = 120
    samples: int = 512
    inputs: tuple[int, ...] = (20,)


def small(hidden: int = 32) -> Callable[[], nn.Module]:
    return lambda: mlp([20, hidden, hidden, 10], "tanh")


HEAVY = SGD(lr=0.05, momentum=0.9)
TRAININGS = {
    "2058 parameters, batches of 8, momentum": Training(small(), HEAVY, 8),
    "2058 parameters, batches of 16, plain": Training(small(), SGD(lr=0.05), 16),
    "2058 parameters, batches of 16, momentum": Training(small(), HEAVY, 16),
    "2058 parameters, batches of 16, Adam": Training(small(), Adam(lr=0.01), 16),
    "2058 parameters, batches of 32, momentum": Training(small(), HEAVY, 32),
    "2058 parameters, batches of 128, momentum": Training(small(), HEAVY, 128, 40),
    "2058 parameters, all of 512 samples, plain": Training(small(), SGD(lr=0.05), "full", 20),
    "394 parameters, batches of 16, momentum": Training(small(12), HEAVY, 16),
    "19370 parameters, batches of 16, momentum": Training(small(128), HEAVY, 16, 30),
    "convolutions, batches of 16, momentum": Training(
        lambda: cnn(image=8, channels=1, classes=10, widths=[8, 8]), HEAVY, 16, 30, inputs=(1, 8, 8)
    ),
}


def measured(training: Training) -> dict[str, Any]:
    """Both ways in turns; seconds of a step of all members."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(training.samples, *training.inputs, generator=draw)
    y = torch.randint(10, (training.samples,), generator=draw)
    problem = Problem(training.network(), nn.functional.cross_entropy, (x, y))
    common: dict[str, Any] = {
        "steps": training.steps,
        "batch_size": training.batch_size,
        "save_every": training.steps,
    }

    def at_once() -> xr.Dataset:
        return nm_ode.train(problem, training.optimizer, members=Members(seed=range(MEMBERS)), **common)

    def alone(seed: int) -> xr.Dataset:
        return nm_ode.train(problem, training.optimizer, seed=seed, **common)

    at_once(), alone(0)  # warm
    pairs, differences = [], []
    for seed in range(ROUNDS):
        start = time.thread_time()
        made = at_once()
        between = time.thread_time()
        one = alone(seed)
        end = time.thread_time()
        pairs.append((between - start, (end - between) * MEMBERS))
        theta = one.theta.values[-1]
        difference = np.linalg.norm(nm_ode.member_run(made, seed).theta.values[-1] - theta)
        differences.append(float(difference / np.linalg.norm(theta)))
    steps = training.steps
    return {
        "parameters": problem.layout.size,
        "speed_up": statistics.median(b / a for a, b in pairs),
        "speed_up_of_each_round": [b / a for a, b in pairs],
        "ms_of_a_step_at_once": 1e3 * statistics.median(a for a, _ in pairs) / steps,
        "ms_of_a_step_in_turn": 1e3 * statistics.median(b for _, b in pairs) / steps,
        "largest_difference": max(differences),
    }


if __name__ == "__main__":
    keep_pages()
    torch.set_num_threads(1)
    report(
        "together",
        f"{MEMBERS} members at once with {MEMBERS} calls of train",
        {name: measured(training) for name, training in TRAININGS.items()},
    )
