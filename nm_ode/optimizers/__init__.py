"""Update maps Φ as pure functions of the optimiser's whole state, equal to torch.optim step for step."""

from nm_ode.optimizers.adam import Adam, AdamW
from nm_ode.optimizers.base import SERIES_LIMIT, Optimizer, StateLayout, describe
from nm_ode.optimizers.sgd import SGD

__all__ = ["SERIES_LIMIT", "SGD", "Adam", "AdamW", "Optimizer", "StateLayout", "describe"]
