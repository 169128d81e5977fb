"""Why no law of motion describes charges of a recorded loop."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class BeyondLaws:
    """Why no law of motion describes charges of a recorded loop. False where nothing is in a law's way.

    Attributes:
        everything: of all charges, in one sentence.
        symmetries: name of a symmetry whose charges were recorded → of its charges.
        parameters: name of a parameter → of the charges of every symmetry that acts on it.
    """

    everything: str = ""
    symmetries: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.everything or self.symmetries or self.parameters)

    def of(self, symmetry: str) -> str:
        """Why no law describes the charges of this symmetry; empty if one may."""
        return self.everything or self.symmetries.get(symmetry, "")

    def __str__(self) -> str:
        """For a reader: each reason once, with what it is of."""
        if self.everything:
            return self.everything
        reasons = self.symmetries or self.parameters
        what = "the charges of" if self.symmetries else "charges that have a share in"
        grouped = {why: [name for name, one in reasons.items() if one == why] for why in reasons.values()}
        return "; ".join(f"{what} {_listed(names)}: {why}" for why, names in grouped.items())

    @property
    def text(self) -> str:
        """As an attribute of a dataset: JSON, or nothing."""
        return (
            json.dumps([self.everything, dict(self.symmetries), dict(self.parameters)], ensure_ascii=False)
            if self
            else ""
        )

    @classmethod
    def of_text(cls, text: str) -> BeyondLaws:
        """What `text` was.

        Raises:
            ValueError: it is none.
        """
        if not text:
            return cls()
        everything, symmetries, parameters = json.loads(text)
        return cls(str(everything), dict(symmetries), dict(parameters))


NOTHING_BEYOND = BeyondLaws()


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    if len(shown) > 3:
        shown = [*shown[:2], f"{len(shown) - 2} others"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
