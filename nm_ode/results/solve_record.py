"""What a solution of a flow says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import xarray as xr

from nm_ode.parameters import Layout
from nm_ode.results.codec import attributes, decode
from nm_ode.results.records import Beside

CheckVerdict = Literal["measured", "bound", "same_steps", "too_loose", "stopped"]
"""What the distance to a second solve says of a solver's own error.

    measured    the second solve is a finer one, by other steps
    bound       it is a coarser one, where rounding leaves no room for a finer: the error is at most about that
    same_steps  nothing: both took the same steps
    too_loose   nothing: the tolerances admit as much as the solution moves
    stopped     nothing from where the second solve stopped
"""


@dataclass(frozen=True)
class SolveInfo:
    """A solution of a flow: which flow, how it was solved, what it cost, and how its own error was checked.

    Attributes:
        flow, title: its name in the tree, and for a reader.
        options: the flow's optimiser and its own options, as Python writes them; empty where it has none.
        beside: over whose samples its loss is, where the run is on minibatches.
        batch_share: of a full-batch flow of a loss that sums over its samples: the part of the loss that the flow is
            of, which is what the run's batches have on average. None for the whole.
        batch_bias, batch_bias_error: of a loss that over a batch is neither mean nor sum of its samples': how far the
            batches' mean gradient is from the full gradient at the start, over that, and its standard error.
        expected_order: in lr, by theory, for smooth losses.
        map_order: of the iterated-map form, whose truncation can be read off a run.
        choice: why this engine and method.
        kinks: operations whose derivative jumps.
        foreign_gradient: why its field is not of the loss's gradient; empty where it is.
        rtol_requested: where another was used.
        step: of a fixed-step method.
        status, message: "success", or what stopped the solver.
        rhs_evaluations, jvp_evaluations: right-hand sides of the first solve, those of difference quotients among them,
            and products with the flow's own Jacobian.
        gradient_evaluations, hvp_evaluations, third_derivative_evaluations: in both.
        probe_rhs_evaluations: spent on measuring the stiffness, before the solve and in it.
        gradient_equivalents: what the first solve took of the field, its probes included, in gradients of the same
            time: a product counts as its time over that of a right-hand side, both measured in this solve. None where
            a right-hand side is more than gradients.
        check: how the solver's own error was measured; None if it was not.
        check_verdict: what that says; None where nothing was checked.
        check_status: how the second solve ended.
        check_rhs_evaluations, check_jvp_evaluations, check_gradient_evaluations, check_hvp_evaluations,
            check_third_derivative_evaluations: of the second solve, or of both where a third was needed.
        dtype: in which the field was computed.
        rtol_floor: the smallest rtol that the rounding of the field admits, dimensionless.
        gradient_noise: 2-norm of the gradient's rounding noise relative to its size, dimensionless; None where it is
            that of the dtype.
        coarse: where the model computes in a coarser dtype, which the noise comes from.
        start_time: flow time of the start.
        lr: the learning rate that the field is that of; None where it depends on none.
        stateful: has the flow's state more than theta?
        warm_start: did it start with the state that an optimiser under way had?
        restarts: how often the solve was cut off and went on from a checkpoint; all counts are of the whole, but that
            the Julia engine counts steps from the last restart on.
    """

    flow: str
    title: str
    expected_order: int
    engine: str
    engine_version: str
    method: str
    choice: str
    rtol: float
    atol: float
    layout: Layout
    kinks: tuple[str, ...] = ()
    foreign_gradient: str = ""
    options: str = ""
    beside: Beside | None = None
    batch_share: float | None = None
    batch_bias: float | None = None
    batch_bias_error: float | None = None
    map_order: int | None = None
    rtol_requested: float | None = None
    step: float | None = None
    status: str = "success"
    message: str = ""
    gradients_per_rhs: int = 1
    hvps_per_rhs: int = 0
    third_derivatives_per_rhs: int = 0
    hvps_per_jvp: int = 1
    rhs_evaluations: int = 0
    jvp_evaluations: int = 0
    gradient_evaluations: int = 0
    hvp_evaluations: int = 0
    third_derivative_evaluations: int = 0
    probe_rhs_evaluations: int = 0
    gradient_equivalents: float | None = None
    steps: int = 0
    rejected_steps: int = 0
    wall_seconds: float = 0.0
    check: str | None = None
    check_verdict: CheckVerdict | None = None
    check_status: str | None = None
    check_rhs_evaluations: int | None = None
    check_jvp_evaluations: int | None = None
    check_gradient_evaluations: int | None = None
    check_hvp_evaluations: int | None = None
    check_third_derivative_evaluations: int | None = None
    dtype: str | None = None
    rtol_floor: float | None = None
    gradient_noise: float | None = None
    coarse: tuple[str, ...] = ()
    start_time: float | None = None
    lr: float | None = None
    stateful: bool = False
    warm_start: bool = False
    restarts: int = 0


def solve_info(solution: xr.Dataset) -> SolveInfo:
    """The typed record of a solution: which flow, how it was solved, what it cost, how its error was checked.

    Args:
        solution: from `solve`.

    Returns:
        A `SolveInfo`: `flow`, `engine`, `method`, `choice` (why these), `rtol`, `gradient_evaluations`,
        `check_verdict` …

    Raises:
        ResultError: the dataset is none.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> info = nm_ode.solve_info(nm_ode.solve(nm_ode.GradientFlow(problem), t=[0.0, 1.0]))
        >>> info.flow, info.rtol, info.status, info.gradient_evaluations > 0
        ('gradient', 1e-06, 'success', True)
        >>> info.choice.split(" (")[0]
        'smooth, limited by accuracy'
    """
    return decode(SolveInfo, attributes(solution))
