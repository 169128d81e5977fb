"""Steps of torch's SGD that are known to the bit before they are taken, so that no copy of the parameters is needed.

Sums over the update are made of parameters, gradient and momentum before the step, by the optimiser's own arithmetic.
That it is so is seen, not believed. The first steps are compared with what was foreseen of them before any is relied
on, and each later one by what the next step finds: all bits of all parameters and of the momentum, as digests. What
does not go with that (another optimiser, somebody else's hooks, a gradient that is missing) is measured by a copy of
the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import optimizer as torch_optimizer

from nm_ode.errors import ArgumentError
from nm_ode.optimizers import SGD, Optimizer
from nm_ode.parameters import Layout, Parts
from nm_ode.passes import Found, Pass, Settings, Stepping, Wanted
from nm_ode.passes.compiled import WORTH_IT
from nm_ode.passes.stepping import THETA, VELOCITY

_COMPARED = 2  # steps, before one is relied on
_BUFFER = "momentum_buffer"


class ForeseenUpdate(Parts):
    """An update of which sums are known and nothing else, for nobody keeps theta before the step.

    Args:
        like: a vector of its device and dtype.
    """

    def __init__(self, like: Parts) -> None:
        self._like = like._like

    @property
    def _tensors(self) -> dict[str, Tensor]:  # type: ignore[override]
        raise RuntimeError("an observer that says that it sums the update has read it")


class SGDForesight:
    """How torch's own SGD will move the parameters.

    Args:
        optimizer: the user's own.
        known: the same as one of nm_ode's, if it is one.
        layout: of theta.
        parameters: one for each slot of the layout.
        vectors: gives theta, and with momentum the velocity, as they are.
        note: told in one sentence when something else has moved the parameters.

    Attributes:
        momentum: has the optimiser any?
        foreseen: is the step under way known ahead?
        compared: is it compared with what was foreseen, and a copy of theta needed for that?
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        known: Optimizer | None,
        layout: Layout,
        parameters: Sequence[nn.Parameter],
        vectors: Callable[[], Mapping[str, Parts]],
        note: Callable[[str], None],
    ) -> None:
        self._optimizer, self._parameters, self._vectors, self._note = optimizer, parameters, vectors, note
        self._names = layout.names
        self.momentum = isinstance(known, SGD) and bool(known.momentum)
        self._nesterov = isinstance(known, SGD) and bool(known.nesterov)
        self._possible = (
            type(optimizer) is torch.optim.SGD and isinstance(known, SGD) and layout.size >= WORTH_IT
        )
        self._ahead = {"theta": THETA} | ({"velocity": VELOCITY} if self.momentum else {})
        self._look = Pass(layout, Wanted(digests=frozenset(self._ahead)), compiled=True)
        self.foreseen = self.compared = False
        self._good = self._steps = 0
        self._stepping: Stepping | None = None
        self._given: dict[tuple[str, str], int] = {}
        self._before: list[int] = []
        self._bumps: list[int] = []
        self._left: dict[str, list[tuple[int, int]]] = {}

    def before_step(self, gradients: Sequence[Tensor | None] | None) -> None:
        """A step is about to be taken.

        Args:
            gradients: that it will take; None where they are not the parameters' own.
        """
        self.foreseen = self.compared = False
        self._stepping = None
        if self._possible and gradients is not None:
            self._stepping = self._settings(gradients)
            self._before = [parameter._version for parameter in self._parameters]
        if self._stepping is None:
            self.settle()

    def stepping(self, view: Any) -> Stepping | None:
        """See `Foresight`."""
        return self._stepping if self._possible else None

    def takes(self, found: Found) -> bool:
        """See `Foresight`."""
        if self._is_refuted(found):
            self._possible, self._given = False, {}
            return False
        self._given = {
            (name, what): found.digests[name, ahead]
            for what, ahead in self._ahead.items()
            for name in self._names
        }
        self.foreseen, self.compared = True, self._good < _COMPARED
        return True

    def decline(self) -> None:
        """See `Foresight`."""
        self._stepping = None
        self.settle()

    def after_step(self) -> bool:
        """The step has been taken. Was it what was foreseen of it, as far as is known by now?

        Raises:
            ArgumentError: something wrote to a parameter within the step, and no copy of theta is there.
        """
        self._steps += 1
        if not self.foreseen:
            return False
        bumps = [p._version - before for p, before in zip(self._parameters, self._before, strict=True)]
        self._left = self._marks()
        if self.compared:
            if self._found_now() != self._given or (self._good and bumps != self._bumps):
                self._possible, self._given = False, {}
                return False
            self._good, self._bumps = self._good + 1, bumps
        elif bumps != self._bumps:
            raise ArgumentError(
                f"something beside the optimiser has written to the parameters within step {self._steps - 1}, and in "
                "no step before: let it do so from the first step on, or between the steps"
            )
        return True

    def settle(self) -> None:
        """See whether the last step was as foreseen, if no pass of the next one does."""
        if self._given and self._is_refuted(Found({}, {}, self._found_now())):
            self._possible = False
        self.forget()

    def forget(self) -> None:
        """Nothing is known of the last step."""
        self._given = {}

    def _is_refuted(self, found: Found) -> bool:
        """Are the vectors not what the step before was to make of them?"""
        if not self._given:
            return False
        now = self._marks()
        if now["theta"] != self._left["theta"]:  # in sight of all: whoever asks is told
            return True
        seen = [name for name in self._ahead if now[name] == self._left[name]]
        if all(found.digests[name, what] == self._given[name, what] for what in seen for name in self._names):
            return False
        if all(bool(parameter.isfinite().all()) for parameter in self._parameters):
            self._note(
                f"a parameter or the momentum was written to in step {self._steps - 1} or after it, beside the "
                "optimiser and past torch's count of writes"
            )
        return True

    def _found_now(self) -> dict[tuple[str, str], int]:
        return dict(self._look(self._vectors()).digests)

    def _marks(self) -> dict[str, list[tuple[int, int]]]:
        """By which it is seen that a tensor was replaced or written to."""
        marks = {"theta": [(one.data_ptr(), one._version) for one in self._parameters]}
        if self.momentum:
            buffers = [self._optimizer.state[one].get(_BUFFER) for one in self._parameters]
            marks["velocity"] = [
                (-1, -1) if one is None else (one.data_ptr(), one._version) for one in buffers
            ]
        return marks

    def _settings(self, gradients: Sequence[Tensor | None]) -> Stepping | None:
        """By parameter; None where the step is not such as can be foreseen."""
        if not _alone(self._optimizer):
            return None
        groups = {id(p): group for group in self._optimizer.param_groups for p in group["params"]}
        settings = {id(group): _settings_of(group) for group in self._optimizer.param_groups}
        dtype = self._parameters[0].dtype
        found: dict[str, Settings] = {}
        for name, parameter, gradient in zip(self._names, self._parameters, gradients, strict=True):
            group = groups.get(id(parameter))
            mine = None if group is None else settings[id(group)]
            if mine is None or bool(mine.momentum) != self.momentum or mine.nesterov != self._nesterov:
                return None
            tensors = [parameter, gradient]
            if self.momentum:
                tensors.append(self._optimizer.state[parameter].get(_BUFFER))
            if not all(_is_plain(one, dtype) for one in tensors):
                return None
            found[name] = mine
        return found


def _is_plain(tensor: Tensor | None, dtype: torch.dtype) -> bool:
    return (
        tensor is not None
        and type(tensor) in (Tensor, nn.Parameter)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and tensor.dtype == dtype
        and dtype in (torch.float32, torch.float64)
        and tensor.is_contiguous()
    )


def _alone(optimizer: torch.optim.Optimizer) -> bool:
    """Does nobody else have hooks on its steps, or part in them?"""
    ours = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
    everybodys = (torch_optimizer._global_optimizer_pre_hooks, torch_optimizer._global_optimizer_post_hooks)
    return (
        all(len(hooks) == 1 for hooks in ours)
        and not any(everybodys)
        and getattr(optimizer, "grad_scale", None) is None
    )


def _settings_of(group: Mapping[str, Any]) -> Settings | None:
    """Of a parameter group; None where torch takes another way, with roundings of its own."""
    numbers = [group[name] for name in ("lr", "momentum", "dampening", "weight_decay")]
    ways = ("maximize", "foreach", "fused", "differentiable")
    if any(group.get(way) for way in ways) or any(isinstance(one, Tensor) for one in numbers):
        return None
    lr, momentum, dampening, decay = map(float, numbers)
    return Settings(lr, momentum, dampening, decay, bool(group["nesterov"]))
