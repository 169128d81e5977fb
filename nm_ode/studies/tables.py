"""What all tables of a case file have in common, and the errors of their validation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from nm_ode.registry import did_you_mean


class Table(BaseModel):
    """A TOML table: exact types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            require_known_keys(data, [field.alias or name for name, field in cls.model_fields.items()])
        return data


def require_known_keys(data: Mapping[Any, Any], known: Iterable[str]) -> None:
    """Raises an error of kind "unknown_key", with near names, for the first key that is not known."""
    known = list(known)
    for key in data:
        if key not in known:
            raise PydanticCustomError(
                "unknown_key",
                "unknown key {key}{hint}",
                {"key": repr(key), "hint": did_you_mean(str(key), known)},
            )


def not_allowed(what: str) -> PydanticCustomError:
    """The value must be `what`."""
    return PydanticCustomError("not_allowed", "{what}", {"what": what})


def unknown_name(given: str, known: Iterable[str]) -> PydanticCustomError:
    """The value is none of the known names."""
    return PydanticCustomError("unknown_name", "{hint}", {"hint": did_you_mean(given, known)})


def combination(sentence: str) -> PydanticCustomError:
    """Values that do not go together, or that their owner refuses: its own sentence."""
    return PydanticCustomError("combination", "{sentence}", {"sentence": sentence})


def at_key(key: str, error: PydanticCustomError, given: Any) -> ValidationError:
    """The error, of a key of the table that is being validated."""
    return ValidationError.from_exception_data(
        "case", [InitErrorDetails(type=error, loc=(key,), input=given)]
    )
