"""Past the edge of stability: distance from the run's average against cost, beside the paper's own scheme."""

from measured import COLOURS, MARKS, panels, read

rival = read("central_flow")["rival"]
names = {
    "gradient_flow": "gradient flow",
    "nm_ode": "nm_ode.CentralFlow, rtol 1e-3",
    "paper_one_substep": "the paper's scheme, one substep",
    "paper_four_substeps": "… four substeps",
    "paper_four_substeps_eigenvectors_at_each": "… eigenvectors anew at each",
}
(axes,) = panels(1, 4.2)
for i, (name, label) in enumerate(names.items()):
    one = rival[name]
    x, y = one["cost"], one["mean_after_the_jump"]
    axes.plot([x], [y], MARKS[i], color=COLOURS[i], ms=9, ls="none", label=label)
axes.axhline(
    rival["own"]["mean_after_the_jump"], color="#223", lw=1, ls=(0, (4, 2)), label="the run itself (a floor)"
)
axes.set(xscale="log", yscale="log", xlim=(1, 1000), ylim=(0.008, 0.3))
axes.set(xlabel="cost a step of the run, in gradients", ylabel="mean distance after the jump")
axes.set_title("Past the edge of stability")
axes.legend(loc="upper right")
