"""CONTRIBUTING.md's how-tos, followed: each example runs by itself, and leaves the registries as they were."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bridges.engines import ENGINES
from nm_ode.charges import LAWS
from nm_ode.cli import app
from nm_ode.data import DATA
from nm_ode.flows import FLOWS
from nm_ode.models import MODELS
from nm_ode.observers import OBSERVERS
from nm_ode.optimizers import OPTIMIZERS, SCHEDULES
from nm_ode.registry import Registry
from nm_ode.reporting import PLOTS
from nm_ode.studies.losses import LOSSES
from nm_ode.studies.reductions import REDUCTIONS
from nm_ode.symmetries import KINDS
from nm_ode.symmetries.operations.declared import DECLARED
from nm_ode.symmetries.rules.scaling import RULES

PAGE = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"
HOW_TOS = dict(
    re.findall(r"^### … (.*?)\n.*?```python\n(.*?)```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
)
REGISTRIES: dict[str, Registry] = {
    "DATA": DATA,
    "ENGINES": ENGINES,
    "FLOWS": FLOWS,
    "KINDS": KINDS,
    "LAWS": LAWS,
    "LOSSES": LOSSES,
    "MODELS": MODELS,
    "OBSERVERS": OBSERVERS,
    "OPTIMIZERS": OPTIMIZERS,
    "PLOTS": PLOTS,
    "REDUCTIONS": REDUCTIONS,
    "SCHEDULES": SCHEDULES,
}


@pytest.fixture(autouse=True)
def _as_they_were() -> Iterator[None]:
    before = {name: set(registry) for name, registry in REGISTRIES.items()}
    rules, declared, commands = dict(RULES), dict(DECLARED), list(app.registered_commands)
    yield
    for name, registry in REGISTRIES.items():
        for added in set(registry) - before[name]:
            registry.unregister(added)
    RULES.clear()
    RULES.update(rules)
    DECLARED.clear()
    DECLARED.update(declared)
    app.registered_commands[:] = commands


@pytest.mark.parametrize("how_to", HOW_TOS)
def test_each_how_to_runs_by_itself(how_to: str, tmp_path: Path) -> None:
    example = tmp_path / "how_to.py"
    example.write_text(HOW_TOS[how_to])
    torch.manual_seed(0)  # models that are not seeded are the same, whatever ran before
    runpy.run_path(str(example), run_name="how_to")


def test_every_how_to_has_an_example() -> None:
    assert len(HOW_TOS) == PAGE.read_text().count("\n### … ")


@pytest.mark.parametrize("name", REGISTRIES)
def test_there_is_a_how_to_for_each_registry(name: str) -> None:
    assert any(f"\n{name}.register(" in example for example in HOW_TOS.values())
