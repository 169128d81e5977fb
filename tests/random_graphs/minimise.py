"""Of a program that fails, one with fewer lines that fails too."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import torch

from tests.random_graphs.program import Line, Program, batch_of, environment


def minimised(program: Program, fails: Callable[[Program], bool]) -> Program:
    """Lines are taken out one after the other, as long as what is left fails."""
    again = True
    while again:
        again = False
        for i in range(len(program.lines) - 2, -1, -1):
            for candidate in _without(program, i):
                try:
                    failing = fails(candidate)
                except Exception:  # it does not run without the line
                    continue
                if failing:
                    program, again = candidate, True
                    break
            if again:
                break
    return program


def _without(program: Program, i: int) -> list[Program]:
    """The line replaced by what it reads, or by data, where that has its shape."""
    world = (
        environment(batch_of(6, torch.Generator().manual_seed(0))) | program.parameters | program.constants
    )
    for line in program.lines:
        world[line.name] = eval(line.expression, world)
    line = program.lines[i]
    shape = tuple(world[line.name].shape)
    others = [n for n in dict.fromkeys((*line.needs, "x", "s", "im", "y")) if tuple(world[n].shape) == shape]
    made = []
    for other in others:
        lines = [Line(one.name, one.expression) for j, one in enumerate(program.lines) if j != i]
        made.append(
            replace(
                program,
                lines=tuple(Line(one.name, _renamed(one.expression, line.name, other)) for one in lines),
            ).pruned()
        )
    return made


def _renamed(expression: str, name: str, other: str) -> str:
    return re.sub(rf"\b{name}\b", other, expression)
