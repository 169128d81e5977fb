"""An observer of one file: the entries of theta that are largest in size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge

from nm_ode.observers import Observer, View
from nm_ode.results import Variable


@dataclass(frozen=True)
class Extremes(Observer):
    """`extremes`: the sizes of the `count` largest entries, falling."""

    count: Annotated[int, Ge(1)] = 2

    variables = {"extremes": Variable(("rank",), "largest sizes of entries of theta")}  # noqa: RUF012

    def observe(self, view: View) -> Mapping[str, Any]:
        return {"extremes": view.theta.abs().topk(self.count).values}
