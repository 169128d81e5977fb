"""Which operation ended which parameter: what the rules of a kind forbid, collected while they run.

The rules call `ended` where they forbid something. It does nothing unless somebody collects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from torch.fx import Node

from nm_ode.symmetries.decompositions import CURVED, with_an_entry
from nm_ode.symmetries.places import Place, place_of


@dataclass(frozen=True)
class Ended:
    """Why a parameter has no symmetry of a kind.

    Attributes:
        parameter: its name in the model.
        kind: a name in `KINDS`.
        place: the operation that ends it, and where; None where no single operation does.
        why: more than that no rule is known for it, or "".
    """

    parameter: str
    kind: str
    place: Place | None
    why: str = ""


@dataclass(frozen=True)
class Row:
    """One operation, and all parameters that it ends for the rules of one kind.

    Attributes:
        kind, why: as of `Ended`.
        parameters: their names.
        place: the operation and where it is, as it is said.
        code: the user's line.
        remedy: what can be done about it.
    """

    kind: str
    parameters: tuple[str, ...]
    place: str
    code: str
    why: str
    remedy: str


def rows_of(ended: Iterable[Ended]) -> tuple[Row, ...]:
    """Ends at the same operation together, in their order."""
    together: dict[tuple[str, Place | None, str], dict[str, None]] = {}
    for end in ended:
        together.setdefault((end.kind, end.place, end.why), {})[end.parameter] = None
    return tuple(
        Row(
            kind,
            tuple(names),
            "no operation alone" if place is None else str(place),
            place.code if place else "",
            why,
            _remedy(place, why),
        )
        for (kind, place, why), names in together.items()
    )


def _remedy(place: Place | None, why: str) -> str:
    if place is None:
        return "its uses ask for different things: nothing is to be done"
    if place.in_loss or why == THE_LOSS:
        return "the loss must stay as it is: nothing is to be done"
    if place.operation in CURVED:
        return f"{place.operation} hands on neither factors nor shifts: nothing is to be done"
    if place.operation in with_an_entry():
        return f"{place.operation} does not hand it on here: nothing is to be done"
    return (
        f"{place.operation} is in no table: if it hands something on, say so in "
        "nm_ode.symmetries.operations.declared (docs/adding/operation.md)"
    )


THE_LOSS = "it reaches the loss"
"""Where nothing before the loss ends a parameter."""


@dataclass
class Ends:
    """What was forbidden while the rules of a kind ran.

    Attributes:
        edges: (input, operation) → why.
        uses: parameter → why, of ends that no operation's inputs show.
        provisos: sentences on what is true of floating-point numbers alone, as keys.
    """

    edges: dict[tuple[Node, Node], str] = field(default_factory=dict)
    uses: dict[str, tuple[Node, str]] = field(default_factory=dict)
    provisos: dict[str, None] = field(default_factory=dict)

    def of(self, kind: str, parameters: Mapping[Node, str], loss: Node) -> tuple[Ended, ...]:
        """The first ends downstream of each of some parameters.

        Args:
            kind: whose rules these are.
            parameters: placeholder → name.
            loss: the node of the loss.
        """
        found: list[Ended] = []
        for placeholder, name in parameters.items():
            mine = [
                Ended(name, kind, place_of(node), why) for node, why in self._downstream(placeholder, loss)
            ]
            if name in self.uses:
                node, why = self.uses[name]
                mine.append(Ended(name, kind, place_of(node), why))
            found += list(dict.fromkeys(mine)) or [Ended(name, kind, None)]
        return tuple(found)

    def _downstream(self, source: Node, loss: Node) -> Iterator[tuple[Node, str]]:
        seen, waiting = {source}, [source]
        while waiting:
            node = waiting.pop(0)
            if node is loss:
                yield node, THE_LOSS
                continue
            for user in node.users:
                if (node, user) in self.edges:
                    yield user, self.edges[node, user]
                elif user.op == "call_function" and user not in seen:
                    seen.add(user)
                    waiting.append(user)


_collecting: ContextVar[Ends | None] = ContextVar("ends", default=None)


def ended(
    node: Node, why: str = "", *, inputs: Iterable[Node] | None = None, parameters: Iterable[str] = ()
) -> None:
    """Note that an operation forbids what enters it; called by the rules of a kind.

    Args:
        node: the operation.
        why: half a sentence where more is known than that there is no rule.
        inputs: which of its inputs; all of them if None.
        parameters: names of those that are forbidden here without entering here.
    """
    ends = _collecting.get()
    if ends is None:
        return
    names = tuple(parameters)
    for name in names:
        ends.uses.setdefault(name, (node, why))
    if not names or inputs is not None:
        for needed in node.all_input_nodes if inputs is None else inputs:
            ends.edges.setdefault((needed, node), why)


def proviso(sentence: str) -> None:
    """Note what is said with all that is found; called by the rules of a kind."""
    ends = _collecting.get()
    if ends is not None:
        ends.provisos[sentence] = None


@contextmanager
def collecting() -> Iterator[Ends]:
    """What the rules forbid meanwhile."""
    ends = Ends()
    token = _collecting.set(ends)
    try:
        yield ends
    finally:
        _collecting.reset(token)
