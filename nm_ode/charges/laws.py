"""The laws of motion that there are, by name, and which runs they describe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nm_ode.charges.errors import LawError
from nm_ode.charges.law import Law
from nm_ode.registry import Registry, UnknownNameError

LAWS: Registry[Law] = Registry(
    "law of motion",
    {
        "exact": "nm_ode.charges.exact:EXACT",
        "first_order": "nm_ode.charges.first_order:FIRST_ORDER",
        "second_order": "nm_ode.charges.second_order:SECOND_ORDER",
    },
)
"""Name → law of motion, as `predict_charges` takes it.

Example:
    >>> from nm_ode.charges import LAWS
    >>> [(name, law.title) for name, law in LAWS.items()][:2]
    [('exact', 'exact discrete law'), ('first_order', 'first-order continuous law')]
"""


def law_named(name: str) -> Law:
    """The law of that name.

    Raises:
        LawError: there is none; the text has near names.
    """
    try:
        return LAWS[name]
    except UnknownNameError as error:
        raise LawError(str(error)) from None


def laws_for(optimizer: str) -> list[str]:
    """Names of the laws that exist for an optimiser, by its class's name."""
    return [name for name, law in LAWS.items() if optimizer in law.optimizers]


def require_described(
    name: str, optimizer: str, hyperparameters: Mapping[str, Any], *, at_rest: bool = True
) -> None:
    """Raises LawError unless the law describes runs of this optimiser.

    Args:
        name: of the law.
        optimizer, hyperparameters: the class's name, and what it takes, as in RunInfo.
        at_rest: does the optimiser start with an empty state, not with that of an earlier run?
    """
    law = law_named(name)
    if optimizer not in law.optimizers:
        others = laws_for(optimizer)
        remedy = f"use {' or '.join(map(repr, others))}" if others else "no law predicts them"
        raise LawError(
            f"the {law.title} exists for {' and '.join(law.optimizers)}, and this run is of {optimizer}: its charges "
            f"are recorded, but {remedy}"
        )
    if not at_rest:
        raise LawError(
            f"the {law.title} is for a run that starts with the optimiser at rest, and this one goes on from the state "
            "of an earlier run, whose velocity no charge shows: its charges are recorded, but no law predicts them"
        )
    law.require_more(hyperparameters)
