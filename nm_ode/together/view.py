"""A step of all members, as their observers see it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nm_ode.observers import View
from nm_ode.optimizers.rows import Rows
from nm_ode.parameters import Vector
from nm_ode.planned import PlannedRun
from nm_ode.together.fates import Fates


class MembersView(View):
    """A view whose vectors have a row for each member, and whose numbers are vectors, shape (M,).

    Rows of members that are not living hold anything. There is no time and no learning rate: each member has its own.

    Args:
        losses, gradients: of the step's batches, shapes (M,) and (M, P); None after the last step.
        full: are these the losses over all samples?
    """

    def __init__(
        self,
        plans: Sequence[PlannedRun],
        step: int,
        moving: Rows,
        fates: Fates,
        losses: Tensor | None = None,
        gradients: Tensor | None = None,
        *,
        full: bool = False,
    ) -> None:
        evaluated = None if losses is None or gradients is None else (losses, gradients)
        super().__init__(
            plans[0].problem,
            step,
            0.0,
            moving.theta,
            lr=float("nan") if evaluated is None else 0.0,
            loss_and_gradient=None if evaluated is None else lambda: evaluated,
            full_loss=(lambda: losses) if full and losses is not None else self._full_losses,
        )
        self._plans, self._moving, self._fates = plans, moving, fates
        self._both, self._members = evaluated, dict[int, View]()

    @property
    def living(self) -> list[int]:
        """Numbers of the members that there is something to see of."""
        return self._fates.living

    def member(self, i: int) -> View:
        """The step as member i has it."""
        if i not in self._members:
            self._members[i] = made = self._seen_by(i)
            if self._update is not None:
                made.take_update(self.update[i])
        return self._members[i]

    def take_update(self, update: Vector) -> None:
        """The step has been taken, and moved each theta by a row of this."""
        super().take_update(update)
        for i, one in self._members.items():
            one.take_update(self.update[i])

    def _seen_by(self, i: int) -> View:
        plan, moving, both, step = self._plans[i], self._moving, self._both, self.step
        gradients = torch.empty_like(moving.theta) if both is None else both[1]
        return View(
            plan.problem,
            step,
            float(plan.grid.times[step]),
            self.theta[i],
            lr=float("nan") if both is None else float(plan.grid.lr[step]),
            loss_and_gradient=None if both is None else lambda: (both[0][i], both[1][i]),
            full_loss=lambda: self.full_loss[i],
            state=lambda: moving.state(i, gradients),
            memory=None if both is None else lambda name: moving.memory(i, name),
        )

    def _full_losses(self) -> Tensor:
        rows = self._fates.rows
        found = self.theta.new_full((len(self.theta),), float("nan"))
        found[rows] = self._plans[0].problem.ensemble_loss(self.theta[rows])
        return found
