"""What laws and flows take for granted of a loop, looked at in each step: one optimiser, and nobody else at theta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nm_ode.arguments import said
from nm_ode.errors import ArgumentError
from nm_ode.optimizers import Optimizer, hyperparameters
from nm_ode.recorder.known import plain_options


class Conditions:
    """The optimiser's groups, and who writes to the parameters, from one step to the next.

    Args:
        optimizer: the user's own.
        followed: name → parameter, of the layout.
        model: without wrappers.
        known: the same optimiser as one of nm_ode's, where there is one.

    Attributes:
        beyond_laws: why no law describes the run's charges, in one sentence; empty as long as nothing is known.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        followed: Mapping[str, nn.Parameter],
        model: nn.Module,
        known: Optimizer | None,
    ) -> None:
        self._optimizer, self._followed, self._model = optimizer, followed, model
        # Momentum and weight decay act on a parameter whose gradient is zero; torch leaves out one that has none.
        decay = None if known is None else hyperparameters(known).get("weight_decay")
        self._decays = known is None or known.stateful or bool(decay)
        self.beyond_laws = ""
        self._versions: list[int] = []
        self._options: list[Any] = []
        self._counts: list[int] = []
        self._unfollowed: dict[str, nn.Parameter] = {}
        self._group_of: list[int | None] = []
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
    def written(self) -> bool:
        """Has somebody beside the optimiser written to a parameter since the last step?"""
        return bool(self._versions) and self._versions != self._seen_versions()

    def rates(self) -> list[float]:
        """The learning rate of each followed parameter; 0 for one that the optimiser has not got."""
        rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        self._look_at_groups()
        return [0.0 if group is None else rates[group] for group in self._group_of]

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
        self._look_at_groups()
        for name, parameter in self._unfollowed.items():
            if parameter.grad is not None:
                raise ArgumentError(
                    f"the parameter {said(name)} takes part in step {step}, and was frozen or not in the optimiser "
                    "when the Recorder was made: give follow_frozen=True, or make a new Recorder"
                )
        if self.written:
            self.note(f"a parameter was written to between steps {step - 1} and {step}, beside the optimiser")
        groups = self._optimizer.param_groups
        used = sorted({group for group in self._group_of if group is not None})
        rates = [float(groups[group]["lr"]) for group in used]
        if len(set(rates)) > 1:
            listed = ", ".join(f"{rate:g}" for rate in sorted(set(rates)))
            self.note(f"parameters have different learning rates at step {step} ({listed})")
        for options, given in zip(self._options, groups, strict=True):
            now = plain_options(given)
            changed = sorted(
                name for name in now if now[name] != options.get(name) and not self._followed_by_laws(name)
            )
            if changed:
                self.note(f"{', '.join(changed)} of the optimiser changed before step {step}")
        each = zip(self._followed.items(), self._group_of, gradients, strict=True)
        for (name, parameter), group, gradient in each:
            if group is None or (gradient is None and (self._decays or not parameter.requires_grad)):
                self.note(f"the parameter {said(name)} took no part in step {step}")
            if gradient is None and name not in self._present:
                self._require_present(name, parameter)
        return rates[0]

    def after_step(self) -> None:
        """The step has been taken."""
        self._versions = self._seen_versions()
        self._steps += 1

    def _followed_by_laws(self, option: str) -> bool:
        """May it change from step to step? Charges record SGD's own (`sgd_settings`), of all groups alike."""
        values = {group.get(option) for group in self._optimizer.param_groups}
        return (
            type(self._optimizer) is torch.optim.SGD
            and option in ("momentum", "weight_decay")
            and len(values) == 1
        )

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
        self.beyond_laws = self.beyond_laws or why

    def _seen_versions(self) -> list[int]:
        return [parameter._version for parameter in self._followed.values()]

    def _loaded(self, optimizer: torch.optim.Optimizer) -> None:
        if self._steps:
            self.note(f"the optimiser's state was loaded between steps {self._steps - 1} and {self._steps}")

    def _look_at_groups(self) -> None:
        """Parameters may be added to the optimiser at any time."""
        groups = self._optimizer.param_groups
        counts = [len(group["params"]) for group in groups]
        if counts == self._counts:
            return
        first_look, self._counts = not self._counts, counts
        number = {id(p): i for i, group in enumerate(groups) for p in group["params"]}
        self._group_of = [number.get(id(parameter)) for parameter in self._followed.values()]
        mine = {id(parameter) for parameter in self._followed.values()}
        self._unfollowed = {
            name: p for name, p in self._model.named_parameters() if id(p) in number and id(p) not in mine
        }
        if not first_look and len(groups) > len(self._options):
            self.note(f"parameters were added to the optimiser before step {self._steps}")
        self._options += [plain_options(group) for group in groups[len(self._options) :]]
