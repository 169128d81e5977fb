"""Ranges of hyperparameters, declared once: at the field, where the case schema reads them too."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Annotated, Any, TypeAlias, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Lt

from nm_ode.arguments import as_number, said
from nm_ode.errors import ArgumentError
from nm_ode.required import as_flag

Positive: TypeAlias = Annotated[float, Gt(0)]
NotNegative: TypeAlias = Annotated[float, Ge(0)]
Fraction: TypeAlias = Annotated[float, Ge(0), Lt(1)]

_WORDS = {
    (Gt(0),): "be a positive number",
    (Ge(0),): "be 0 or positive",
    (Ge(0), Lt(1)): "lie in [0, 1)",
}


def require_in_range(values: Any) -> None:
    """Check every field of a frozen dataclass that is declared with a range, or as bool; make it Python's own number.

    Raises:
        ArgumentError: one outside its range, not finite, or no number.
    """
    hints = get_type_hints(type(values), include_extras=True)
    for field in fields(values):
        found = _checked(field.name, hints[field.name], getattr(values, field.name))
        object.__setattr__(values, field.name, found)


def _checked(name: str, hint: Any, value: Any) -> Any:
    if hint is bool:
        return as_flag(value, name)
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        listed = hasattr(value, "__len__") and not isinstance(value, str | bytes | dict | set)
        if not listed or getattr(value, "ndim", 1) != 1 or len(value) != len(parts):
            raise ArgumentError(f"{name} must be {len(parts)} numbers; {said(value)} was given")
        return tuple(
            _checked(f"{name}[{i}]", part, one)
            for i, (part, one) in enumerate(zip(parts, value, strict=True))
        )
    limits = tuple(part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Gt | Ge | Lt))
    if not limits:
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise ArgumentError(f"{name} must {_WORDS[limits]}; {value} was given")
    number: Any = as_number(value, name)
    inside = all(
        number > limit.gt
        if isinstance(limit, Gt)
        else number >= limit.ge
        if isinstance(limit, Ge)
        else number < limit.lt
        for limit in limits
    )
    if not inside:
        raise ArgumentError(f"{name} must {_WORDS[limits]}; {said(value)} was given")
    return number
