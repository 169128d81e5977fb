"""Types of the options that several networks have, with their ranges; the case schema reads them."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from annotated_types import Ge, Gt

from nm_ode.models.activations import ACTIVATIONS
from nm_ode.registry import OneOf

Count: TypeAlias = Annotated[int, Ge(1)]
"""A number of units, channels, layers."""

Factor: TypeAlias = Annotated[float, Gt(0)]

Activation: TypeAlias = Annotated[str, OneOf(ACTIVATIONS)]
"""A key of ACTIVATIONS."""
