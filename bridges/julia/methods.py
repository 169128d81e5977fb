"""Methods of DifferentialEquations.jl that the bridge knows, and which to take (BRIDGE.md's table)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["explicit", "stabilised", "implicit"]


@dataclass(frozen=True)
class Method:
    """A method: its order, and what it is good for."""

    kind: Kind
    order: int
    package: str


def _methods(kind: Kind, package: str, **orders: int) -> dict[str, Method]:
    return {name: Method(kind, order, package) for name, order in orders.items()}


METHODS: dict[str, Method] = {
    **_methods("explicit", "OrdinaryDiffEq", Tsit5=5),
    **_methods("explicit", "OrdinaryDiffEqVerner", Vern6=6, Vern7=7, Vern8=8, Vern9=9),
    **_methods("explicit", "OrdinaryDiffEqLowOrderRK", BS3=3, DP5=5, Euler=1, Heun=2, Midpoint=2, RK4=4),
    **_methods("stabilised", "OrdinaryDiffEqStabilizedRK", ROCK2=2, ROCK4=4, RKC=2),
    **_methods("implicit", "OrdinaryDiffEqBDF", FBDF=5, QNDF=5),
    **_methods("implicit", "OrdinaryDiffEqSDIRK", KenCarp4=4, TRBDF2=2),
    **_methods("implicit", "OrdinaryDiffEqRosenbrock", Rodas5P=5),
}
PACKAGES = tuple(dict.fromkeys(method.package for method in METHODS.values()))
FIXED_STEP = ("Midpoint", "Euler", "Heun", "RK4")
"""Methods that need a step; every other explicit one takes one too."""

_STIFF = 50.0  # sharpness × horizon, above which stability limits an explicit step


def best_method(*, kinks: bool, stiffness: float, rtol: float) -> tuple[str, str]:
    """Method and the reason for it, by BRIDGE.md's table.

    Below 1e-7 the high-order Verner methods are the cheapest of all, stiff or not, as long as stability does not limit
    them much more than accuracy; between, ROCK4 with the caller's sharpness; RKC to explore.
    """
    numbers = f"stiffness {stiffness:.3g} at rtol {rtol:g}"
    if kinks:
        return "BS3", "kinked field: low order"
    if rtol < 1e-9:
        return "Vern9", f"a reference ({numbers})"
    if rtol < 1e-6:
        return "Vern7", f"tight ({numbers})"
    if stiffness < _STIFF:
        return "Tsit5", f"not stiff ({numbers})"
    if rtol < 1e-3:
        return "ROCK4", f"stiff: stabilised, with the sharpness from the caller ({numbers})"
    return "RKC", f"stiff and loose: stabilised, with the sharpness from the caller ({numbers})"
