"""find_symmetries: from a model to its families of charges, proved from the graph and verified by numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from nm_ode.loss import Problem
from nm_ode.symmetries.constraints import Check, EpsilonLink, verify
from nm_ode.symmetries.graph import Graph, value
from nm_ode.symmetries.kinds import KINDS, Kind, Part, Symmetry, count_charges, whole
from nm_ode.symmetries.mixing import Mixing
from nm_ode.symmetries.scaling import Free, Scaling, Use
from nm_ode.symmetries.subject import LossFunction, Subject, subject, subject_of
from nm_ode.symmetries.translation import NONE, translations


@dataclass(frozen=True)
class Symmetries(Sequence[Symmetry]):
    """The symmetries of a model, each verified; a sequence.

    Attributes:
        found: the families, in order of kind.
        checks: by name, what the verification measured.
        defects: sentences on what the graph's rules found and the numbers did not bear out. Never in `found`.
    """

    found: tuple[Symmetry, ...]
    checks: dict[str, Check]
    defects: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, i):  # type: ignore[no-untyped-def]
        return self.found[i]

    def __iter__(self) -> Iterator[Symmetry]:
        return iter(self.found)

    def named(self, name: str) -> Symmetry:
        """The family of this name.

        Raises:
            KeyError: there is none.
        """
        for symmetry in self.found:
            if symmetry.name == name:
                return symmetry
        raise KeyError(f"no symmetry is called {name!r}; there are {', '.join(s.name for s in self.found)}")

    def of_kind(self, kind: Kind) -> tuple[Symmetry, ...]:
        return tuple(symmetry for symmetry in self.found if symmetry.kind == kind)

    def n_charges(self, kind: Kind | None = None) -> int:
        """Number of charges, of one kind or of all; those that are another symmetry's diagonal count once."""
        return count_charges(self.found, kind)


def find_symmetries(
    model: nn.Module,
    example_input: Tensor,
    loss: str | LossFunction = "cross_entropy",
    *,
    target: Tensor | None = None,
    draws: int = 2,
    seed: int = 0,
) -> Symmetries:
    """Every symmetry of a model's loss that can be proved from its graph, verified (THEORY.md §2).

    Args:
        model: in the mode (train or eval) in which it is meant; it is copied, and stays as it is.
        example_input: a batch, samples along the first axis. Its size is the cost of the verification, so for a
            large network a small image is enough.
        loss: "cross_entropy", "mse", or a function of (output, target); then `target` is needed.
        target: targets of the example; drawn at random if None.
        draws: random parameters and batches at which the constraints are verified.
        seed: of these.

    Raises:
        SymmetryError: the model cannot be traced, or its output does not go with the loss.
    """
    return verified_symmetries(subject(model, example_input, loss, target, seed), draws=draws, seed=seed)


def symmetries_of(problem: Problem, *, samples: int = 8, draws: int = 2, seed: int = 0) -> Symmetries:
    """The symmetries of a problem's loss, found on its first samples.

    Raises:
        SymmetryError: the model cannot be traced.
    """
    return verified_symmetries(subject_of(problem, samples), draws=draws, seed=seed)


def verified_symmetries(looked_at: Subject, *, draws: int = 2, seed: int = 0) -> Symmetries:
    """What the rules prove of a traced model, and the numbers bear out."""
    symmetries, links = discover(looked_at.graph)
    checks = verify(looked_at, symmetries, links, draws=draws, seed=seed)
    good = tuple(s for s in symmetries if checks[s.name].holds)
    defects = tuple(
        f"{s.name}: found by its graph, but {checks[s.name].explain()}; this is a defect of nm_ode, please report it"
        for s in symmetries
        if not checks[s.name].holds
    )
    return Symmetries(good, {s.name: checks[s.name] for s in good}, defects)


def discover(graph: Graph) -> tuple[tuple[Symmetry, ...], tuple[EpsilonLink, ...]]:
    """What the rules prove, before any number is looked at."""
    scaling = Scaling(graph)
    free = scaling.run()
    rank = {name: i for i, name in enumerate(graph.parameters.values())}
    uses = sorted(scaling.uses, key=lambda use: rank[use.view.parameter])  # as the model lists them
    families, place = _scaling_families(uses, free)
    matrices: list[Draft] = [("matrix", parts) for parts in Mixing(graph).families()]
    shifts: list[Draft] = [("translation", parts) for parts in _translation_families(graph)]
    drafts = [*shifts, *families, *matrices]
    order = sorted(range(len(drafts)), key=lambda i: KINDS.index(drafts[i][0]))
    shapes = {name: tuple(value(node).shape) for node, name in graph.parameters.items()}
    names = _names([drafts[i] for i in order], shapes)
    name_of = dict(zip(order, names, strict=True))
    epsilons: dict[int, float] = defaultdict(float)
    links = []
    first = np.cumsum([0, *(_count(*drafts[i]) for i in order)])
    start_of = {i: int(first[j]) for j, i in enumerate(order)}
    for absorption in scaling.absorptions:
        groups, charges, powers = [], [], []
        for group, variable in enumerate(absorption.variables.reshape(-1).tolist()):
            for number, coefficient in free.of(variable):
                if number in place:
                    family, channel, sign = place[number]
                    family += len(shifts)
                    epsilons[family] = max(epsilons[family], absorption.epsilon)
                    groups.append(group)
                    charges.append(start_of[family] + channel)
                    powers.append(absorption.power * coefficient * sign)
        links.append(
            EpsilonLink(
                absorption,
                torch.tensor(groups, dtype=torch.int64),
                torch.tensor(charges, dtype=torch.int64),
                torch.tensor(powers, dtype=torch.float64),
            )
        )
    within = _within(drafts, name_of)
    symmetries = tuple(
        Symmetry(
            kind=drafts[i][0],
            name=name_of[i],
            count=_count(*drafts[i]),
            parts=drafts[i][1],
            shapes={part.parameter: shapes[part.parameter] for part in drafts[i][1]},
            epsilon=epsilons.get(i, 0.0),
            within=within.get(i),
        )
        for i in order
    )
    return symmetries, tuple(links)


Draft = tuple[Kind, tuple[Part, ...]]


def _count(kind: Kind, parts: tuple[Part, ...]) -> int:
    if kind == "matrix":
        blocks, d, _ = parts[0].view.shape
        return blocks * d * (d + 1) // 2
    return max(int(part.index.max()) for part in parts) + 1


def _scaling_families(
    uses: Sequence[Use], free: Free
) -> tuple[list[Draft], dict[int, tuple[int, int, float]]]:
    """Free variables that move the same parameters in the same way are channels of one family.

    Returns the families, and for each free variable (family, channel, sign).
    """
    terms = [(use, term) for use in uses for term in use.terms]
    touched: dict[int, dict[tuple[int, float], list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, (_, term) in enumerate(terms):
        for channel, variable in enumerate(term.variables.reshape(-1).tolist()):
            for which, coefficient in free.of(variable):
                touched[which][number, term.coefficient * coefficient].append(channel)
    families: dict[frozenset[tuple[int, float]], list[int]] = defaultdict(list)
    for which in sorted(touched):
        families[frozenset(touched[which])].append(which)
    drafts: list[Draft] = []
    place: dict[int, tuple[int, int, float]] = {}
    for signature, members in families.items():
        # The producers' side is the plus side: that of the first parameter, as the model lists them.
        flip = -1.0 if min(signature)[1] < 0 else 1.0
        parts = []
        for number, coefficient in sorted(signature):
            use, term = terms[number]
            index = torch.full((term.variables.numel(),), -1, dtype=torch.int64)
            for channel, which in enumerate(members):
                index[touched[which][number, coefficient]] = channel
            parts.append(Part(use.view, term.axes, index, flip * coefficient))
        kind: Kind = "scale" if all(part.weight > 0 for part in parts) else "rescale"
        for channel, which in enumerate(members):
            place[which] = (len(drafts), channel, flip)
        drafts.append((kind, tuple(parts)))
    return drafts, place


def _translation_families(graph: Graph) -> list[tuple[Part, ...]]:
    """One family for each layer: its weight's and its bias's charges in a row."""
    by_layer: dict[str, list[tuple[str, Tensor]]] = defaultdict(list)
    for name, labels in translations(graph).items():
        by_layer[name.rpartition(".")[0] or name].append((name, labels))
    families = []
    for members in by_layer.values():
        parts, count = [], 0
        for name, labels in members:
            varies = tuple(
                dim for dim in range(labels.ndim) if bool((labels != labels.narrow(dim, 0, 1)).any())
            )
            reduced = labels
            for dim in range(labels.ndim):
                if dim not in varies:
                    reduced = reduced.narrow(dim, 0, 1)
            numbers, index = torch.unique(reduced.reshape(-1), return_inverse=True)
            if int(numbers[0]) == NONE:
                index = index - 1
            parts.append(
                Part(whole(name, labels.shape), varies, torch.where(index >= 0, index + count, -1), 1.0)
            )
            count += int(index.max()) + 1
        families.append(tuple(parts))
    return families


def _names(drafts: Sequence[Draft], shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """`rescale features.0 → features.3`; with parameters and places in them where layers do not tell apart."""

    def place(part: Part) -> str:
        return f"{part.parameter}[{_where(part, prod(shapes[part.parameter][1:]))}]"

    names = [_name(kind, parts, _layer) for kind, parts in drafts]
    for label in (_parameter, place):
        vague = {name for name in names if names.count(name) > 1 or _sides_alike(name)}
        names = [
            _name(*draft, label) if name in vague else name for name, draft in zip(names, drafts, strict=True)
        ]
    again = {name for name in names if names.count(name) > 1}
    return [f"{name} ({i})" if name in again else name for i, name in enumerate(names)]


def _sides_alike(name: str) -> bool:
    """Both sides in one layer, as query and key in a fused projection."""
    plus, _, minus = name.partition(" ")[2].partition(" → ")
    return plus == minus


def _parameter(part: Part) -> str:
    return part.parameter


def _name(kind: Kind, parts: tuple[Part, ...], label: Callable[[Part], str]) -> str:
    plus, minus = (
        list(dict.fromkeys(label(part) for part in parts if sign * part.weight > 0)) for sign in (1, -1)
    )
    return f"{kind} " + " → ".join(_shortened(side) for side in (plus, minus) if side)


def _shortened(labels: list[str]) -> str:
    return ", ".join(labels) if len(labels) <= 3 else f"{labels[0]}, {labels[1]}, … ({len(labels)})"


def _layer(part: Part) -> str:
    return part.parameter.rpartition(".")[0] or part.parameter


def _where(part: Part, row: int) -> str:
    """Rows or columns of the parameter, as numpy would write them."""
    entries = part.entries
    first, last = int(entries.min()), int(entries.max())
    if first % row == 0 and last % row == row - 1:
        return f"{first // row}:{last // row + 1}"
    columns = entries % row
    return f":, {int(columns.min())}:{int(columns.max()) + 1}"


def _within(drafts: Sequence[Draft], names: dict[int, str]) -> dict[int, str]:
    """Rescale families whose charges are the diagonal of a matrix family."""
    matrices = [(i, parts) for i, (kind, parts) in enumerate(drafts) if kind == "matrix"]
    found = {}
    for i, (kind, parts) in enumerate(drafts):
        if kind != "rescale":
            continue
        involved = {part.parameter for part in parts}
        for j, others in matrices:
            if involved == {part.parameter for part in others} and _entries(parts) == _entries(others):
                found[i] = names[j]
    return found


def _entries(parts: tuple[Part, ...]) -> dict[str, bytes]:
    """Which entries of which parameters, as something that can be compared."""
    by_name: dict[str, list[Tensor]] = defaultdict(list)
    for part in parts:
        by_name[part.parameter].append(part.entries)
    return {name: torch.cat(numbers).unique().numpy().tobytes() for name, numbers in by_name.items()}
