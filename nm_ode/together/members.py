"""What the members of one training differ in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from torch import Tensor

from nm_ode.arguments import as_real, said
from nm_ode.errors import ArgumentError, NmOdeError
from nm_ode.optimizers import Optimizer

Vectorise: TypeAlias = bool | Literal["auto"]


class Members:
    """M members of one training: a value for each of them.

    What is not given here is the same for all members, as `train` is given it.

    Args:
        seed: of each member's batches.
        theta0: shape (M, P), where each starts.
        state0: a whole state of the optimiser for each, of warm starts.
        vectorise: True: all members take a step at once, or it is said why that is not possible. "auto": so if it is
            possible, and faster than one member after another, which a few steps show. False: one after another.
        numbers: hyperparameters of the optimiser, by name.

    Attributes:
        count: M.

    Raises:
        ArgumentError: nothing to differ in, what is no sequence, or sequences of different lengths.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem, members = nm_ode.Problem(linear(10, 1), mse_loss, diabetes()), nm_ode.Members(seed=range(4))
        >>> members
        <4 members that differ in seed>
        >>> runs = nm_ode.train(problem, nm_ode.SGD(lr=0.05), steps=10, batch_size=64, members=members)
        >>> dict(runs.loss.sizes)
        {'member': 4, 'step': 10}
    """

    def __init__(
        self,
        *,
        seed: Iterable[int] | None = None,
        theta0: Tensor | Sequence[Tensor] | None = None,
        state0: Tensor | Sequence[Tensor] | None = None,
        vectorise: Vectorise = True,
        **numbers: Iterable[Any],
    ) -> None:
        given = {"seed": seed, "theta0": theta0, "state0": state0, **numbers}
        self._values = {name: _listed(name, one) for name, one in given.items() if one is not None}
        counts = {name: len(values) for name, values in self._values.items()}
        if len(set(counts.values())) != 1:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise ArgumentError(
                f"Members: give a value of each for every member; there are {told}"
                if counts
                else "Members: say what the members differ in, such as Members(seed=range(8))"
            )
        self.count = next(iter(counts.values()))
        if not self.count:
            raise ArgumentError("Members: there must be at least one")
        if not isinstance(vectorise, bool | np.bool_) and not (
            isinstance(vectorise, str) and vectorise == "auto"
        ):
            raise ArgumentError(f"vectorise must be True, False or 'auto'; {said(vectorise)} was given")
        self.vectorise: Vectorise = vectorise if isinstance(vectorise, str) else bool(vectorise)

    def __repr__(self) -> str:
        return f"<{self.count} members that differ in {', '.join(self._values)}>"

    @property
    def named(self) -> Mapping[str, Sequence[Any]]:
        """What can be named in a few words: seeds and numbers."""
        return {name: one for name, one in self._values.items() if name not in ("theta0", "state0")}

    def arguments(self, optimizer: Optimizer, common: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Of each member, as `train` takes them.

        Args:
            optimizer: with what is the same for all.
            common: the other arguments that are.

        Raises:
            ArgumentError: the optimiser has no such number, or one is out of range; the sentence has the member.
        """
        known = [field.name for field in fields(optimizer)]  # type: ignore[arg-type]
        numbers = [name for name in self._values if name not in ("seed", "theta0", "state0")]
        for name in numbers:
            if name not in known:
                who = type(optimizer).__name__
                raise ArgumentError(f"Members: {who} has no {name!r}; it has {', '.join(known)}")
        found = []
        for i in range(self.count):
            own = {name: values[i] for name, values in self._values.items()}
            try:
                changed: Any = replace(optimizer, **{name: own.pop(name) for name in numbers})  # type: ignore[type-var]
            except NmOdeError as error:
                raise ArgumentError(f"Members: member {i}: {error}") from None
            found.append({**common, "optimizer": changed, **own})
        return found


def _listed(name: str, given: Any) -> list[Any]:
    rows = name in ("theta0", "state0")
    if rows and (isinstance(given, Tensor) or hasattr(given, "__array__")):
        found = as_real(given, name)
        if found.ndim == 2:
            return list(found)
    elif (
        isinstance(given, Iterable)
        and not isinstance(given, str | bytes | dict | set | frozenset)
        and getattr(given, "ndim", 1) == 1
    ):
        if not isinstance(given, Tensor | np.ndarray):
            return list(given)
        with suppress(RuntimeError):  # a tensor without values: sparse, or on the device "meta"
            values: list[Any] = given.tolist()
            return values
    raise ArgumentError(
        f"Members: {name} must have a {'row' if rows else 'value'} for each member; {said(given)} was given"
    )
