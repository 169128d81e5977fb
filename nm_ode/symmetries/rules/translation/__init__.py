"""Translation symmetries: which sums of parameters' entries can be shifted so that the loss stays.

Backward through the graph, each tensor is given labels: adding one number to all entries of a label, another to all
of another label, changes the loss of no batch. A mean subtraction and a softmax make labels; sums and moves hand
them to their inputs; a product with the data x hands a weight the labels that its output has at each sample. An entry
without a label (−1) may not be shifted. Several readers of one tensor join their labels: what one forbids is forbidden.

The rules are sound, not complete: they know what subtracts a mean, not means that happen to cancel.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from nm_ode.symmetries.findings import Findings, Found
from nm_ode.symmetries.forms import Shift
from nm_ode.symmetries.graph import Graph
from nm_ode.symmetries.kinds import SymmetryKind
from nm_ode.symmetries.labels import NONE
from nm_ode.symmetries.rules.translation import contractions, elementwise, normalisations
from nm_ode.symmetries.rules.translation.traversal import Rule, shift_labels
from nm_ode.symmetries.symmetry import Part, whole

RULES: dict[str, Rule] = {**elementwise.RULES, **normalisations.RULES, **contractions.RULES}
"""Operation → its rule."""


def find(graph: Graph) -> Findings:
    """One translation for each layer: the charges of its weight and of its bias in a row."""
    by_layer: dict[str, list[tuple[str, Tensor]]] = defaultdict(list)
    for name, labels in shift_labels(graph, RULES).items():
        by_layer[name.rpartition(".")[0] or name].append((name, labels))
    found = []
    for members in by_layer.values():
        parts: list[Part] = []
        count = 0
        for name, labels in members:
            parts.append(_part(name, labels, count))
            count = max(count, int(parts[-1].index.max()) + 1)
        found.append(Found("translation", tuple(parts)))
    return Findings(tuple(found))


def _part(name: str, labels: Tensor, first: int) -> Part:
    """A parameter whose entries with one label have one charge, numbered from `first`."""
    varies = tuple(dim for dim in range(labels.ndim) if bool((labels != labels.narrow(dim, 0, 1)).any()))
    reduced = labels
    for dim in range(labels.ndim):
        if dim not in varies:
            reduced = reduced.narrow(dim, 0, 1)
    numbers, index = torch.unique(reduced.reshape(-1), return_inverse=True)
    if int(numbers[0]) == NONE:
        index = index - 1
    return Part(whole(name, labels.shape), varies, torch.where(index >= 0, index + first, -1), 1.0)


TRANSLATION = SymmetryKind(find, Shift, formula=r"$\langle\theta_A, 1\rangle$")
