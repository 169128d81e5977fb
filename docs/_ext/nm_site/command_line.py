"""The reference of the command, from the command itself: `% command-line` in a page stands for it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from nm_ode.cli import app as command_app

_PLACE = re.compile(r"^% command-line$", re.MULTILINE)
_EXAMPLES = re.compile(r"(?:^  \S.*\n?)+", re.MULTILINE)
_MARKUP = re.compile(r"\[/?bold\]")


def commands() -> Iterator[tuple[str, Any]]:
    """Each command with its words, in the order of the help text."""
    yield from _below("nm-ode", get_command(command_app))


def _below(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    for name, found in getattr(command, "commands", {}).items():
        if hasattr(found, "commands"):
            yield from _below(f"{words} {name}", found)
        else:
            yield f"{words} {name}", found


def _help(text: str) -> str:
    """The help text, with its examples as code."""
    text = _MARKUP.sub("", inspect.cleandoc(text)) + "\n"

    def fenced(found: re.Match[str]) -> str:
        return f"```console\n{inspect.cleandoc(found[0])}\n```\n"

    return _EXAMPLES.sub(fenced, text)


def _type(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return ""
    kind = getattr(parameter, "type_descriptor", None) or getattr(parameter, "type", None)
    number = "int" in str(getattr(kind, "name", kind)).lower()
    return f"`{parameter.metavar or ('NUMBER' if number else 'TEXT')}`"


def _default(parameter: Any) -> str:
    default = parameter.default
    if parameter.required:
        return "required"
    return "" if default is None or default is False or callable(default) else f"`{default}`"


def parameters(command: Any) -> str:
    lines = ["{.keys}", "| | | default | what it is |", "| --- | --- | --- | --- |"]
    for parameter in command.params:
        if parameter.name == "help":
            continue
        argument = parameter.param_type_name == "argument"
        names = (
            [parameter.metavar or parameter.name.upper()]
            if argument
            else [*parameter.opts, *parameter.secondary_opts]
        )
        cells = (
            ", ".join(f"`{name}`" for name in names),
            "" if argument else _type(parameter),
            _default(parameter),
            _MARKUP.sub("", parameter.help or "").replace("\\[", "["),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("[", "\\[") for cell in cells) + " |")
    return "\n".join(lines) if len(lines) > 3 else "No arguments."


def _all() -> str:
    parts = []
    for words, command in commands():
        parts += [f"## `{words}`", _help(command.help or ""), parameters(command)]
    return "\n\n".join(parts)


def _read(app: Any, docname: str, source: list[str]) -> None:
    if _PLACE.search(source[0]):
        source[0] = _PLACE.sub(lambda _: _all(), source[0])


def setup(app: Any) -> None:
    app.connect("source-read", _read)
