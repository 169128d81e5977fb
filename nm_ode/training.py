"""The discrete run: torch.optim takes the steps, and what they did is recorded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from nm_ode.data import BatchSize, sample_batches
from nm_ode.errors import ArgumentError, NmOdeError
from nm_ode.loss import Problem
from nm_ode.observers import ChargeRecord
from nm_ode.optimizers import Optimizer, describe
from nm_ode.optimizers.schedules import Constant, Schedule
from nm_ode.results.schema import annotate, layout_attrs
from nm_ode.symmetries import ChargeMeter, Symmetry


class TrainingDiverged(NmOdeError, RuntimeError):  # noqa: N818 (what happened, not what is broken)
    """The loss is no longer finite.

    Attributes:
        step: the step whose loss is not finite.
        run: the run up to there, as `train` would have returned it.
    """

    def __init__(self, message: str, step: int, run: xr.Dataset) -> None:
        super().__init__(message)
        self.step = step
        self.run = run


class Watch(Protocol):
    """Something that looks at the optimiser's state during a run."""

    @property
    def steps(self) -> Collection[int]:
        """Before which steps; `steps` of `train` means after the last."""
        ...

    def __call__(self, step: int, state: Tensor) -> None:
        """Look; `state` is the whole state (`optimizer.state_layout`) and the watcher's own."""
        ...


def train(
    problem: Problem,
    optimizer: Optimizer,
    steps: int,
    *,
    batch_size: BatchSize = "full",
    seed: int = 0,
    save_every: int = 1,
    theta0: Tensor | None = None,
    state0: Tensor | None = None,
    schedule: Schedule | None = None,
    symmetries: Sequence[Symmetry] = (),
    watches: Sequence[Watch] = (),
    on_step: Callable[[int], None] | None = None,
) -> xr.Dataset:
    """Train from theta0 and record each step; DESIGN.md's `/discrete` group.

    Args:
        steps: number of updates, at least 1.
        batch_size: "full", or the number of samples in a minibatch (the last of an epoch may be smaller).
        seed: of the order of the samples; the same seed gives the same bits on one machine.
        save_every: theta is kept at steps 0, save_every, 2·save_every, … and at the last.
        theta0: where to start, the optimiser at rest; the problem's own start if None.
        state0: the whole state to start from instead, as `final_state` of an earlier run gives it: a warm start.
        schedule: of the learning rate; constant if None.
        symmetries: of which to record the charges, as `find_symmetries` or `symmetries_of` gives them.
        watches: each looks at the whole state at the steps that it names.
        on_step: called with the number of steps done, for a progress bar.

    Returns:
        Dimensions `step` (0 … steps−1: the state before an update and what the update did),
        `saved_step`, `layer`, `param`. Variables: `loss`, `grad_norm`, `update_norm` and
        `layer_grad_norm`, `layer_update_norm` on the step's batch; `lr`; `theta` and `full_loss` (all samples)
        at saved steps; `initial_state` and `final_state` (dimension `state_index`) where the optimiser remembers
        more than theta. Coordinates `time`, `saved_time`: flow time. With symmetries also dimension `charge_index`:
        `charge` before the update, `charge_driver` [w, w] of the update −lr·w, with Nesterov
        `charge_cross_driver` [w, v], `constraint_residual` ⟨g, ξ⟩ and `generator_norm` ‖ξ‖ at each step, and
        `saved_charge` at saved steps.

    Raises:
        TrainingDiverged: the loss is not finite; what was recorded is its attribute `run`.
        ValueError: steps, batch_size or save_every out of range, or a state of another optimiser.
    """
    if steps < 1:
        raise ArgumentError(f"steps must be at least 1; {steps} was given")
    if save_every < 1:
        raise ArgumentError(f"save_every must be at least 1; {save_every} was given")
    if batch_size != "full" and not 1 <= batch_size <= problem.n_samples:
        raise ArgumentError(
            f"batch_size must be 'full' or from 1 to {problem.n_samples}, the number of samples; "
            f"{batch_size} was given"
        )
    layout = optimizer.state_layout(problem.layout.size)
    if state0 is not None:
        if theta0 is not None:
            raise ArgumentError("theta0 and state0 were given; state0 has the theta to start from")
        theta0 = layout.split(state0)[0]

    def placed(part: Tensor) -> Tensor:
        return part.detach().to(device=problem.device, dtype=problem.dtype)

    theta = placed(problem.theta0 if theta0 is None else theta0).clone().requires_grad_()
    torch_optimizer = optimizer.torch_optimizer([theta])
    if state0 is not None:
        optimizer.to_torch(torch_optimizer, theta, placed(state0))
    theta.grad = gradient = torch.empty_like(theta)
    lrs = optimizer.lr * (schedule or Constant()).factors(steps)
    meter = ChargeMeter(problem.layout, symmetries, problem.device) if symmetries else None
    charges = (
        None
        if meter is None
        else ChargeRecord(meter, steps, theta.detach(), nesterov=getattr(optimizer, "nesterov", False))
    )
    record = _Record(problem, lrs, charges, saves=-(-steps // save_every) + 1)
    batches = sample_batches(problem.n_samples, batch_size, seed)

    def finish() -> xr.Dataset:
        return record.dataset(optimizer, batch_size=batch_size, seed=seed, warm=state0 is not None)

    def look(step: int) -> None:
        looking = [watch for watch in watches if step in watch.steps]
        state = state_now(step) if looking else None
        for watch in looking:
            assert state is not None
            watch(step, state)

    def state_now(step: int) -> Tensor:
        if step == 0 and state0 is None:
            return optimizer.init(theta.detach(), gradient).clone()
        return optimizer.from_torch(torch_optimizer, theta)

    def require_finite(loss: float, step: int) -> None:
        if not np.isfinite(loss):
            raise TrainingDiverged(
                f"training diverged: the loss is {loss} at step {step} (lr = {optimizer.lr:g}); "
                "choose a smaller learning rate",
                step,
                finish(),
            )

    for step in range(steps):
        batch = next(batches)
        loss, _ = problem.loss_and_grad(theta.detach(), batch, out=gradient)
        require_finite(float(loss), step)
        if step % save_every == 0:
            # With the whole data as the batch, its loss is the full loss already.
            full_loss = float(loss if batch is None else problem.loss(theta.detach()))
            record.save(step, theta.detach(), full_loss)
        if step == 0 and optimizer.stateful:
            record.initial_state = state_now(0)
        look(step)
        before = theta.detach().clone()
        if charges is not None:
            charges.before(theta.detach(), gradient)
        torch_optimizer.param_groups[0]["lr"] = float(lrs[step])
        torch_optimizer.step()
        update = torch.sub(theta.detach(), before, out=before)
        if charges is not None:
            charges.after(update, float(lrs[step]), torch_optimizer.state[theta].get("momentum_buffer"))
        record.step(float(loss), gradient, update)
        if on_step is not None:
            on_step(step + 1)
    full_loss = float(problem.loss(theta.detach()))
    require_finite(full_loss, steps)
    record.save(steps, theta.detach(), full_loss)
    if optimizer.stateful:
        record.final_state = state_now(steps)
    look(steps)
    return finish()


def final_state(run: xr.Dataset) -> Tensor:
    """The optimiser's whole state at the end of a run, to be another's `state0`."""
    if "final_state" in run:
        return torch.from_numpy(run["final_state"].values.copy())
    return torch.from_numpy(run["theta"].values[-1].copy())


class _Record:
    """Grows with the run; becomes a dataset at its end, whether good or bad."""

    def __init__(
        self, problem: Problem, lrs: NDArray[np.float64], charges: ChargeRecord | None, saves: int
    ) -> None:
        self._problem, self._lrs, self._charges = problem, lrs, charges
        self._thetas = np.empty((saves, problem.layout.size), dtype=_numpy(problem.theta0[:0]).dtype)
        self.initial_state: Tensor | None = None
        self.final_state: Tensor | None = None
        self._loss: list[float] = []
        self._gradients: list[np.ndarray] = []
        self._updates: list[np.ndarray] = []
        self._saved_steps: list[int] = []
        self._full_loss: list[float] = []

    def step(self, loss: float, gradient: Tensor, update: Tensor) -> None:
        norms = self._problem.layout.layer_norms(torch.stack([gradient, update]))
        of_gradient, of_update = _numpy(norms)
        self._loss.append(loss)
        self._gradients.append(of_gradient)
        self._updates.append(of_update)

    def save(self, step: int, theta: Tensor, full_loss: float) -> None:
        self._thetas[len(self._saved_steps)] = _numpy(theta)
        self._saved_steps.append(step)
        self._full_loss.append(full_loss)
        if self._charges is not None:
            self._charges.save(theta)

    def dataset(self, optimizer: Optimizer, *, batch_size: BatchSize, seed: int, warm: bool) -> xr.Dataset:
        layout = self._problem.layout
        layers = list(layout.layers)
        gradients = np.array(self._gradients).reshape(-1, len(layers))
        updates = np.array(self._updates).reshape(-1, len(layers))
        steps = np.arange(len(self._loss))
        saved_steps = np.array(self._saved_steps, dtype=int)
        times: NDArray[np.floating] = np.append(0.0, np.cumsum(self._lrs)) * (
            optimizer.time_per_step / optimizer.lr
        )
        if (self._lrs == optimizer.lr).all():  # to the last digit the times that a user would write
            times = np.arange(len(self._lrs) + 1) * optimizer.time_per_step
        dataset = xr.Dataset(
            {
                "loss": ("step", np.array(self._loss)),
                "grad_norm": ("step", np.hypot.reduce(gradients, axis=1)),
                "lr": ("step", self._lrs[: len(steps)]),
                "update_norm": ("step", np.hypot.reduce(updates, axis=1)),
                "layer_grad_norm": (("step", "layer"), gradients),
                "layer_update_norm": (("step", "layer"), updates),
                "theta": (("saved_step", "param"), self._thetas[: len(saved_steps)]),
                "full_loss": ("saved_step", np.array(self._full_loss)),
            },
            coords={
                "step": steps,
                "time": ("step", times[steps]),
                "saved_step": saved_steps,
                "saved_time": ("saved_step", times[saved_steps]),
                "layer": np.array(
                    layers, dtype=object
                ),  # Zarr v3 has a type for strings, none for numpy's '<U'
            },
            attrs={
                "optimizer": type(optimizer).__name__,
                "optimizer_text": describe(optimizer),
                **{name: _attr(value) for name, value in vars(optimizer).items()},
                "time_per_step": optimizer.time_per_step,
                "warm_start": int(warm),
                "batch_size": batch_size,
                "seed": seed,
                **layout_attrs(layout),
            },
        )
        for name in ("initial_state", "final_state"):
            state = getattr(self, name)
            if state is not None:
                dataset[name] = ("state_index", _numpy(state))
        if self._charges is not None:
            dataset = dataset.merge(self._charges.dataset(), combine_attrs="no_conflicts")
        return annotate(dataset)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _attr(value: float | bool | tuple[float, ...]) -> float | int | list[float]:
    if isinstance(value, tuple):
        return list(value)
    return int(value) if isinstance(value, bool) else value
