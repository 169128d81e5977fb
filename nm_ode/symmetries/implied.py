"""Factors of entries that may be anything: of what each entry may shift by itself, a scale says nothing more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from nm_ode.symmetries.findings import Absorption, Findings, Found
from nm_ode.symmetries.symmetry import Part


def free_entries(found: Sequence[Found], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Parameter → mask, flattened, of entries that a translation moves alone; of those that have any.

    Args:
        found: translations.
        shapes: of the parameters.
    """
    masks: dict[str, Tensor] = {}
    for one in found:
        count = torch.zeros(max(int(part.index.max()) for part in one.parts) + 1, dtype=torch.int64)
        for part in one.parts:
            charges = part.index[part.index >= 0]
            count.index_add_(
                0, charges, torch.full_like(charges, part.view.size // max(part.index.numel(), 1))
            )
        for part in one.parts:
            alone = (part.index >= 0) & (count[part.index.clamp_min(0)] == 1)
            if bool(alone.any()):
                mask = masks.setdefault(
                    part.parameter, torch.zeros(prod(shapes[part.parameter]), dtype=torch.bool)
                )
                part.view.of(mask).logical_or_(_over(part, alone))
    return masks


def without_implied(findings: Findings, free: Mapping[str, Tensor]) -> Findings:
    """Without the charges of factors all of whose entries are free."""
    kept: list[Found] = []
    new: dict[int, tuple[int, Tensor]] = {}  # symmetry → its new place, and for each charge its new one
    for place, one in enumerate(findings.symmetries):
        count = max(int(part.index.max()) for part in one.parts) + 1
        stays = torch.ones(count, dtype=torch.bool)
        if all(part.parameter in free for part in one.parts):
            stays[:] = False
            for part in one.parts:
                bound = ~part.view.of(free[part.parameter])
                dims = [dim for dim in range(bound.ndim) if dim not in part.axes]
                channels = (bound.sum(dims) > 0 if dims else bound).reshape(-1) & (part.index >= 0)
                stays[part.index[channels]] = True
        number = torch.where(stays, stays.cumsum(0) - 1, -1)
        parts = tuple(
            replace(part, index=torch.where(part.index >= 0, number[part.index.clamp_min(0)], -1))
            for part in one.parts
        )
        parts = tuple(part for part in parts if bool((part.index >= 0).any()))
        if parts:
            new[place] = len(kept), number
            kept.append(replace(one, parts=parts) if not bool(stays.all()) else one)
    return Findings(tuple(kept), tuple(_renumbered(one, new) for one in findings.absorptions))


def _over(part: Part, channels: Tensor) -> Tensor:
    """One number for each channel, broadcast over the part's view."""
    sizes = [n if dim in part.axes else 1 for dim, n in enumerate(part.view.shape)]
    assert prod(sizes) == channels.numel()
    return channels.reshape(sizes)


def _renumbered(one: Absorption, new: Mapping[int, tuple[int, Tensor]]) -> Absorption:
    members, channels = one.members.clone(), one.channels.clone()
    for place in one.members.unique().tolist():
        mine = one.members == place
        at, number = new.get(place, (-1, None))
        members[mine] = at
        if number is not None:
            channels[mine] = number[one.channels[mine]]
    left = (members >= 0) & (channels >= 0)
    return replace(
        one, groups=one.groups[left], members=members[left], channels=channels[left], powers=one.powers[left]
    )
