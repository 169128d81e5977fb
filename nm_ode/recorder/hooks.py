"""One step of a torch optimiser, as it is seen from its hooks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nm_ode.errors import ArgumentError
from nm_ode.modes import own_modes
from nm_ode.observers import OPEN_END
from nm_ode.optimizers import Optimizer
from nm_ode.parameters import Difference, Layout, Parts, Scaled
from nm_ode.passes import Passes, Wanted
from nm_ode.recorder.foreseen import ForeseenUpdate, SGDForesight
from nm_ode.recorder.velocity import VelocityRule

_OWN: set[int] = set()
"""Numbers of the hooks of all recorders, which change nothing."""


class StepListener(Protocol):
    """Who is told of the steps."""

    def before_step(self, gradients: Sequence[Tensor | None], of_closure: Any) -> None:
        """The gradient is there, and the parameters are as they were when it was taken.

        Args:
            gradients: one for each parameter, as the optimiser has them, but unscaled and dense; None for zeros.
            of_closure: what the closure returned that the step was given, at its first call.
        """
        ...

    def after_step(self, update: Parts) -> None:
        """The step has been taken."""
        ...

    def step_skipped(self) -> None:
        """The optimiser was called and takes no step, for the gradient is not finite."""
        ...

    def step_broken_off(self) -> None:
        """`before_step` was called, and the step ended in an exception."""
        ...


class StepHooks:
    """Hooks on an optimiser's `step`, with what they keep between its start and its end.

    Args:
        optimizer: the user's own.
        layout: of theta.
        parameters: one for each slot of the layout.
        listener: called with gradients on, autocast off.
        rule: what gives the update without a copy of the parameters; None: it is the difference to their copy.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        layout: Layout,
        parameters: list[nn.Parameter],
        listener: StepListener,
        rule: VelocityRule | None = None,
    ) -> None:
        self._optimizer, self._layout, self._parameters, self._listener = (
            optimizer,
            layout,
            parameters,
            listener,
        )
        # Half precision is followed in float32.
        self._like = max((p.detach() for p in parameters), key=lambda p: torch.finfo(p.dtype).bits)
        self._rule = rule
        self._foresight: SGDForesight | None = None
        self._passes: Passes | None = None
        self._before: Parts | None = None
        self._room: list[Tensor] = []
        self._theta: Parts | None = None
        self._told = self._is_kept = False
        self._depth = 0
        self._frame: FrameType | None = None
        # A compiled `optimizer.step` would trace the hooks, once for all steps.
        self._handles = [
            optimizer.register_step_pre_hook(torch.compiler.disable(self._enter)),
            optimizer.register_step_post_hook(torch.compiler.disable(self._leave)),
        ]
        _OWN.update(handle.id for handle in self._handles)

    def remove(self) -> None:
        """The optimiser is as it was."""
        for handle in self._handles:
            handle.remove()
        _OWN.difference_update(handle.id for handle in self._handles)
        self._before, self._room, self._frame = None, [], None

    @property
    def within_step(self) -> bool:
        """Is a step under way?"""
        return self._depth > 0

    @property
    def told(self) -> bool:
        """Has the gradient of the step under way been seen?"""
        return self._told

    def theta(self) -> Parts:
        """The parameters as they are: where they lie, or in float32 and contiguous."""
        known = self._theta
        if known is not None and all(
            parameter.data_ptr() == tensor.data_ptr()
            for parameter, tensor in zip(self._parameters, known.tensors, strict=True)
        ):
            return known
        self._theta = self.parts([parameter.detach() for parameter in self._parameters])
        return self._theta

    def parts(self, tensors: Sequence[Tensor | None]) -> Parts:
        """One tensor for each slot as a vector."""
        return Parts(self._layout.slots, tensors, self._like)

    def zeros(self) -> Parts:
        """A vector of zeros."""
        return self.parts([None] * len(self._parameters))

    def state(self, name: str) -> Parts:
        """A part of the optimiser's state, by torch's name; zeros where there is none yet.

        Raises:
            KeyError: no parameter has it.
        """
        states = [self._optimizer.state.get(parameter, {}).get(name) for parameter in self._parameters]
        if all(state is None for state in states):
            raise KeyError(name)
        return self.parts(states)

    def counts(self, name: str) -> list[float]:
        """A number in the optimiser's state of each parameter, such as its steps; 0 where there is none yet."""
        return [float(self._optimizer.state.get(p, {}).get(name, 0.0)) for p in self._parameters]

    def _enter(self, optimizer: Any, args: Any, kwargs: Any) -> tuple[Any, dict[str, Any]] | None:
        if self._depth:
            if self._frame is None or _is_running(self._frame):
                self._depth += 1  # a subclass calls its base class's `step`, which has the hooks too
                return None
            self._broken_off()
        self._require_eager()
        self._require_last(optimizer)
        self._depth, self._told, self._frame = 1, False, _frame_of_step()
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._tell(None, copy=_writes_to_gradients(optimizer))
            return None
        if self._rule is None or self._rule.is_checked:
            self._keep_theta()
        wrapped = self._wrapped(closure)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": wrapped}
        return (args[0], wrapped, *args[2:]), kwargs

    def _wrapped(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """A closure that tells of the gradient at its first call: before it there is none."""
        versions = [parameter._version for parameter in self._parameters]

        def called() -> Any:
            try:
                value = closure()
            except BaseException:
                self._broken_off()
                raise
            if not self._told:
                if [parameter._version for parameter in self._parameters] != versions:
                    raise ArgumentError(
                        f"{type(self._optimizer).__name__} moves the parameters before it calls the closure: a "
                        "Recorder cannot follow a step whose gradient is not that at theta"
                    )
                self._tell(value, copy=True)  # later calls write to the gradients
            return value

        return called

    def _tell(self, of_closure: Any, copy: bool) -> None:
        if self._is_skipped():
            self._listener.step_skipped()
            return
        with torch.no_grad(), own_modes():
            scale = getattr(self._optimizer, "grad_scale", None)
            gradients = [_dense(parameter.grad) for parameter in self._parameters]
            if scale is not None:  # a GradScaler left the unscaling to the optimiser
                gradients = [None if g is None else g / scale for g in gradients]
            elif copy:
                gradients = [None if g is None else g.clone() for g in gradients]
            self._told, self._is_kept = True, False
            if self._foresight is not None:
                self._foresight.before_step(gradients if scale is None else None)
            self._listener.before_step(gradients, of_closure)
            if self._rule is not None:
                self._rule.before_step(gradients)
            if not self._is_kept and self._needs_theta:
                self._keep_theta()

    @property
    def _needs_theta(self) -> bool:
        """Is a copy of theta needed during the step?"""
        if self._rule is not None:
            return self._rule.is_checked
        return self._foresight is None or not self._foresight.foreseen or self._foresight.compared

    def _require_eager(self) -> None:
        if self._like.is_cuda and torch.cuda.is_current_stream_capturing():
            raise ArgumentError(
                "the optimiser's step is being captured in a CUDA graph, whose replays call no hook: record a loop "
                "that captures forward and backward passes alone"
            )

    def _require_last(self, optimizer: Any) -> None:
        """What is called after this hook and before the step may change the gradient, or the parameters."""
        for number in reversed(optimizer._optimizer_step_pre_hooks):
            if number == self._handles[0].id:
                return
            if number not in _OWN:
                raise ArgumentError(
                    "a hook was registered on the optimiser's step after the recording had begun, and may change the "
                    "gradient that the step takes: register it before the Recorder begins"
                )

    def _is_skipped(self) -> bool:
        """An optimiser that unscales by itself is called for a step that it leaves out: the one wait for a device."""
        found_inf = getattr(self._optimizer, "found_inf", None)
        return found_inf is not None and bool(found_inf)

    def room_for_theta(self) -> Parts:
        """Where theta is kept during the step; who asks for it in `before_step` writes it there."""
        self._is_kept = True
        if self._before is None:
            self._before = self.parts([torch.empty_like(one) for one in self.theta().tensors])
        return self._before

    def keep_theta_in(self, passes: Passes) -> None:
        """The pass that makes sums over theta keeps it for the update as well."""
        passes.know("kept_theta", lambda view: self.room_for_theta())
        copied = Wanted(copies=frozenset({("theta", "kept_theta")}))
        passes.ask(copied, range(OPEN_END), when=self._is_measured)

    def _is_measured(self, view: Any) -> bool:
        """Is the update of this step the difference to a copy of theta, as far as is known?"""
        return self._foresight is None or self._foresight.stepping(view) is None

    def foresee_in(self, passes: Passes, known: Optimizer | None, note: Callable[[str], None]) -> None:
        """The pass before a step makes sums over its update as well, where it is known how it will be.

        Args:
            known: the optimiser as one of nm_ode's, if it is one.
            note: see `SGDForesight`.
        """

        def vectors() -> dict[str, Parts]:
            velocity = {"velocity": self.state("momentum_buffer")} if foresight.momentum else {}
            return {"theta": self.theta(), **velocity}

        self._passes = passes
        self._foresight = foresight = SGDForesight(
            self._optimizer, known, self._layout, self._parameters, vectors, note
        )
        passes.foresee(foresight)

    def settle(self) -> None:
        """No step will follow the last one: was it as it was seen?"""
        if self._foresight is not None and not self.within_step:
            self._foresight.settle()

    def _keep_theta(self) -> None:
        torch._foreach_copy_(self.room_for_theta().tensors, self.theta().tensors)

    def _leave(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if not self._depth:
            return
        self._depth -= 1
        if self._depth:
            return
        self._frame = None
        if not self._told:
            if self._is_skipped():
                return
            raise ArgumentError(
                f"{type(self._optimizer).__name__} took a step without calling the closure that it was given, so its "
                "gradient is not known: call step() without one"
            )
        self._told = False
        with torch.no_grad(), own_modes():
            if self._rule is not None:
                self._listener.after_step(self._by_rule(self._rule))
            elif self._is_as_foreseen():
                self._before = None
                self._listener.after_step(ForeseenUpdate(self.theta()))
            else:
                assert self._before is not None
                self._listener.after_step(
                    Difference(self._layout.slots, self.theta(), self._before, self._room)
                )

    def _is_as_foreseen(self) -> bool:
        """Is the step what its sums were made of before it, without a copy to see it by?"""
        if self._foresight is None:
            return False
        as_foreseen = self._foresight.after_step()
        if self._foresight.foreseen and not as_foreseen and self._passes is not None:
            self._passes.retract()  # they are made anew, of the copy
        return as_foreseen and not self._foresight.compared

    def _by_rule(self, rule: VelocityRule) -> Scaled:
        checked = rule.is_checked
        try:
            velocity = self.state("momentum_buffer")
        except KeyError:  # no gradient yet
            velocity = self.zeros()
        update = rule.update(velocity)
        if checked:
            assert self._before is not None
            rule.check(update, self.theta(), self._before)
        if not rule.is_checked:
            self._before = None
        return update

    def _broken_off(self) -> None:
        told, self._depth, self._told, self._frame = self._told, 0, False, None
        if told:
            if self._foresight is not None:
                self._foresight.forget()
            self._listener.step_broken_off()


def _dense(gradient: Tensor | None) -> Tensor | None:
    return gradient.to_dense() if gradient is not None and gradient.layout != torch.strided else gradient


def _writes_to_gradients(optimizer: torch.optim.Optimizer) -> bool:
    """Are gradients after a step not what they were before it?

    Of torch's own optimisers (2.6 to 2.13) that is so for Nesterov's momentum over lists of tensors alone; of a user's
    nobody knows.
    """
    if not type(optimizer).__module__.startswith("torch.optim"):
        return True
    return any(
        group.get("nesterov") and group.get("foreach") is not False for group in optimizer.param_groups
    )


def _frame_of_step() -> FrameType | None:
    """The frame in which torch calls the hooks of a step; it is there as long as the step is under way."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != "torch.optim.optimizer":
        frame = frame.f_back
    return frame


def _is_running(wanted: FrameType) -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame is not wanted:
        frame = frame.f_back
    return frame is not None
