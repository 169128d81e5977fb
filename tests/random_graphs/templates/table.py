"""Families of templates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TypeAlias

from tests.random_graphs.drawing import Drawer

Template: TypeAlias = Callable[[Drawer], str]

FAMILIES: dict[str, list[Template]] = defaultdict(list)


def template(family: str) -> Callable[[Template], Template]:
    """Enter a function."""

    def enter(function: Template) -> Template:
        FAMILIES[family].append(function)
        return function

    return enter


def expressions(family: str, forms: str) -> None:
    """Enter expressions of `{x}`, a result, and `{o}`, another of the same shape; each ends in a semicolon."""
    for form in (form.strip() for form in forms.split(";") if form.strip()):

        def made(drawer: Drawer, form: str = form) -> str:
            x = drawer.tensor()
            return form.format(x=x, o=drawer.like(x) if "{o}" in form else "")

        FAMILIES[family].append(made)
