"""Types of the options that several networks have, with their ranges; the case schema reads them."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from annotated_types import Ge, Gt, Le

from nm_ode.models.activations import ACTIVATIONS
from nm_ode.registry import OneOf

Count: TypeAlias = Annotated[int, Ge(1), Le(10**9)]
"""A number of units, channels, classes."""

Depth: TypeAlias = Annotated[int, Ge(1), Le(1000)]
"""A number of layers, each of which is made by itself."""

Factor: TypeAlias = Annotated[float, Gt(0)]

Activation: TypeAlias = Annotated[str, OneOf(ACTIVATIONS)]
"""A key of ACTIVATIONS."""
