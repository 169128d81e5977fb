"""One `Problem.grad` beside a plain forward and backward pass of the same torch model, at P of about 1e5.

`Problem.grad(theta)` takes any theta and gives one flat gradient; the plain pass has its parameters where they are
and leaves its gradients in as many tensors. `into_out`: with `out=` given, as training does; `fresh`: without.
Both in float64, on the same data, in turns.

`sample_grads` and `ensemble`: the gradients of all samples, and of members on batches of their own, beside the same
one at a time.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
from measuring import keep_pages, paired_ratio, report
from torch import nn
from torch.nn import functional as F

from nm_ode import Problem
from nm_ode.data import DataSet, digits
from nm_ode.models import mlp


def convolutional() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, 64, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(64, 96, 3, padding=1),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(96 * 16, 32),
            nn.Tanh(),
            nn.Linear(32, 10),
        ).double()


MODELS = {
    "mlp 64-1340-10": (lambda: mlp([64, 1340, 10], "tanh"), (128, 512, 1797)),
    "mlp 64-210-210-210-10": (lambda: mlp([64, 210, 210, 210, 10], "tanh"), (128, 512, 1797)),
    "convolutional": (convolutional, (128,)),
}


BUILDS, PAIRS = 9, 41
MEMBERS, BATCH = 20, 8


def compare(build: Callable[[], nn.Module], data: DataSet) -> dict[str, dict[str, float]]:
    """Ratios of one build of model and problem."""
    model = build()
    problem = Problem(model, F.cross_entropy, (data.x, data.y))
    theta, out = problem.theta0, torch.empty_like(problem.theta0)

    def plain() -> None:
        model.zero_grad(set_to_none=True)
        F.cross_entropy(model(data.x), data.y).backward()

    return {
        "into_out": paired_ratio(lambda: problem.loss_and_grad(theta, out=out), plain, PAIRS),
        "fresh": paired_ratio(lambda: problem.loss_and_grad(theta), plain, PAIRS),
    }


def at_once(build: Callable[[], nn.Module], data: DataSet) -> dict[str, dict[str, float]]:
    """Ratios of many gradients at once to one at a time."""
    problem = Problem(build(), F.cross_entropy, (data.x, data.y))
    theta, each = problem.theta0, torch.arange(problem.n_samples)[:, None]
    thetas = theta.repeat(MEMBERS, 1)
    batches = torch.randint(problem.n_samples, (MEMBERS, BATCH), generator=torch.Generator().manual_seed(0))

    def one_at_a_time(thetas: Sequence[torch.Tensor], batches: torch.Tensor) -> torch.Tensor:
        pairs = zip(thetas, batches, strict=True)
        return torch.stack([problem.grad(theta, batch) for theta, batch in pairs])

    return {
        "sample_grads": paired_ratio(
            lambda: problem.sample_grads(theta), lambda: one_at_a_time([theta] * len(each), each), 5
        ),
        "ensemble": paired_ratio(
            lambda: problem.ensemble_loss_and_grad(thetas, batches),
            lambda: one_at_a_time(thetas, batches),
            PAIRS,
        ),
    }


def main() -> None:
    found = []
    for name, (build, sizes) in MODELS.items():
        for samples in sizes:
            data = digits(samples)
            # Where a build's tensors happen to lie in memory moves its ratio by some percent and stays for its
            # lifetime: so build anew, and take the median over builds.
            builds = [compare(build, data) for _ in range(BUILDS)]
            row: dict[str, object] = {
                "model": name,
                "parameters": sum(p.numel() for p in build().parameters()),
                "samples": samples,
                "ms_plain": statistics.median(b["into_out"]["ms_other"] for b in builds),
            }
            for kind in ("into_out", "fresh"):
                ratios = sorted(b[kind]["ratio_median"] for b in builds)
                row[kind] = {
                    "ratio_median": statistics.median(ratios),
                    "ratio_range": [ratios[0], ratios[-1]],
                }
            found.append(row)
    many = {
        name: at_once(build, digits(sizes[0]))
        for name, (build, sizes) in {
            **MODELS,
            "mlp 64-32-10": (lambda: mlp([64, 32, 10], "tanh"), (128,)),
        }.items()
    }
    report(
        "gradient_cost",
        "Problem.loss_and_grad with loss.backward() of the plain model, and many gradients at once with one by one",
        {"results": found, "at_once": many},
    )


if __name__ == "__main__":
    keep_pages()
    main()
