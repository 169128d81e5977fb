"""What an engine says about each of its methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["explicit", "stabilised", "implicit"]
StepUse: TypeAlias = Literal["none", "optional", "required"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method's properties, from which the options that fit it follow.

    Attributes:
        kind: "explicit", "stabilised" (explicit, with many stages that extend the stability interval along the
            negative real axis) or "implicit".
        order: of convergence; of a method of variable order, the highest.
        step: does it take `OdeProblem.step`? "none": it chooses its own steps; "optional": it chooses them unless a
            step is given; "required": it has a fixed step.
        jumps: may the field jump at `OdeProblem.restarts`? No step of such a method crosses one.
        jvp: does it use `OdeProblem.jvp`, the product with the Jacobian, where one is given?
        cheap_jvp: does it use `OdeProblem.jvp` where that takes less than a right-hand side, with which it makes do
            else?
        sharpness: does it use `OdeProblem.sharpness`, the spectral radius of the Jacobian, where one is given?
        vectors: how many vectors of the state's size it holds: of float64, and in the dtype of the field. The problem's
            own `y0` is not among them; samples inside a step may take one of float64 more. None: not known.

    Example:
        >>> from bridges import get_engine
        >>> method = get_engine("scipy").methods["DOP853"]
        >>> method.kind, method.order, method.step
        ('explicit', 8, 'none')
    """

    kind: Kind
    order: int
    step: StepUse = "none"
    jumps: bool = False
    jvp: bool = False
    cheap_jvp: bool = False
    sharpness: bool = False
    vectors: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class NoiseMethod:
    """A method for paths of dy = drift dt + factor dW, whose factor is constant.

    Its step is the caller's, always: no engine here controls the error of a path by itself (docs/bridge.md rule 12).

    Attributes:
        strong_order: of convergence of a path, for such noise.
        weak_order: of convergence of the mean and the covariance.
        diagonal_only: it takes a vector as the factor, and no matrix.
    """

    strong_order: float
    weak_order: float
    diagonal_only: bool = False
