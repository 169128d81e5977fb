"""Update maps Φ as pure functions of the optimiser's whole state, equal to torch.optim step for step."""

from nm_ode.optimizers.adam import Adam, AdamW
from nm_ode.optimizers.base import (
    SERIES_LIMIT,
    Optimizer,
    StabilityLimit,
    StateLayout,
    describe,
    hyperparameters,
    require_optimizer,
)
from nm_ode.optimizers.rmsprop import RMSprop, ScalarRMSprop, TorchScalarRMSprop
from nm_ode.optimizers.schedules import SCHEDULES, Constant, Cosine, Drop, Schedule, Warmup, factors_of
from nm_ode.optimizers.sgd import SGD
from nm_ode.registry import Registry

OPTIMIZERS: Registry[type[Optimizer]] = Registry(
    "optimiser",
    {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop, "scalar_rmsprop": ScalarRMSprop},
)
"""Name in a case file → class.

Example:
    >>> from nm_ode.optimizers import OPTIMIZERS
    >>> sorted(OPTIMIZERS)
    ['adam', 'adamw', 'rmsprop', 'scalar_rmsprop', 'sgd']
    >>> OPTIMIZERS["adam"](lr=1e-3)
    Adam(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0)
"""

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "SERIES_LIMIT",
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "Drop",
    "Optimizer",
    "RMSprop",
    "ScalarRMSprop",
    "Schedule",
    "StabilityLimit",
    "StateLayout",
    "TorchScalarRMSprop",
    "Warmup",
    "describe",
    "factors_of",
    "hyperparameters",
    "require_optimizer",
]
