"""A run at the edge of stability that is known in closed form, and what a central flow records beside it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import xarray as xr
from torch import nn

import nm_ode
from nm_ode.results import SolveInfo, annotate, layout_of, solve_info, write
from nm_ode.results.schema import Variable

LR = 0.5
SHARPEST, FLATTEST = 2 / LR, 0.4  # eigenvalues of the quadratic's Hessian
START = (0.3, 1.0)


def quadratic() -> nm_ode.Problem:
    """L = ½(4x² + 0.4y²), so that descent at lr = ½ alternates in x for ever, and decays in y."""
    x = torch.diag(torch.tensor([SHARPEST, FLATTEST], dtype=torch.float64).sqrt())
    y = torch.zeros(2, 1, dtype=torch.float64)
    return nm_ode.Problem(nn.Linear(2, 1, bias=False), nn.functional.mse_loss, (x, y))


def edge_run(steps: int = 40, **options: object) -> xr.Dataset:
    """Descent from START: x_k = (−1)^k x_0, y_k = 0.8^k y_0."""
    theta0 = torch.tensor(START, dtype=torch.float64)
    return nm_ode.train(quadratic(), nm_ode.SGD(lr=LR), steps, theta0=theta0, **options)


def gradient_beside(run: xr.Dataset) -> xr.Dataset:
    """Gradient flow from the run's start, in closed form, as `solve` gives it."""
    time = run["saved_time"].values
    theta = np.exp(-np.outer(time, [SHARPEST, FLATTEST])) * START
    loss, grad_norm = _of_path(theta)
    made = xr.Dataset(
        {"theta": (("time", "param"), theta), "loss": ("time", loss), "grad_norm": ("time", grad_norm)},
        coords={"time": time},
    )
    info = SolveInfo(
        flow="gradient",
        title="gradient flow",
        expected_order=1,
        engine="by hand",
        engine_version="",
        method="closed form",
        choice="",
        rtol=1e-12,
        atol=1e-15,
        layout=layout_of(run),
        dtype="float64",
    )
    return annotate(write(made, info))


def central_beside(
    run: xr.Dataset, path: np.ndarray, amplitude: np.ndarray, vectors: bool = True
) -> xr.Dataset:
    """What a central flow records whose path is given, and that predicts this amplitude in x.

    Args:
        path: shape (saved steps, 2); at the start it is the run's own theta whatever is given.
        amplitude: shape (saved steps,): the square root of tr Σ.
    """
    path = path.copy()
    path[0] = run["theta"].values[0] if "theta" in run else START
    variance, beyond = amplitude**2, np.full(len(amplitude), np.nan)
    loss, grad_norm = _of_path(path)
    norms = np.sqrt(grad_norm**2 + 4 / LR**2 * variance)
    base = gradient_beside(run)
    info = solve_info(base)
    made = base.drop_vars(["loss", "grad_norm"]).assign(
        theta=(("time", "param"), path),
        loss=("time", loss),
        grad_norm=("time", grad_norm),
        oscillation_trace=("time", variance),
        critical_eigenvalue=(("time", "critical"), np.stack([np.full(len(path), SHARPEST), beyond], axis=1)),
        predicted_loss=("time", loss + variance / LR),
        predicted_grad_norm=("time", norms),
    )
    if vectors:
        along = np.stack([amplitude, np.zeros(len(path))], axis=1)
        made["oscillation_vector"] = (
            ("time", "critical", "param"),
            np.stack([along, np.full((len(path), 2), np.nan)], axis=1),
        )
    made = write(made, type(info)(**{**vars(info), "flow": "central", "title": "central flow", "lr": LR}))
    names = set(map(str, made.variables)) - set(map(str, base.variables))
    return annotate(made, {name: Variable((), name) for name in names})


def decay(steps: int) -> np.ndarray:
    """The run's slow path, shape (steps + 1, 2): y_k = 0.8^k y_0, and x = 0."""
    y = START[1] * (1 - LR * FLATTEST) ** np.arange(steps + 1)
    return np.stack([np.zeros(steps + 1), y], axis=1)


def swinging(run: xr.Dataset, amplitude: Callable[[np.ndarray], np.ndarray]) -> xr.Dataset:
    """The run with an oscillation of this size, which may change along it, in the place of its own."""
    k = run["saved_step"].values
    theta = decay(len(k) - 1)
    theta[:, 0] = (-1.0) ** k * amplitude(k)
    loss, grad_norm = _of_path(theta)
    return run.assign(
        theta=(run["theta"].dims, theta),
        full_loss=("saved_step", loss),
        loss=("step", loss[:-1]),
        grad_norm=("step", grad_norm[:-1]),
    )


def _of_path(path: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Loss and gradient norm."""
    hessian = np.array([SHARPEST, FLATTEST])
    return 0.5 * path**2 @ hessian, np.sqrt(path**2 @ hessian**2)
