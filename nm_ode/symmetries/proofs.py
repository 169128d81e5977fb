"""All that the rules of all kinds prove of a graph, put together and named, before anything is computed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from nm_ode.symmetries.diagonals import diagonals
from nm_ode.symmetries.ended import Ended, collecting
from nm_ode.symmetries.findings import Absorption, Found
from nm_ode.symmetries.forms import Diagonal
from nm_ode.symmetries.graph import Graph
from nm_ode.symmetries.implied import free_entries, without_implied
from nm_ode.symmetries.kinds import KINDS
from nm_ode.symmetries.names import names_of
from nm_ode.symmetries.operations import value
from nm_ode.symmetries.refusals import ruled
from nm_ode.symmetries.symmetry import Symmetry


@dataclass(frozen=True, eq=False)
class EpsilonLink:
    """Which charges multiply what one ε stands beside: entry groups[i] of the ε, charges[i], to the power powers[i]."""

    node: Node
    shape: tuple[int, ...]
    epsilon: float
    groups: Tensor
    charges: Tensor
    powers: Tensor


class Discovery(NamedTuple):
    """What the rules say of a graph.

    Attributes:
        symmetries: in the order of their kinds.
        links: the ε's that break them.
        ended: of each parameter without a symmetry of some kinds the operations that ended it.
        provisos: sentences on what is true of floating-point numbers alone.
    """

    symmetries: tuple[Symmetry, ...]
    links: tuple[EpsilonLink, ...]
    ended: tuple[Ended, ...]
    provisos: tuple[str, ...]


def discover(graph: Graph) -> Discovery:
    """All that the rules of all kinds prove."""
    found: list[Found] = []
    absorptions: list[tuple[int, Absorption]] = []  # with the place of its findings' first symmetry
    ended: list[Ended] = []
    provisos: dict[str, None] = {}
    shapes = {name: tuple(value(node).shape) for node, name in graph.parameters.items()}
    for find in dict.fromkeys(kind.find for kind in KINDS.values()):
        kinds = " and ".join(name for name, kind in KINDS.items() if kind.find is find)
        with collecting() as ends, ruled(kinds, rule=find):
            findings = find(graph)
        moved = {part.parameter for one in findings.symmetries for part in one.parts}
        still = {node: name for node, name in graph.parameters.items() if name not in moved}
        provisos |= ends.provisos if findings.symmetries else {}
        ended += ends.of(kinds, still, graph.loss)
        if all(KINDS[one.kind].form is Diagonal for one in findings.symmetries):
            shifts = [one for one in found if KINDS[one.kind].form.degree == 1]
            findings = without_implied(findings, free_entries(shifts, shapes))
        absorptions += [(len(found), absorption) for absorption in findings.absorptions]
        found += findings.symmetries
    rank = {kind: i for i, kind in enumerate(KINDS)}
    order = sorted(range(len(found)), key=lambda i: rank[found[i].kind])
    names = dict(zip(order, names_of([found[i] for i in order], shapes), strict=True))
    counts = [KINDS[one.kind].form.count(one.parts) for one in found]
    starts = np.zeros(len(found), dtype=np.int64)
    starts[order] = np.cumsum([0, *(counts[i] for i in order)])[:-1]
    epsilons: dict[int, float] = defaultdict(float)
    for first, absorption in absorptions:
        for member in absorption.members.unique().tolist():
            epsilons[first + member] = max(epsilons[first + member], absorption.epsilon)
    within = diagonals(found, names, shapes)
    symmetries = tuple(
        Symmetry(
            kind=found[i].kind,
            name=names[i],
            count=counts[i],
            parts=found[i].parts,
            shapes={part.parameter: shapes[part.parameter] for part in found[i].parts},
            epsilon=epsilons.get(i, 0.0),
            within=within.get(i),
        )
        for i in order
    )
    links = tuple(_link(absorption, starts[first:]) for first, absorption in absorptions)
    return Discovery(symmetries, links, tuple(ended), tuple(provisos))


def _link(absorption: Absorption, starts: np.ndarray) -> EpsilonLink:
    """With charges numbered over all symmetries; `starts` are the first ones of the findings' symmetries."""
    charges = torch.from_numpy(starts)[absorption.members] + absorption.channels
    return EpsilonLink(
        absorption.node,
        absorption.shape,
        absorption.epsilon,
        absorption.groups,
        charges,
        absorption.powers,
    )
