"""The registries that additions go into, and leaving them as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def restored() -> Iterator[None]:
    """What is registered meanwhile is taken out again."""
    before = {name: set(registry) for name, registry in REGISTRIES.items()}
    rules, declared, commands = dict(RULES), dict(DECLARED), list(app.registered_commands)
    try:
        yield
    finally:
        for name, registry in REGISTRIES.items():
            for added in set(registry) - before[name]:
                registry.unregister(added)
        RULES.clear()
        RULES.update(rules)
        DECLARED.clear()
        DECLARED.update(declared)
        app.registered_commands[:] = commands
