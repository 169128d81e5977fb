"""A law as a linear recursion: what it needs between two records can then be summed step by step.

Every law of SGD's charges is z_{k+1} = A_k z_k + B_k f_k. z is a few numbers a charge, Q and what else the law
remembers of it; f_k is what drives it in step k; A and B are the same for all charges of one degree, and known from
the step's learning rate, momentum and weight decay. From one record to the next, at steps i and j,

    z_j = M z_i + φ,        M = A_{j−1} … A_i,        φ = what f_i … f_{j−1} make of z_i = 0,

so M, one small matrix, and φ, as many numbers a charge as z has, are all that a law needs of the steps between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nm_ode.charges.driven import Driven
from nm_ode.charges.settings import Settings

Array = NDArray[np.float64]

FORCES = ("η²[w, w] = [Δθ, Δθ]", "η[w, v] = −[Δθ, v]", "r = ⟨g, ξ⟩")
"""f of a step: the update's own bracket, that with the velocity after it (read with Nesterov only), and the
constraint's residual. Of a translation the first two are zero."""


@dataclass(frozen=True)
class Recursion:
    """A law as z_{k+1} = A_k z_k + B_k f_k.

    Attributes:
        state: what the entries of z are, from the optimiser's hyperparameters; Q first.
        step: A, shape (n, n), and B, shape (n, 3), of a step and of charges of a degree, 1 or 2.
        start: z before the first step, shape (n, C).
        from_rest: the same where Q̇(0) = 0; None where the law has no rate.
        charge: Q from z, shape (n, C) to (C,).
    """

    state: Callable[[Mapping[str, Any]], tuple[str, ...]]
    step: Callable[[Settings, int], tuple[Array, Array]]
    start: Callable[[Driven], Array]
    from_rest: Callable[[Driven], Array] | None = None
    charge: Callable[[Array], Array] = lambda z: z[0]
