"""What follows from what varies: "lr * steps = 8" says how many steps each learning rate takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from nm_ode.studies.sweep.axes import SweepMistakeError, is_number
from nm_ode.studies.sweep.naming import resolve

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<key>[A-Za-z_](?:[\w.]|\[\d+\])*)"
    r"|(?P<sign>\*\*|\^|\*|/|=|\+|-))"
)
_FORM = "it must be a product of keys and numbers with '=' a number, such as 'lr * steps = 8'"
_LARGEST = 100  # exponent
_ROUNDING = 1e-9  # relative: how far from a whole number one may be that is meant


@dataclass(frozen=True)
class Constraint:
    """∏ keyᵖ = number.

    Attributes:
        text: as it was written.
        powers: of the keys, as they were written; none is 0.
    """

    text: str
    powers: Mapping[str, Fraction]
    number: Fraction

    def keys(self, known: Iterable[str], others: Iterable[str]) -> dict[str, str]:
        """Name as written → key of the case.

        Args:
            known: keys that vary, or follow from those that do; a short name means one of these first.
            others: the case's other keys.

        Raises:
            SweepMistakeError: no key or several of that name.
        """
        known, others = list(known), list(others)
        found = {}
        for name in self.powers:
            meant = resolve(name, known) or resolve(name, others)
            if not meant:
                raise SweepMistakeError(
                    f"constraint {self.text!r}: the case has no key {name!r}: write it out, as 'training.steps'"
                )
            if len(meant) > 1:
                raise SweepMistakeError(
                    f"constraint {self.text!r}: {name!r} may be {' or '.join(meant)}: write it out"
                )
            found[name] = meant[0]
        return found

    def solve(self, values: Mapping[str, Any], wanted: str) -> int | float:
        """The value of one key; a whole number where it is one.

        Args:
            values: of the others, by the names in `powers`.

        Raises:
            SweepMistakeError: a value that is no number, or nothing that fulfils the constraint.
        """
        rest = self.number
        for name, power in self.powers.items():
            if name != wanted:
                rest /= self._raised(name, values[name], power)
        power = self.powers[wanted]
        try:
            exact = _exact_root(rest, int(power)) if power.denominator == 1 else None
            if exact is not None:
                return _as_number(exact)
            found = float(rest) ** float(1 / power)
            if isinstance(found, complex):
                raise ValueError
            return _as_number(Fraction(found))
        except (ValueError, ZeroDivisionError, OverflowError):
            raise SweepMistakeError(
                f"constraint {self.text!r}: no {wanted} fulfils it here: take other values"
            ) from None

    def _raised(self, name: str, value: Any, power: Fraction) -> Fraction:
        if not is_number(value):
            raise SweepMistakeError(f"constraint {self.text!r}: {name} is {value!r} here, which is no number")
        exact = Fraction(str(value))
        try:
            return _power(exact, power)
        except (TypeError, ValueError, ZeroDivisionError, OverflowError):
            raise SweepMistakeError(
                f"constraint {self.text!r}: {name} is {value!r} here, with which nothing fulfils it"
            ) from None


def parse(text: str) -> Constraint:
    """A constraint as it is written in a case file.

    Raises:
        SweepMistakeError: it is none.
    """
    sides = text.split("=")
    if len(sides) != 2:
        raise SweepMistakeError(f"constraint {text!r}: {_FORM}")
    powers: dict[str, Fraction] = {}
    number = Fraction(1)
    for side, sign in zip(sides, (1, -1), strict=True):
        for factor, power in _factors(text, side):
            if isinstance(factor, str):
                powers[factor] = powers.get(factor, Fraction(0)) + sign * power
            elif factor == 0:
                raise SweepMistakeError(f"constraint {text!r}: 0 is no factor of a product: {_FORM}")
            else:
                try:
                    number *= _power(factor, -sign * power)
                except (ZeroDivisionError, OverflowError):
                    raise SweepMistakeError(
                        f"constraint {text!r}: a number in it is too large or too small for its exponent"
                    ) from None
    powers = {name: power for name, power in powers.items() if power}
    if not powers:
        raise SweepMistakeError(f"constraint {text!r} has no key: {_FORM}")
    return Constraint(text, powers, number)


def _factors(text: str, side: str) -> list[tuple[str | Fraction, Fraction]]:
    """Keys and numbers of one side with their exponents."""
    tokens = _tokens(text, side)
    found: list[tuple[str | Fraction, Fraction]] = []
    over, expected = 1, True
    i = 0
    while i < len(tokens):
        kind, token = tokens[i]
        i += 1
        if not expected:
            if token not in ("*", "/"):
                why = "sums do not go; " if token in "+-" else ""
                raise SweepMistakeError(f"constraint {text!r}: {why}{_FORM}")
            over, expected = (1 if token == "*" else -1), True
            continue
        if kind == "sign":
            raise SweepMistakeError(f"constraint {text!r}: {_FORM}")
        power = Fraction(1)
        if i < len(tokens) and tokens[i][1] in ("**", "^"):
            negative = tokens[i + 1 : i + 2] == [("sign", "-")]
            i += 2 if negative else 1
            if i >= len(tokens) or tokens[i][0] != "number":
                raise SweepMistakeError(f"constraint {text!r}: an exponent must be a number")
            power = Fraction(tokens[i][1]) * (-1 if negative else 1)
            if abs(power) > _LARGEST:
                raise SweepMistakeError(f"constraint {text!r}: an exponent must be at most {_LARGEST}")
            i += 1
        found.append((token if kind == "key" else Fraction(token), over * power))
        expected = False
    if expected:
        raise SweepMistakeError(f"constraint {text!r}: {_FORM}")
    return found


def _tokens(text: str, side: str) -> list[tuple[str, str]]:
    found, place = [], 0
    side = side.rstrip()
    while place < len(side):
        match = _TOKEN.match(side, place)
        if match is None:
            raise SweepMistakeError(
                f"constraint {text!r}: {side[place:].strip()[0]!r} does not go there: {_FORM}"
            )
        kind = str(match.lastgroup)
        found.append((kind, match.group(kind)))
        place = match.end()
    return found


def _power(number: Fraction, power: Fraction) -> Fraction:
    """Raises ZeroDivisionError or OverflowError for what a float cannot hold, and for 0, which divides nothing."""
    raised = number ** int(power) if power.denominator == 1 else Fraction(float(number) ** float(power))
    if raised == 0:
        raise ZeroDivisionError
    return raised


def _exact_root(number: Fraction, power: int) -> Fraction | None:
    """x with xᵖ = number, if it is a ratio of whole numbers."""
    if power < 0:
        number, power = 1 / number, -power
    if power == 1:
        return number
    if number < 0:
        return None
    roots = [round(part ** (1 / power)) for part in (number.numerator, number.denominator)]
    found = Fraction(roots[0], max(1, roots[1]))
    return found if found**power == number else None


def _as_number(exact: Fraction) -> int | float:
    whole = round(exact)
    return whole if abs(exact - whole) <= _ROUNDING * max(1, abs(whole)) and whole else float(exact)
