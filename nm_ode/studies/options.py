"""The options of a registered thing: the parameters of its callable, with their types, ranges and defaults."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import operator
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, WrapValidator, create_model

from nm_ode.registry import NotInCases, OneOf
from nm_ode.studies.tables import Table, combination, not_allowed, require_known_keys, unknown_name

REQUIRED: Any = inspect.Parameter.empty


@dataclass(frozen=True)
class Option:
    """A parameter that a case file can set.

    Attributes:
        hint: its type for pydantic, in terms of what TOML has; None for a type that TOML cannot write.
        default: REQUIRED if there is none.
    """

    hint: Any
    default: Any = REQUIRED


def options_of(
    made: Callable[..., Any],
    *,
    skip: int = 0,
    given: Collection[str] = (),
    required: Collection[str] = (),
) -> dict[str, Option]:
    """Name → option, in the order of the signature.

    Args:
        made: a dataclass, another class, or a function.
        skip: how many parameters in front are not options.
        given: parameters that are not options, by name.
        required: options that a case must set even if they have a default.
    """
    parameters = list(inspect.signature(made).parameters.values())[skip:]
    found = {}
    for parameter in parameters:
        if parameter.name in given or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = REQUIRED if parameter.name in required else _default(made, parameter)
        try:
            hint = _in_toml(_hint(made, parameter))
        except _NotInTomlError:
            hint = None
        if hint is not None or default is REQUIRED:
            found[parameter.name] = Option(hint, default)
    return found


def schema_of(options: Mapping[str, Option]) -> type[Table]:
    """The table that has these options, for `validated`; making it takes longer than using it."""
    # Aliases: an option may be called like a method of pydantic's models.
    fields: dict[str, Any] = {
        f"option_{name}": (
            option.hint,
            Field(alias=name) if option.default is REQUIRED else Field(option.default, alias=name),
        )
        for name, option in options.items()
        if option.hint is not None
    }
    return create_model("Options", __base__=Table, **fields)


def validated(
    what: str, options: Mapping[str, Option], data: Mapping[str, Any], schema: type[Table] | None = None
) -> dict[str, Any]:
    """The values of all options, defaults where the table says nothing.

    Args:
        schema: of the options, if it is made already.

    Raises:
        ValidationError, PydanticCustomError: an unknown key, a value of the wrong type or out of range, an option
            that is missing, or one that no case file can give.
    """
    for name, option in options.items():
        if option.hint is None:
            raise combination(f"{what!r} needs {name!r}, which cannot be written in a case file")
    require_known_keys(data, options)
    values = (schema or schema_of(options)).model_validate(data)
    return {name: getattr(values, f"option_{name}") for name in options}


def takes(made: Callable[..., Any], name: str) -> bool:
    """Has the callable a parameter of this name?"""
    return name in inspect.signature(made).parameters


def _default(made: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    if dataclasses.is_dataclass(made):
        for field in dataclasses.fields(made):
            if field.name == parameter.name and field.default_factory is not dataclasses.MISSING:
                return field.default_factory()
    return parameter.default


def _hint(made: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The type of a parameter, resolved where it was written."""
    owner: Any = made.__init__ if isinstance(made, type) else made  # type: ignore[misc]
    names = getattr(owner, "__globals__", {})
    for kind in inspect.getmro(made) if isinstance(made, type) else ():
        if parameter.name in inspect.get_annotations(kind):
            names = vars(sys.modules[kind.__module__])
            break
    if parameter.annotation is REQUIRED:
        return Any
    holder = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        return typing.get_type_hints(holder, globalns=names, include_extras=True)[parameter.name]
    except NameError:  # a name that only a type checker sees: no type of TOML's
        raise _NotInTomlError from None


class _NotInTomlError(Exception):
    """TOML has no way to write a value of this type."""


def _in_toml(hint: Any) -> Any:
    """The type for pydantic: lists where Python has tuples, paths written as texts.

    Raises:
        _NotInTomlError: TOML cannot write it.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        if any(isinstance(one, NotInCases) for one in arguments[1:]):
            raise _NotInTomlError
        return Annotated[_in_toml(arguments[0]), *map(_checked, arguments[1:])]
    if hint in (bool, int, str, Any, types.NoneType) or origin is Literal:
        return hint
    if hint is float:
        return Annotated[float, Field(allow_inf_nan=False)]
    if hint is Path:
        return Annotated[
            Path, BeforeValidator(lambda given: Path(given) if isinstance(given, str) else given)
        ]
    if origin in (Union, types.UnionType):
        parts = _writable(arguments)
        union = functools.reduce(operator.or_, parts)
        several = sum(part is not types.NoneType for part in parts) > 1
        return Annotated[union, WrapValidator(_one_sentence(union))] if several else union
    if _is_sequence(origin or hint):
        parts = tuple(part if part is ... else _in_toml(part) for part in arguments or (Any, ...))
        if origin is not tuple:
            parts = (parts[0], ...)
        return Annotated[types.GenericAlias(tuple, parts), BeforeValidator(_as_tuple)]
    if origin in (dict, Mapping) or hint is dict:
        return types.GenericAlias(dict, (str, _in_toml(arguments[1]) if arguments else Any))
    raise _NotInTomlError


def _writable(hints: Sequence[Any]) -> tuple[Any, ...]:
    """Those of a union that TOML can write.

    Raises:
        _NotInTomlError: there is none but None, for which TOML has no word.
    """
    found = []
    for hint in hints:
        with contextlib.suppress(_NotInTomlError):
            found.append(_in_toml(hint))
    if all(hint is types.NoneType for hint in found):
        raise _NotInTomlError
    return tuple(found)


def _is_sequence(kind: Any) -> bool:
    return kind in (tuple, list, Sequence, Collection, Iterable)


def _as_tuple(given: Any) -> Any:
    return tuple(given) if isinstance(given, list) else given


def _checked(metadata: Any) -> Any:
    """Metadata for pydantic, which knows ranges by itself."""
    if not isinstance(metadata, OneOf):
        return metadata
    return AfterValidator(lambda name: _require_name(name, metadata.names))


def _require_name(name: str, known: Iterable[str]) -> str:
    if name not in known:
        raise unknown_name(name, known)
    return name


def _one_sentence(union: Any) -> Callable[[Any, Callable[[Any], Any]], Any]:
    """One error for a value that is none of several types, where pydantic has one for each."""

    def check(given: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(given)
        except ValidationError:
            raise not_allowed(in_words(union)) from None

    return check


_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}


def in_words(hint: Any) -> str:
    """A type for a reader: "a number, above 0"."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return ", ".join([in_words(arguments[0]), *filter(None, map(_limit, arguments[1:]))])
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(in_words(part) for part in arguments if part is not types.NoneType)
    if _is_sequence(origin):
        return "a list"
    return _NAMES.get(hint, "a table")


def _limit(metadata: Any) -> str:
    for kind, words in ((Ge, "at least"), (Gt, "above"), (Le, "at most"), (Lt, "below")):
        if isinstance(metadata, kind):
            return f"{words} {getattr(metadata, kind.__name__.lower()):g}"
    return ""
