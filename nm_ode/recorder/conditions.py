"""What laws and flows take for granted of a loop, looked at in each step: one optimiser, and nobody else at theta."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError
from nm_ode.recorder.groups import Groups
from nm_ode.recorder.known import Known, options_of_steps, rate_of
from nm_ode.recorder.written import Writes
from nm_ode.results import BeyondLaws


class Conditions:
    """The optimiser's groups, and who writes to the parameters, from one step to the next.

    Args:
        optimizer: the user's own.
        followed: name → parameter, of the layout.
        model: without wrappers.
        known: what nm_ode knows of the optimiser.
        symmetries: name → names of the parameters that it acts on, of those whose charges are recorded.

    Attributes:
        groups: the optimiser's.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        followed: Mapping[str, nn.Parameter],
        model: nn.Module,
        known: Known,
        symmetries: Mapping[str, Collection[str]],
    ) -> None:
        self._optimizer, self._followed, self._model = optimizer, followed, model
        self._is_sgd, self._symmetries = known.is_sgd, symmetries
        self._everything = "" if known.is_sgd else known.why_not
        self._of_parameters: dict[str, str] = {}
        self._of_symmetries: dict[str, str] = {}
        self.groups = Groups(optimizer, followed)
        self._writes = Writes(optimizer, followed, "momentum_buffer" if known.is_sgd else None)
        self._options = self._options_now()
        self._unfollowed: dict[str, nn.Parameter] = {}
        self._spread: dict[tuple[int, ...], list[str]] = {}
        self._changes = 0
        self._present: set[str] = set()
        self._handle: Any = None
        self._steps = 0

    def watch(self) -> None:
        """See whether the optimiser's state is loaded."""
        self._handle = self._optimizer.register_load_state_dict_post_hook(self._loaded)

    def remove(self) -> None:
        """The optimiser is as it was."""
        self._handle.remove()

    @property
    def beyond_laws(self) -> BeyondLaws:
        """Why no law describes charges of the run, as far as it is known."""
        return BeyondLaws(self._everything, dict(self._of_symmetries), dict(self._of_parameters))

    def go_on_from(self, before: BeyondLaws) -> None:
        """What is known of the steps before, in a run that is gone on with."""
        self._everything = self._everything or before.everything
        self._of_symmetries |= before.symmetries
        self._of_parameters |= before.parameters

    @property
    def written(self) -> bool:
        """Has somebody beside the optimiser written to a parameter since the last step?"""
        return self._writes.any_at_the_end

    def before_step(self, step: int, gradients: Sequence[Tensor | None]) -> float:
        """Look at a step that is about to be taken.

        Args:
            gradients: one for each followed parameter, as the optimiser has them.

        Returns:
            The learning rate of the first group with a followed parameter.

        Raises:
            ArgumentError: the optimiser moves a parameter of the model that is not followed, or one that the model no
                longer has.
        """
        now = self._options_now()
        self._look_at_groups(step, now)
        for name, parameter in self._unfollowed.items():
            if parameter.grad is not None:
                raise ArgumentError(
                    f"the parameter {said(name)} takes part in step {step}, and was frozen or not in the optimiser "
                    "when the Recorder was made: give follow_frozen=True, or make a new Recorder"
                )
        written, remembered = self._writes.found()
        self._note_written(written, step)
        for name in remembered:
            self._note_of(
                name,
                f"the velocity of {said(name)} was written to between steps {step - 1} and {step}, beside the "
                "optimiser",
            )
        self._look_at_options(step, now)
        each = zip(self._followed.items(), self.groups.numbers, gradients, strict=True)
        for (name, parameter), group, gradient in each:
            if group is None or (
                gradient is None and (self._moves_by_itself(group) or not parameter.requires_grad)
            ):
                self._note_of(name, f"the parameter {said(name)} took no part in step {step}")
            if gradient is None and name not in self._present:
                self._require_present(name, parameter)
        first = min((number for number in self.groups.numbers if number is not None), default=0)
        return rate_of(self.groups.settings[first])

    def after_step(self) -> None:
        """The step has been taken."""
        self._writes.after_step()
        self._steps += 1

    def end(self, step: int) -> None:
        """No step follows.

        Args:
            step: how many there were.
        """
        self._note_written(self._writes.found_late(), step)

    def _note_written(self, names: Iterable[str], step: int) -> None:
        between = f"between steps {step - self._writes.steps_back} and {step}, beside the optimiser"
        for name in names:
            self._note_of(name, f"the parameter {said(name)} was written to {between}")

    def _moves_by_itself(self, group: int) -> bool:
        """Do momentum or weight decay act on a parameter whose gradient is zero? torch leaves out one that has none."""
        settings = self.groups.settings[group]
        return not self._is_sgd or bool(settings["momentum"]) or bool(settings["weight_decay"])

    def _options_now(self) -> list[dict[str, Any]]:
        """Of each group."""
        return [options_of_steps(self._optimizer, group) for group in self._optimizer.param_groups]

    def _look_at_groups(self, step: int, now: list[dict[str, Any]]) -> None:
        """Parameters may be added to the optimiser at any time."""
        for name in self.groups.look():
            self._note_of(
                name, f"the parameter {said(name)} came to another group of the optimiser before step {step}"
            )
        if self._changes != self.groups.changes:
            self._changes = self.groups.changes
            self._unfollowed, self._spread = self._others(), self._spread_symmetries()
            self._options += now[len(self._options) :]
        for groups, symmetries in self._spread.items():
            differ = self._differing(groups, now)
            if differ:
                self._note_symmetries(symmetries, f"its parameters have different {differ} in step {step}")

    def _look_at_options(self, step: int, each: list[dict[str, Any]]) -> None:
        for i, (group, now) in enumerate(zip(self._optimizer.param_groups, each, strict=True)):
            if self._is_sgd and group.get("maximize"):
                self._note_group(i, "nm_ode does not know the optimiser's option 'maximize'")
            if now == self._options[i]:
                continue
            # Charges record SGD's momentum and weight decay.
            followed = ("momentum", "weight_decay") if self._is_sgd else ()
            changed = sorted(
                name for name in now if now[name] != self._options[i].get(name) and name not in followed
            )
            if changed:
                self._note_group(i, f"{', '.join(changed)} of the optimiser changed before step {step}")

    def _differing(self, groups: tuple[int, ...], now: list[dict[str, Any]]) -> str:
        """What groups say differently of a step, for a sentence."""
        rates = sorted({rate_of(self.groups.settings[i]) for i in groups})
        if len(rates) > 1:
            return f"learning rates ({', '.join(f'{rate:g}' for rate in rates)})"
        options = [now[i] for i in groups]
        return ", ".join(name for name in options[0] if any(one[name] != options[0][name] for one in options))

    def _spread_symmetries(self) -> dict[tuple[int, ...], list[str]]:
        """Symmetries that act on parameters of several groups, by these."""
        found: dict[tuple[int, ...], list[str]] = {}
        for symmetry, names in self._symmetries.items():
            groups = self.groups.of(names)
            if len(groups) > 1:
                found.setdefault(groups, []).append(symmetry)
        return found

    def _others(self) -> dict[str, nn.Parameter]:
        """Parameters of the model that the optimiser has and that are not followed."""
        mine = {id(parameter) for parameter in self._followed.values()}
        return {
            name: p
            for name, p in self._model.named_parameters()
            if id(p) not in mine and self.groups.contains(p)
        }

    def _require_present(self, name: str, parameter: nn.Parameter) -> None:
        """A parameter without a gradient may be one that the model no longer has."""
        if dict(self._model.named_parameters()).get(name) is not parameter:
            raise ArgumentError(
                f"the model has put another in the place of its parameter {said(name)} since the optimiser was made: "
                "make the optimiser, and the Recorder, once the model is as it will be"
            )
        self._present.add(name)

    def note(self, why: str) -> None:
        """A reason why no law describes the run; the first counts."""
        self._everything = self._everything or why

    def _note_of(self, name: str, why: str) -> None:
        if name in self._of_parameters:
            return
        self._of_parameters[name] = why
        self._note_symmetries((one for one, names in self._symmetries.items() if name in names), why)

    def _note_group(self, number: int, why: str) -> None:
        for name, group in zip(self._followed, self.groups.numbers, strict=True):
            if group == number:
                self._note_of(name, why)

    def _note_symmetries(self, symmetries: Iterable[str], why: str) -> None:
        for symmetry in symmetries:
            self._of_symmetries.setdefault(symmetry, why)

    def _loaded(self, optimizer: torch.optim.Optimizer) -> None:
        if self._steps:
            before = f"between steps {self._steps - 1} and {self._steps}"
            self._everything = self._everything or f"the optimiser's state was loaded {before}"
