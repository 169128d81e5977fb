"""Names of what is summed between two records of the charges."""

from __future__ import annotations


def response_names(law: str, *, residual: bool = False) -> tuple[str, str]:
    """Names of the variables that hold φ and of M; φ of the residual's force alone, or of all others."""
    return f"{law}_{'residual_' if residual else ''}response", f"{law}_propagator"


def state_dim(law: str) -> str:
    """The dimension along which z's entries lie."""
    return f"{law}_state"
