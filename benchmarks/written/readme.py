"""The numbers in README.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo.table import counted

from written.results import number, percent, power, read


def _flow(name: str) -> Any:
    return read("pictures")["digits_mlp"]["flows"][name]


def _times_closer() -> str:
    return number(_flow("gradient")["error"] / _flow("modified_2_hessian")["error"])


def _solver_error() -> str:
    return power(
        max(flow["largest_solver_error"] for flow in read("pictures")["digits_mlp"]["flows"].values())
    )


def _overheads() -> list[float]:
    return [
        one["beside_the_bare_loop"]["everything"]["share_of_a_step"] for one in read("recorder")["networks"]
    ]


def _times_fewer() -> str:
    """Against dopri5 at the loosest tolerance and at the tightest."""
    rows = [
        row["torchdiffeq"]["times_the_gradients"] for row in read("flow_solve")["smooth"]["at_equal_error"]
    ]
    return f"{min(rows):.1f} to {max(rows):.1f}"


VALUES: dict[str, Callable[[], str]] = {
    "picture.gradient": lambda: power(_flow("gradient")["error"]),
    "picture.share": lambda: percent(_flow("gradient")["relative_error"], 2),
    "picture.closer": _times_closer,
    "picture.solver": _solver_error,
    "zoo.networks": lambda: str(len(read("model_zoo")["networks"])),
    "zoo.complete": lambda: str(counted(read("model_zoo")["networks"])["complete"]),
    "zoo.judged": lambda: str(counted(read("model_zoo")["networks"])["judged"]),
    "solve.fewer": _times_fewer,
    "recorder.least": lambda: percent(min(_overheads())),
    "recorder.most": lambda: percent(max(_overheads())),
}
