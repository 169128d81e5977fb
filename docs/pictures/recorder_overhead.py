"""What a recorder adds to a step of training, beside the accumulators of the paper's code."""

from measured import COLOURS, panels, read

networks = read("recorder")["networks"]
rows = {
    "everything": "everything",
    "everything, update by rule": "everything, without a copy of θ",
    "norms and charges": "norms and charges",
    "norms": "norms",
    "paper's accumulators": "the paper's accumulators",
}
(axes,) = panels(1, 5.0)
height = 0.8 / len(networks)
for j, one in enumerate(networks):
    shares = [100 * one["beside_the_bare_loop"][row]["share_of_a_step"] for row in rows]
    places = [i + (j - (len(networks) - 1) / 2) * height for i in range(len(rows))]
    name = {"vgg11_4096": "VGG-11", "vgg11_4096_batch128": "VGG-11", "resnet18": "ResNet-18"}[one["network"]]
    label = f"{name}, {one['parameters'] / 1e6:.0f} million parameters, batch {one['batch']}"
    axes.barh(places, shares, 0.9 * height, color=COLOURS[j], hatch=("", "//", "..")[j], ec="w", label=label)
axes.set_yticks(range(len(rows)), list(rows.values()))
axes.invert_yaxis()
axes.grid(axis="y", visible=False)
axes.set(xlabel="share of a step of training, per cent", title="What recording every step costs")
axes.legend(loc="upper center", bbox_to_anchor=(0.3, -0.14))
