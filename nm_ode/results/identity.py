"""Of what a store's results are, so that those of another study are never mixed in or written over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nm_ode.errors import NmOdeError


class StoreError(NmOdeError, RuntimeError):
    """A store that cannot be read, or that must not be written over.

    Example:
        >>> import nm_ode
        >>> nm_ode.open_store("nowhere.zarr")
        Traceback (most recent call last):
            ...
        nm_ode.results.identity.StoreError: no store at nowhere.zarr; `nm-ode run CASE` makes one
    """


@dataclass(frozen=True)
class Identity:
    """A case, with all its defaults, and the user's own code and data on disk that it names.

    Attributes:
        code: path relative to the case file's folder → SHA-256, of data that of the samples; "" for a file that is not
            there.
    """

    case: Mapping[str, Any]
    code: Mapping[str, str] = field(default_factory=dict)


def require_same(path: Path | str, there: Identity, here: Identity) -> None:
    """Refuse to go on with results of another case, of other code or of other data.

    Args:
        path: where the results are.
        there: of what they are.

    Raises:
        StoreError: `here` is another.
    """
    difference = first_difference(there.case, here.case)
    if difference is not None:
        raise StoreError(
            f"{path} holds the results of another case (it differs in {difference}): choose another folder with "
            "--out, give the case another name, or remove it"
        )
    for name in sorted({*there.code, *here.code}):
        if there.code.get(name) != here.code.get(name):
            what = "has changed" if here.code.get(name) else "is gone"
            raise StoreError(
                f"{path} holds results of {name}, which {what} since: restore it, choose another folder with --out, or "
                "remove the results"
            )


def first_difference(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> str | None:
    """The first key at which two cases differ, with both values; None if they are the same."""
    for key in sorted({*one, *other}):
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found = first_difference(a, b, f"{prefix}{key}.")
            if found is not None:
                return found
        elif a != b:
            return f"{prefix}{key}: {a!r} there, {b!r} here"
    return None
