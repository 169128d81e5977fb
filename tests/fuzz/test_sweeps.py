"""Tables [sweep] of any kind: members, or a sentence with the file's name."""

from __future__ import annotations

import math
import random
import tomllib
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nm_ode.studies import CaseError, expand
from tests.studies.conftest import TINY

SETTINGS = settings(derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


def _drawn(draw: random.Random, depth: int = 0) -> Any:
    """A value as a table [sweep] may have, or nearly."""
    match draw.randrange(9 if depth < 3 else 6):
        case 0:
            return draw.choice([0, 1, -3, 7, 2**70, True, 0.1, 1e-300, 1e300, float("inf"), float("nan")])
        case 1:
            return draw.choice(
                ["full", "", "relu", "lr * steps = 1", "lr*seed^-1=.5", "é/\0", "x" * 200, "seed"]
            )
        case 2 | 3:
            return draw.choice([[0.1, 0.2], [1, 2, 3], [5, 10], ["tanh", "relu"], [[64, 4, 10], [64, 8, 10]]])
        case 4:
            return {
                draw.choice(["range", "linspace", "geomspace"]): draw.choice(
                    [3, 2.5, [1, 4], [1, 9, 3], [1e-3, 1, 4], "a"]
                )
            }
        case 5:
            return draw.choice([["lr", "steps"], [["seed", "lr"]], ["order"], "order", "auto", False])
        case 6 | 7:
            return [_drawn(draw, depth + 1) for _ in range(draw.randrange(4))]
        case _:
            return {
                draw.choice(["lr", "name", "seed", "x"]): _drawn(draw, depth + 1)
                for _ in range(draw.randrange(3))
            }


DRAWN = [
    *("optimizer.lr", "optimizer.momentum", "seed", "training.steps", "training.save_every", "model.widths"),
    *(
        "model",
        "flows",
        "flows[0]",
        "flows[1].order",
        "flows[9]",
        "solver.rtol",
        "optimizer",
        "lr",
        "a b",
        "é",
    ),
    *(
        "zip",
        "constraint",
        "reduce",
        "vectorise",
        "max_seconds",
        "optimizer.schedule",
        "data.samples",
        "title",
    ),
]


@settings(SETTINGS, max_examples=100)
@given(seed=st.integers(0, 2**32))
def test_any_table_is_a_sweep_or_a_sentence(seed: int) -> None:
    draw = random.Random(seed)
    table = {draw.choice(DRAWN): _drawn(draw) for _ in range(draw.choice([1, 1, 2, 3]))}
    told = []
    try:
        sweep = expand({**tomllib.loads(TINY), "sweep": table}, Path("case.toml"))
        assert (
            len({member.name for member in sweep.members})
            == math.prod(sweep.record.shape)
            == sweep.table.size
        )
    except CaseError as error:
        told = str(error).splitlines()
    assert all(line.startswith("case.toml: ") for line in told)
