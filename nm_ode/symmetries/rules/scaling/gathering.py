"""From free variables to symmetries: those that move the same parameters in the same way are channels of one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nm_ode.symmetries.findings import Absorption, Findings, Found
from nm_ode.symmetries.rules.scaling.traversal import EpsilonTerm, ScalingTraversal
from nm_ode.symmetries.rules.scaling.uses import Use
from nm_ode.symmetries.rules.scaling.variables import Free
from nm_ode.symmetries.symmetry import Part


@dataclass(frozen=True)
class _Place:
    """Where a free variable went: channel of a symmetry, and with which sign."""

    member: int
    channel: int
    sign: float


def gathered(traversal: ScalingTraversal, free: Free) -> Findings:
    """The symmetries of a graph that has been traversed, and the ε's that break them."""
    rank = {name: i for i, name in enumerate(traversal.graph.parameters.values())}
    uses = sorted(traversal.uses, key=lambda use: rank[use.view.parameter])  # as the model lists them
    found, places = _symmetries(uses, free)
    return Findings(tuple(found), tuple(_absorption(term, free, places) for term in traversal.epsilons))


def _symmetries(uses: Sequence[Use], free: Free) -> tuple[list[Found], dict[int, _Place]]:
    terms = [(use, term) for use in uses for term in use.terms]
    touched: dict[int, dict[tuple[int, float], list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    for number, (_, term) in enumerate(terms):
        for variable, channels in _by_root(term.variables, free):
            for which, coefficient in free.of(variable).items():
                touched[which][number, term.coefficient * coefficient].append(channels)
    alike: dict[frozenset[tuple[int, float]], list[int]] = defaultdict(list)
    for which in sorted(touched):
        alike[frozenset(touched[which])].append(which)
    found: list[Found] = []
    places: dict[int, _Place] = {}
    for signature, members in _channels_apart(alike, touched):
        # The producers' side is the plus side: that of the first parameter, as the model lists them.
        flip = -1.0 if min(signature)[1] < 0 else 1.0
        parts = []
        for number, coefficient in sorted(signature):
            use, term = terms[number]
            index = torch.full((term.variables.numel(),), -1, dtype=torch.int64)
            for channel, which in enumerate(members):
                for channels in touched[which][number, coefficient]:
                    index[torch.from_numpy(channels)] = channel
            parts.append(Part(use.view, term.axes, index, flip * coefficient))
        for channel, which in enumerate(members):
            places[which] = _Place(len(found), channel, flip)
        kind = "scale" if all(part.weight > 0 for part in parts) else "rescale"
        found.append(Found(kind, tuple(parts)))
    return found, places


def _channels_apart(
    alike: Mapping[frozenset[tuple[int, float]], list[int]],
    touched: Mapping[int, Mapping[tuple[int, float], list[np.ndarray]]],
) -> Iterator[tuple[frozenset[tuple[int, float]], list[int]]]:
    """Of the variables that move the same terms those together that share no entry: a channel has one charge."""
    for signature, members in alike.items():
        groups: list[tuple[list[int], set[tuple[int, int]]]] = []
        for which in members:
            mine = {
                (number, channel)
                for (number, _), channels in touched[which].items()
                for channel in np.concatenate(channels).tolist()
            }
            for group, taken in groups:
                if not mine & taken:
                    group.append(which)
                    taken |= mine
                    break
            else:
                groups.append(([which], mine))
        for group, _ in groups:
            yield signature, group


def _by_root(variables: torch.Tensor, free: Free) -> list[tuple[int, np.ndarray]]:
    """The variables of a term that move, each with the channels that have it."""
    if not variables.numel():
        return []
    roots = free.root[variables.reshape(-1).numpy()]
    order = np.argsort(roots, kind="stable")
    distinct, first = np.unique(roots[order], return_index=True)
    return [
        (int(root), channels)
        for root, channels in zip(distinct, np.split(order, first[1:]), strict=True)
        if free.of(int(root))
    ]


def _absorption(term: EpsilonTerm, free: Free, places: dict[int, _Place]) -> Absorption:
    groups, beside, powers = [], [], []
    for root, channels in _by_root(term.variables, free):
        for which, coefficient in free.of(root).items():
            if which in places:
                place = places[which]
                groups += channels.tolist()
                beside += [place] * len(channels)
                powers += [term.power * coefficient * place.sign] * len(channels)
    return Absorption(
        term.node,
        tuple(term.variables.shape),
        term.epsilon,
        groups=torch.tensor(groups, dtype=torch.int64),
        members=torch.tensor([place.member for place in beside], dtype=torch.int64),
        channels=torch.tensor([place.channel for place in beside], dtype=torch.int64),
        powers=torch.tensor(powers, dtype=torch.float64),
    )
