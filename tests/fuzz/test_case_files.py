"""Broken and extreme case files, given to the command: a sentence and an exit code, before anything is computed."""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from nm_ode.cli import app
from nm_ode.studies import CaseError, run, shipped_cases
from nm_ode.studies.build import Study
from nm_ode.studies.member import compute
from nm_ode.studies.progress import Progress
from tests.studies.conftest import CHARGES, TINY

LINEAR = """
name = "linear"
loss = "mse"
flows = ["second_order", { kind = "modified", order = 3 }]
observe = [{ name = "kink_crossings", points = 2 }]

[model]
name = "linear"
inputs = 10
outputs = 1

[data]
name = "diabetes"
samples = 20

[optimizer]
name = "sgd"
lr = 0.05
momentum = 0.5

[training]
steps = 3
save_every = 1

[solver]
engine = "scipy"
method = "RK23"
rtol = 1e-4
max_rhs = 500

[stability]
points = 2
"""

BASES = [tomllib.loads(text) for text in (TINY, CHARGES, LINEAR)]
TEXTS = [TINY, LINEAR, *(path.read_text(encoding="utf-8") for path in shipped_cases())]

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 3, 2**31, 2**63, 10**9, 10**12, 10**30, -(10**30)),
    *(0.0, 0.5, -1.0, 1e-15, 1e-300, 1e300, float("inf"), float("-inf"), float("nan")),
    *(
        "",
        "auto",
        "sgd",
        "adam",
        "full",
        "same",
        "x" * 300,
        "[/red]",
        "$\\frac$",
        "a/b",
        "..",
        "con",
        "é\u2028\u0001",
    ),
    *("cuda:7", "float64", "my.py:f", "\\", "relu", "gradient", "diffeq", "DOP853", "Midpoint", "BDF"),
    *(
        [],
        [1],
        [[]],
        [1, "a"],
        ["gradient", "gradient"],
        [64, 4, 10],
        [10**12, 10**12],
        [0.1, 0.05],
        [0.1, 1e-300],
    ),
    *({}, {"name": "x"}, {"a": {"b": 1}}, {"name": "cosine", "final": 0.1}, {"python": "no.py:f"}),
]
KEYS = [
    "name",
    "kind",
    "lr",
    "steps",
    "rtol",
    "atol",
    "step",
    "max_step",
    "max_seconds",
    "max_steps",
    "engine",
]
KEYS += [
    "schedule",
    "order",
    "form",
    "batches",
    "batch_size",
    "seed",
    "device",
    "dtype",
    "sweep",
    "symmetries",
]
KEYS += [
    "python",
    "warm_steps",
    "points",
    "chunk_size",
    "save_every",
    "betas",
    "widths",
    "title",
    "é",
    "samples",
]


def toml(value: Any) -> str:
    """A value as TOML, tables inline."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{quoted(key)} = {toml(part)}" for key, part in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quoted(value)
    return repr(value) if value is not None else '""'


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(f"\\u{ord(c):04X}" if ord(c) < 32 else c for c in escaped) + '"'


def mutated(case: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Another case: a value, a key or a table at a random place is another, is gone, or is new."""
    made = {key: _copied(value) for key, value in case.items()}
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        tables = list(_containers(made))
        table = draw.choice(tables)
        value = _copied(draw.choice(VALUES))
        if isinstance(table, list):
            if table and draw.random() < 0.7:
                table[draw.randrange(len(table))] = value
            else:
                table.append(value)
        elif table and draw.random() < 0.15:
            del table[draw.choice(list(table))]
        elif table and draw.random() < 0.7:
            table[draw.choice(list(table))] = value
        else:
            table[draw.choice(KEYS)] = value
    return made


def _containers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _containers(part)


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(part) for key, part in value.items()}
    return [_copied(part) for part in value] if isinstance(value, list) else value


def damaged(text: str, draw: random.Random) -> bytes:
    """The bytes of a text of which a few were changed, as editors, disks and slips of the hand do."""
    content = bytearray(text.encode())
    for _ in range(draw.choice([1, 1, 2, 5])):
        place = draw.randrange(len(content) + 1)
        match draw.randrange(6):
            case 0:
                content[place:place] = draw.choice(
                    [b"\0", b"\xff", b"[", b"]", b'"', b"=", b"\t", b"#", b"'''", b"\r"]
                )
            case 1:
                del content[place : place + draw.choice([1, 3, 20])]
            case 2:
                content[place:] = b""
            case 3:
                lines = content.splitlines(keepends=True)
                lines.insert(draw.randrange(len(lines) + 1), draw.choice(lines or [b""]))
                content = bytearray(b"".join(lines))
            case 4:
                content = bytearray(draw.choice([b"\xef\xbb\xbf", b"\xff\xfe", b""]) + bytes(content))
            case _:
                content = bytearray(bytes(content).replace(b"\n", b"\r\n"))
    return bytes(content)


class Nowhere:
    """A store that keeps nothing."""

    def read(self, group: str) -> None:
        return None

    def write(self, group: str, dataset: xr.Dataset) -> None:
        """It is gone."""

    def checkpoint(self, group: str) -> Path:
        return Path(f".{group.replace('/', '-')}").absolute()


COMPUTED = "all that was asked was computed"


def is_small(study: Study) -> bool:
    """Does the study take no longer than a moment?"""
    case, problem = study.case, study.problem
    solver = case.solver
    return (
        case.training.steps + case.training.warm_steps <= 40
        and problem.layout.size <= 1000
        and case.sweep is None
        and all(isinstance(engine, str) and engine != "diffeq" for engine in solver.engines)
        and (solver.rtol is None or solver.rtol >= 1e-7)
        and (solver.atol is None or solver.atol >= 1e-9)
        and solver.step is None
        and solver.max_step is None
        and all(flow.options.get("order", 1) <= 4 for flow in case.flows)
        and case.optimizer.lr <= 1.0
    )


def stand_in(study: Study, writer: Any, progress: Progress, *told: Any) -> list[str]:
    """Computes what is small; what it then refuses was to be refused before."""
    if is_small(study):
        compute(study, Nowhere(), progress)  # type: ignore[arg-type]
    raise CaseError(COMPUTED)


@contextlib.contextmanager
def elsewhere() -> Iterator[Path]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def told(content: bytes, *more: str) -> str:
    """What the command says of a case file with this content: COMPUTED, or a sentence on a mistake."""
    with elsewhere() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "compute", stand_in)
        (folder / "case.toml").write_bytes(content)
        result = CliRunner().invoke(app, ["run", "case.toml", "--out", "out", *more])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 2, result.output
        assert result.stderr.lstrip().startswith("error: "), result.stderr
        assert "Traceback" not in result.output
        if COMPUTED not in result.stderr:
            assert not list(folder.glob("out/*/run.zarr*")), (
                "something was written before the mistake was found"
            )
        return result.stderr


SETTINGS = settings(derandomize=True, max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@SETTINGS
@given(seed=st.integers(0, 2**32))
def test_a_case_with_other_values_is_computed_or_refused(seed: int) -> None:
    draw = random.Random(seed)
    case = mutated(draw.choice(BASES), draw)
    content = "".join(f"{quoted(key)} = {toml(value)}\n" for key, value in case.items())
    told(content.encode("utf-8"), *draw.choice([(), (), ("--engine", "scipy"), ("--engine", "")]))


@SETTINGS
@given(seed=st.integers(0, 2**32))
def test_a_damaged_file_is_refused_with_its_name(seed: int) -> None:
    draw = random.Random(seed)
    content = damaged(draw.choice(TEXTS[:2]), draw)
    sentence = told(content)
    assert COMPUTED in sentence or "case.toml" in sentence


@pytest.mark.parametrize("base", BASES, ids=lambda base: base["name"])
def test_the_cases_that_are_changed_are_computed(base: dict[str, Any]) -> None:
    """Or nothing above would say much."""
    content = "".join(f"{quoted(key)} = {toml(value)}\n" for key, value in base.items())
    assert COMPUTED in told(content.encode("utf-8"))
