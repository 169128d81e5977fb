"""Distance between a flow and a run, and the solver's own error, over the solver's tolerance."""

from measured import panels
from torch import nn

import nm_ode
from nm_ode.data import digits
from nm_ode.models import mlp

data = digits(samples=128)
problem = nm_ode.Problem(mlp([64, 8, 10], "tanh"), nn.functional.cross_entropy, (data.x, data.y))
sgd = nm_ode.SGD(lr=0.2)
run = nm_ode.train(problem, sgd, steps=10, save_every=10)
tolerances = [10.0**-k for k in range(2, 8)]

(ax,) = panels(1, 3.8)
for order, colour in ((1, "C0"), (3, "C1")):
    flow = nm_ode.modified_flow(problem, sgd, order)
    solutions = [nm_ode.solve(flow, run, engine="scipy", method="RK23", rtol=rtol) for rtol in tolerances]
    ends = [nm_ode.compare(run, solution).isel(saved_step=-1) for solution in solutions]
    errors = [float(end.error) for end in ends]
    limited = [float(end.error.where(end.solver_limited)) for end in ends]
    ax.loglog(tolerances, errors, color=colour, label=f"order {order}")
    ax.loglog(tolerances, [end.solver_error for end in ends], color=colour, linewidth=0.8, linestyle="--")
    ax.plot(tolerances, limited, "o", color=colour, mfc="white")
ax.plot([], [], color="#667", linewidth=0.8, linestyle="--", label="solver's own error")
ax.plot([], [], "o", color="#667", mfc="white", label="solver-limited")
ax.set(xlabel="relative tolerance rtol of the solver", ylabel="distance from the run at its end")
ax.invert_xaxis()
ax.legend(ncols=2)
