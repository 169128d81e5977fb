"""SGD on a made-up loss with a symmetry: gradients drawn at random with what the symmetry forbids taken out."""

from __future__ import annotations

import numpy as np

from nm_ode.charges import Driven

SIGNS = {"scale": np.ones(6), "rescale": np.array([1.0, 1, 1, 1, -1, -1]), "translation": np.ones(6)}
"""Kind → sign of each of six entries."""


def simulate(
    lrs: np.ndarray,
    *,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    translation: bool,
    signs: np.ndarray,
    seed: int = 0,
) -> tuple[Driven, np.ndarray]:
    """torch.optim.SGD written out on one parameter group; the record that the laws need, and the true charges.

    Args:
        signs: +1 for entries on the plus side, −1 on the minus side (all +1: a scale, or a translation).
    """
    random = np.random.default_rng(seed)
    theta, velocity = random.standard_normal(signs.size), None
    charges, drivers, crosses = [], [], []

    def charge() -> float:
        return float(theta.sum() if translation else (signs * theta) @ theta)

    for lr in lrs:
        charges.append(charge())
        generator = np.ones_like(theta) if translation else signs * theta
        gradient = random.standard_normal(signs.size)
        gradient -= generator * (gradient @ generator) / (generator @ generator)
        direction = gradient + weight_decay * theta
        if momentum and velocity is not None:
            velocity = momentum * velocity + (1 - dampening) * direction
        else:
            velocity = direction
        taken = direction + momentum * velocity if nesterov else velocity
        drivers.append((signs * taken) @ taken)
        crosses.append((signs * taken) @ velocity)
        theta = theta - lr * taken
    charges.append(charge())
    run = Driven(
        lr=lrs,
        times=np.append(0.0, np.cumsum(lrs)) * (1 - dampening if momentum else 1.0),
        optimizer="SGD",
        hyperparameters={
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        },
        start=np.array(charges[:1]),
        translation=np.array([translation]),
        driver=np.array(drivers)[:, None],
        cross=np.array(crosses)[:, None] if nesterov else None,
    )
    return run, np.array(charges)[:, None]
