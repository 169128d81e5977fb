"""Tables that name an entry of a registry; their other keys are the entry's options."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, model_serializer, model_validator
from pydantic_core import PydanticCustomError
from torch import nn

from nm_ode.data import DATA
from nm_ode.errors import NmOdeError
from nm_ode.flows import FLOWS
from nm_ode.models import MODELS, Network
from nm_ode.observers import OBSERVERS
from nm_ode.optimizers import OPTIMIZERS, SCHEDULES
from nm_ode.registry import Registry
from nm_ode.studies.options import REQUIRED, Option, options_of, schema_of, takes, validated
from nm_ode.studies.tables import Table, at_key, combination, require_known_keys, unknown_name


class EntryTable(Table):
    """A table like `{ name = "cosine", final = 0.05 }`; a text alone is the name.

    Attributes:
        name: the entry's, under the key `key`.
        options: all of the entry's, with defaults.
    """

    registry: ClassVar[Registry[Any]]
    key: ClassVar[str] = "name"
    default: ClassVar[str | None] = None
    from_options_alone: ClassVar[bool] = False

    name: str
    options: dict[str, Any]

    @classmethod
    def options_of(cls, entry: Any) -> dict[str, Option]:
        """What a case can set of an entry."""
        return options_of(entry)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {cls.key: data}
        if not isinstance(data, Mapping):
            return data
        name = data.get(cls.key, cls.default)
        if name is None:
            missing = PydanticCustomError(
                "no_name", "says which {what} is meant", {"what": cls.registry.what}
            )
            raise at_key(cls.key, missing, None)
        if name not in cls.registry:
            raise at_key(cls.key, unknown_name(str(name), cls.registry), name)
        own = {key: data[key] for key in cls._own_keys() if key in data}
        rest = {key: value for key, value in data.items() if key not in own and key != cls.key}
        options, schema = cls._options(name)
        require_known_keys(rest, [cls.key, *options, *cls._own_keys()])
        return {"name": name, "options": validated(name, options, rest, schema), **own}

    @classmethod
    def _options(cls, name: str) -> tuple[dict[str, Option], type[Table]]:
        """`options_of` an entry of the registry with their schema, made once as long as the entry is the same."""
        entry = cls.registry[name]
        known = _KNOWN.get((cls, name))
        if known is None or known[0] is not entry:
            options = cls.options_of(entry)
            known = _KNOWN[cls, name] = entry, options, schema_of(options)
        return known[1], known[2]

    @classmethod
    def _own_keys(cls) -> list[str]:
        return [key for key in cls.model_fields if key not in ("name", "options")]

    @model_validator(mode="after")
    def _can_be_made(self, info: ValidationInfo) -> EntryTable:
        if self.from_options_alone:
            try:
                self.make(folder=(info.context or {}).get("folder", Path()))
            except (NmOdeError, ValueError) as error:
                raise combination(str(error)) from None
        return self

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {self.key: self.name, **self.options, **self._own()}

    def _own(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in self._own_keys()}

    def make(self, *given: Any, folder: Path, **changed: Any) -> Any:
        """The thing itself.

        Args:
            given: the parameters in front, which are not options.
            folder: of the case file, to which paths are relative.
            changed: options at other values.
        """
        return self.registry[self.name](*given, **self.arguments(folder) | changed)

    def arguments(self, folder: Path) -> dict[str, Any]:
        """The options, with paths as they are from here."""
        return {
            key: folder / value if isinstance(value, Path) else value for key, value in self.options.items()
        }


_KNOWN: dict[tuple[type[EntryTable], str], tuple[Any, dict[str, Option], type[Table]]] = {}


class ScheduleTable(EntryTable):
    """A schedule of the learning rate."""

    registry: ClassVar = SCHEDULES
    from_options_alone: ClassVar = True


class OptimizerTable(EntryTable):
    """An optimiser; the registry's first if none is named.

    Attributes:
        schedule: of the learning rate; by default it is constant.
    """

    registry: ClassVar = OPTIMIZERS
    default: ClassVar = next(iter(OPTIMIZERS))
    from_options_alone: ClassVar = True

    schedule: ScheduleTable | None = None

    @property
    def lr(self) -> float:
        """The learning rate, which every optimiser has."""
        return float(self.options["lr"])


class FlowTable(EntryTable):
    """A flow.

    Attributes:
        batches: beside a run on minibatches, over which samples its loss is: in step k those of step k ("same"), or
            all ("full").
    """

    registry: ClassVar = FLOWS
    key: ClassVar = "kind"

    batches: Literal["same", "full"] | None = None

    @property
    def follows_average(self) -> bool:
        """Does it describe a run's time average, instead of the run itself?"""
        return getattr(self.registry[self.name], "follows_average", False) is True

    @classmethod
    def options_of(cls, entry: Any) -> dict[str, Option]:
        """What comes after problem and optimiser."""
        return options_of(entry, skip=2)


class DataTable(EntryTable):
    """A data set."""

    registry: ClassVar = DATA


class ModelTable(EntryTable):
    """A network."""

    registry: ClassVar = MODELS

    @property
    def network(self) -> Network:
        """The registry's entry."""
        return MODELS[self.name]

    @classmethod
    def options_of(cls, entry: Network) -> dict[str, Option]:
        """What neither the case's seed nor the data's shape gives."""
        given = ("seed", "image", "channels") if entry.takes_images else ("seed",)
        said = [place.split("[")[0] for place in (entry.inputs, entry.outputs) if place is not None]
        return options_of(entry.build, given=given, required=said)

    def build(self, *, folder: Path, seed: int, **shape: int) -> nn.Module:
        """The network; `seed` if it takes one.

        Args:
            shape: `image` and `channels`, for a network of images.
        """
        build = self.network.build
        given: dict[str, Any] = {"seed": seed, **shape}
        return build(**self.arguments(folder), **{key: given[key] for key in given if takes(build, key)})

    def size(self, place: str) -> int:
        """The value at a place such as "widths[0]"."""
        key, _, index = place.partition("[")
        value = self.options[key]
        return int(value[int(index.rstrip("]"))] if index else value)


class CodeTable(Table):
    """The user's own Python: `python = "my_net.py:build"`; other keys are the function's keyword arguments."""

    python: str = Field(pattern=r"^[^:\x00-\x1f]+\.py:[A-Za-z_]\w*$")
    options: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        if "name" in data:
            raise combination("name and python were given; give one of the two")
        rest = {key: value for key, value in data.items() if key != "python"}
        return {**({"python": data["python"]} if "python" in data else {}), "options": rest}

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {"python": self.python, **self.options}


class ObserverTable(EntryTable):
    """What else is observed, along the run, the flows or both.

    `functions` of an observer are tables of the user's own code; `symmetries = true` stands for the case's own.

    Attributes:
        along: what is observed; by default both, and the run alone where an observation takes as long as many steps.
    """

    registry: ClassVar = OBSERVERS
    from_options_alone: ClassVar = True

    along: Literal["run", "flows", "both"] | None = None

    @classmethod
    def options_of(cls, entry: Any) -> dict[str, Option]:
        """All that TOML can write, and what stands for functions and symmetries."""
        found = options_of(entry)
        if "functions" in found:
            found["functions"] = Option(dict[str, CodeTable])
        elif takes(entry, "symmetries") and found.get("symmetries", Option(None)).hint is None:
            # What looks at nothing else needs no word for it.
            needed = inspect.signature(entry).parameters["symmetries"].default is REQUIRED
            found["symmetries"] = Option(bool, needed)
        return found

    @property
    def functions(self) -> dict[str, CodeTable]:
        """The user's own code by the key that names it, within this table."""
        given: dict[str, CodeTable] = self.options.get("functions", {})
        return {f"functions.{name}": table for name, table in given.items()}

    @property
    def wants_symmetries(self) -> bool:
        """Does it look at the case's symmetries?"""
        return self.options.get("symmetries") is True

    @property
    def wants_held_out(self) -> bool:
        """Does it look at samples that nobody trains on, which no case can write down?"""
        return takes(self.registry[self.name], "data") and "data" not in self.options

    def looks_at(self, what: Literal["run", "flows"]) -> bool:
        """Is it there along the run, or along the flows?"""
        default = "run" if self.registry[self.name].costly else "both"
        return (self.along or default) in (what, "both")

    def arguments(self, folder: Path) -> dict[str, Any]:
        """As of every table; a function that is not loaded yet gives no number."""
        given = super().arguments(folder)
        if self.functions:
            given["functions"] = dict.fromkeys(given["functions"], lambda model: math.nan)
        if isinstance(given.get("symmetries"), bool):
            given["symmetries"] = ()
        return given

    def _own(self) -> dict[str, Any]:
        return {} if self.along is None else {"along": self.along}
