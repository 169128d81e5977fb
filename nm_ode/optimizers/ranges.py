"""Ranges of hyper-parameters, declared once: at the field, where the case schema reads them too."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Annotated, Any, TypeAlias, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Lt

from nm_ode.errors import ArgumentError

Positive: TypeAlias = Annotated[float, Gt(0)]
NotNegative: TypeAlias = Annotated[float, Ge(0)]
Fraction: TypeAlias = Annotated[float, Ge(0), Lt(1)]

_WORDS = {
    (Gt(0),): "be a positive number",
    (Ge(0),): "be 0 or positive",
    (Ge(0), Lt(1)): "lie in [0, 1)",
}


def require_in_range(values: Any) -> None:
    """Check every field of a dataclass that is declared with a range.

    Raises:
        ArgumentError: one outside its range, or not finite.
    """
    hints = get_type_hints(type(values), include_extras=True)
    for field in fields(values):
        _require(field.name, hints[field.name], getattr(values, field.name))


def _require(name: str, hint: Any, value: Any) -> None:
    if get_origin(hint) is tuple:
        if not isinstance(value, tuple | list) or len(value) != len(get_args(hint)):
            raise ArgumentError(f"{name} must be {len(get_args(hint))} numbers; {value!r} was given")
        for i, (part, one) in enumerate(zip(get_args(hint), value, strict=True)):
            _require(f"{name}[{i}]", part, one)
        return
    limits = tuple(part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Gt | Ge | Lt))
    if limits and not isinstance(value, int | float):
        raise ArgumentError(f"{name} must be a number; {value!r} was given")
    inside = math.isfinite(value) if limits else True
    for limit in limits:
        inside = inside and (
            value > limit.gt
            if isinstance(limit, Gt)
            else value >= limit.ge
            if isinstance(limit, Ge)
            else value < limit.lt
        )
    if not inside:
        raise ArgumentError(f"{name} must {_WORDS[limits]}; {value} was given")
