"""What was measured of one symmetry."""

from __future__ import annotations

from dataclasses import dataclass

TOLERANCE = 1e-10


@dataclass(frozen=True)
class Check:
    """The worst over a symmetry's charges and all draws.

    Attributes:
        gradient: |⟨g, ξ⟩| / (‖g‖ ‖ξ‖), with g of the layers that take part (at least 1e-4 of the whole gradient).
        epsilon_share: the same for what the normalisations' ε explains, −2ε ∂L/∂ε.
        unexplained: the same for what is left.
        hessian: ‖Hξ + ∂_ξ g‖ / (‖Hξ‖ + ‖∂_ξ g‖) for a random combination of the charges of this kind; None where it
            cannot be checked.
        missing: why not: the operation of which torch has no second derivative; "" for a model too large for it.
        tolerance: residuals below it are rounding.
    """

    gradient: float
    epsilon_share: float
    unexplained: float
    hessian: float | None
    missing: str = ""
    tolerance: float = TOLERANCE

    @property
    def holds(self) -> bool:
        return self.unexplained < self.tolerance and (self.hessian is None or self.hessian < self.tolerance)

    def explain(self) -> str:
        """Of one that does not hold."""
        seen = f"its gradient constraint is violated by {self.unexplained:.1e}"
        return (
            seen
            + ("" if self.hessian is None else f" and its Hessian constraint by {self.hessian:.1e}")
            + ", relative"
        )
