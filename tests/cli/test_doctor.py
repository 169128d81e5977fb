"""nm-ode doctor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from bridges import Engine, OdeProblem, OdeSolution, Statistics
from bridges.engines import ENGINES
from bridges.julia.installing import installation
from bridges.methods import Method


def found(call) -> dict[str, dict]:
    told = json.loads(call("doctor", "--json").stdout)
    return {engine["name"]: engine for engine in told["engines"]}


def test_doctor_tries_every_engine(case: Path, call) -> None:
    result = call("doctor")
    assert result.exit_code == 0
    for text in (*ENGINES, "cpu", "torch"):
        assert text in result.stdout


def test_doctor_speaks_json(case: Path, call) -> None:
    told = json.loads(call("doctor", "--json").stdout)
    works = {engine["name"]: engine["works"] for engine in told["engines"]}
    embedded = dict.fromkeys(("scipy", "sundials", "torch"), True)
    assert works == {**embedded, "diffeq": installation().ready}
    assert all(finding["remedy"] for finding in told["engines"] if not finding["works"])
    assert told["versions"]["torch"].startswith("2.")


class Wrong(Engine):
    """An engine that stays where it starts."""

    name = "wrong"
    methods: Mapping[str, Method] = {"Stay": Method(kind="explicit", order=1)}
    version = "Wrong 1.0"
    remedy = "throw it away"

    def solve(self, problem: OdeProblem, method: str, on_sample) -> OdeSolution:
        for i, t in enumerate(problem.times):
            on_sample(i, float(t), np.array(problem.y0))
        end = float(problem.times[-1])
        return OdeSolution("wrong", method, "success", "", end, len(problem.times), Statistics(1, 1, 0, 0.0))


@pytest.mark.parametrize(
    ("entry", "detail", "remedy"),
    [
        (Wrong, "wrong by", "throw it away"),
        ("no_such_module:Engine", "no_such_module", "install no_such_module"),
    ],
)
def test_doctor_sees_an_engine_that_is_wrong_or_missing(
    case: Path, call, entry, detail: str, remedy: str
) -> None:
    """Whatever its name: the doctor reads the registry."""
    ENGINES.register("newcomer", entry)
    try:
        seen = found(call)
    finally:
        ENGINES.unregister("newcomer")
    assert not seen["newcomer"]["works"]
    assert detail in seen["newcomer"]["detail"]
    assert remedy in seen["newcomer"]["remedy"]
    assert seen["scipy"]["works"]
