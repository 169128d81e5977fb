"""Methods of DifferentialEquations.jl that the bridge knows, and which to take (docs/bridge.md's table)."""

from __future__ import annotations

from dataclasses import dataclass

from bridges.methods import Kind, Method, StepUse


@dataclass(frozen=True, kw_only=True)
class JuliaMethod(Method):
    """A method, and the Julia package that has it."""

    package: str


def _methods(kind: Kind, package: str, *, step: StepUse, **orders: int) -> dict[str, JuliaMethod]:
    return {
        name: JuliaMethod(
            kind=kind,
            order=order,
            step=step,
            jvp=kind == "implicit",
            sharpness=kind == "stabilised",
            package=package,
        )
        for name, order in orders.items()
    }


METHODS: dict[str, JuliaMethod] = {
    **_methods("explicit", "OrdinaryDiffEq", step="optional", Tsit5=5),
    **_methods("explicit", "OrdinaryDiffEqVerner", step="optional", Vern6=6, Vern7=7, Vern8=8, Vern9=9),
    **_methods("explicit", "OrdinaryDiffEqLowOrderRK", step="optional", BS3=3, DP5=5),
    **_methods("explicit", "OrdinaryDiffEqLowOrderRK", step="required", Euler=1, Heun=2, Midpoint=2, RK4=4),
    **_methods("stabilised", "OrdinaryDiffEqStabilizedRK", step="none", ROCK2=2, ROCK4=4, RKC=2),
    **_methods("implicit", "OrdinaryDiffEqBDF", step="none", FBDF=5, QNDF=5),
    **_methods("implicit", "OrdinaryDiffEqSDIRK", step="none", KenCarp4=4, TRBDF2=2),
    **_methods("implicit", "OrdinaryDiffEqRosenbrock", step="none", Rodas5P=5),
}
PACKAGES = tuple(dict.fromkeys(method.package for method in METHODS.values()))

_STIFF = 50.0  # sharpness × horizon, above which stability limits an explicit step


def best_method(*, kinks: bool, stiffness: float, rtol: float) -> tuple[str, str]:
    """Method and the reason for it, by docs/bridge.md's tables (§4).

    Below rtol = 1e-6 a Verner method of high order needs the fewest evaluations, stiff or not, as long as stability
    does not limit it much more than accuracy. Above, a stiff field takes ROCK4 with the caller's sharpness: with their
    products counted, implicit methods need three to five times as much, and RKC is cheaper only where the error may be
    large. SUNDIALS' BDF is cheaper than either.
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
    name, how = ("ROCK4", "stiff") if rtol <= 1e-3 else ("RKC", "stiff and loose")
    cheaper = "at the same rtol engine 'sundials' needs half the gradients or fewer"
    return name, f"{how}: stabilised, with the sharpness from the caller ({numbers}); {cheaper}"
