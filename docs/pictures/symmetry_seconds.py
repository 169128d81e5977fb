"""Seconds to find and verify all symmetries, against the number of parameters."""

from measured import COLOURS, panels, read

found = read("symmetry")
zoo = [row for row in read("model_zoo")["networks"] if "refused" not in row]
(axes,) = panels(1, 4.2)
axes.plot(
    [row["parameters"] for row in zoo],
    [row["seconds"] for row in zoo],
    "o",
    color=COLOURS[0],
    ms=4,
    alpha=0.6,
    label=f"the {len(zoo)} networks of the zoo, small",
)
large = [*found["discovery"], found["large"]]
axes.plot(
    [row["parameters"] for row in large],
    [row["seconds"] for row in large],
    "D",
    color=COLOURS[1],
    ms=7,
    label="at their own size",
)
places = {
    "VGG-16": (-9, 6),
    "VGG-16 with BatchNorm": (-9, -4),
    "ResNet-18": (-9, -14),
    "GPT-2 small": (-9, 3),
}
for row in large:
    name = row["network"].split(",")[0]
    at = (row["parameters"], row["seconds"])
    axes.annotate(name, at, places[name], textcoords="offset points", ha="right", fontsize=9)
axes.set(xscale="log", yscale="log", xlabel="parameters P", ylabel="seconds, verification included")
axes.set(ylim=(0.7, 200), title="Time to find all symmetries")
axes.legend(loc="upper left")
