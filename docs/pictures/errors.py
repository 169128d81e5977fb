"""Distance between a flow and a run, and the solver's own error, over the solver's tolerance."""

import matplotlib.pyplot as plt
from torch import nn

import nm_ode
from nm_ode.data import digits
from nm_ode.models import mlp
from nm_ode.reporting.style import COLOURS, styled

data = digits(samples=128)
problem = nm_ode.Problem(mlp([64, 8, 10], "tanh"), nn.functional.cross_entropy, (data.x, data.y))
sgd = nm_ode.SGD(lr=0.2)
run = nm_ode.train(problem, sgd, steps=10, save_every=10)
tolerances = [10.0**-k for k in range(2, 8)]

with styled():
    figure, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
    for order, colour in zip((1, 3), COLOURS, strict=False):
        flow = nm_ode.modified_flow(problem, sgd, order)
        ends = [
            nm_ode.compare(run, nm_ode.solve(flow, run, engine="scipy", method="RK23", rtol=rtol))[
                {"saved_step": -1}
            ]
            for rtol in tolerances
        ]
        ax.loglog(tolerances, [end.error for end in ends], color=colour, label=f"order {order}")
        ax.loglog(tolerances, [end.solver_error for end in ends], color=colour, linewidth=0.8, linestyle="--")
        limited = [
            (rtol, end.error) for rtol, end in zip(tolerances, ends, strict=True) if end.solver_limited
        ]
        ax.plot(*zip(*limited, strict=True), "o", color=colour, mfc="white") if limited else None
    ax.plot([], [], color="#667", linewidth=0.8, linestyle="--", label="solver's own error")
    ax.plot([], [], "o", color="#667", mfc="white", label="solver-limited")
    ax.set(xlabel="relative tolerance rtol of the solver", ylabel="distance from the run at its end")
    ax.invert_xaxis()
    ax.legend(ncols=2)
