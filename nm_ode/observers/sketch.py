"""Sketches of the parameters, in place of the parameters themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nm_ode.arguments import as_count
from nm_ode.observers.base import SAVED_STEP, Context, Observer, View
from nm_ode.parameters import Layout
from nm_ode.required import as_flag, as_seed
from nm_ode.results import Variable, variable
from nm_ode.sketches import SMALLEST, SparseSigns

_MOST = 2**31 - 1  # rows; none is of use beyond P


@dataclass(frozen=True)
class Sketch(Observer):
    """`theta_sketch` at the saved steps of a run and at all samples of a flow: m numbers of each theta, not P.
    See docs/theory.md §5.

    A run and a solution with the same sketch are compared by it: norms of differences are estimated, with a standard
    error of at most about 1/√(2m) of each (1.1 % with m = 4096), which `compare` states beside them
    (nm_ode/sketches.py). A sketch takes 8m bytes a saved step (by layer, of each), whatever P is.

    Args:
        m: numbers a sketch has, at least 64.
        seed: of the projection; run and solution need the same.
        by_layer: m numbers of each layer, so that each layer's distance is estimated too.
        keep_theta: record theta too, which a sketch otherwise stands in for.

    Raises:
        ArgumentError: an m or a seed out of range.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> import nm_ode
        >>> from nm_ode.data import digits
        >>> from nm_ode.models import mlp
        >>> problem, sketch = nm_ode.Problem(mlp([64, 8, 10]), cross_entropy, digits(samples=64)), nm_ode.Sketch(m=256)
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=10, save_every=5, observe=[sketch])
        >>> comparison = nm_ode.compare(run, nm_ode.solve(nm_ode.GradientFlow(problem), run, observe=[sketch]))
        >>> run.theta_sketch.shape, "theta" in run, sorted(comparison.data_vars)[:2]
        ((3, 256), False, ['error', 'error_standard_error'])
    """

    m: int = 4096
    seed: int = 0
    by_layer: bool = False
    keep_theta: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "m", as_count(self.m, "m", least=SMALLEST, most=_MOST))
        object.__setattr__(self, "seed", as_seed(self.seed))
        for name in ("by_layer", "keep_theta"):
            object.__setattr__(self, name, as_flag(getattr(self, name), name))

    def signs(self, layout: Layout, device: torch.device | str = "cpu") -> SparseSigns:
        """The projection, for vectors of a layout."""
        return SparseSigns(layout, self.m, self.seed, device, by_layer=self.by_layer)

    def begin(self, context: Context) -> Sequence[Observer]:
        return [_Sketches(self.signs(context.layout, context.device))]


class _Sketches(Observer):
    dim: str = SAVED_STEP
    variables: Mapping[str, Variable] = {"theta_sketch": variable("theta_sketch", "sketch_index")}

    def __init__(self, signs: SparseSigns) -> None:
        self._signs = signs

    def constants(self) -> Mapping[str, float]:
        return {"sketch_seed": self._signs.seed, "sketch_parts": self._signs.parts}

    def memory(self) -> Mapping[str, Any]:
        return {"m": self._signs.m, **self.constants()}  # a checkpoint is of one sketch alone

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Nothing is remembered that may change."""

    def observe(self, view: View) -> Mapping[str, Any]:
        return {"theta_sketch": self._signs.of(view.theta_parts)}


def sketch_in_place_of_theta(observers: Collection[Observer]) -> Sketch | None:
    """The sketch among these for which theta is not recorded; None if theta is."""
    found = [one for one in observers if isinstance(one, Sketch)]
    return found[0] if found and not any(one.keep_theta for one in found) else None
