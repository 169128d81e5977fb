"""Symmetries of networks of real size: how long finding and verifying takes, and what recording the charges costs.

`discovery`: `find_symmetries` on whole VGG-16 (with and without BatchNorm) and ResNet-18 at their own widths, with
the verification, at a reduced input size; seconds, and the share of tracing and of the rules.

`large`: `find_symmetries` on GPT-2 small (124 million parameters) with an example of 1024 tokens, in a process of its
own: seconds, and the most memory that the process took, with torch and the model, beside the model's own.

`python benchmarks/symmetry.py large` runs that part alone.

`recording`: all charges of each step of VGG-11 on 32×32 images, batch 64, float32, as `train` records them, beside
the training step without it (forward, backward, torch.optim.SGD with momentum and weight decay), in turns: as it is
used on such images, with one Linear after the convolutions, and with the paper's two layers of 4096 between, which
add two thirds of the parameters and little arithmetic at this batch size. Recording reads every parameter, its
gradient and its update once, so its share is one of memory's bandwidth.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

import torch
from gpt2 import GPT2, next_word
from measuring import keep_pages, paired_ratio, report
from torch import nn
from torch.nn import functional as F

from nm_ode import SGD, Problem
from nm_ode.models import resnet18, vgg
from nm_ode.observers import Charges, Context, View
from nm_ode.symmetries import KINDS, find_symmetries
from nm_ode.symmetries.graph import trace
from nm_ode.symmetries.proofs import discover

NETWORKS = {
    "VGG-16, 32×32, 200 classes": (lambda: vgg(16, image=32), 32),
    "VGG-16 with BatchNorm, 32×32, 200 classes": (lambda: vgg(16, image=32, batch_norm=True), 32),
    "ResNet-18, 32×32, 200 classes": (resnet18, 32),
}
REPEATS, PROCESSES = 11, 7


def discovery() -> list[dict[str, object]]:
    find_symmetries(nn.Linear(2, 2), torch.randn(4, 2))  # torch.export's imports are not a network's cost
    return [_discovery(name, build(), side) for name, (build, side) in NETWORKS.items()]


def _discovery(name: str, model: nn.Module, side: int) -> dict[str, object]:
    x, y = torch.randn(4, 3, side, side, dtype=torch.float64), torch.randint(200, (4,))
    start = time.perf_counter()
    symmetries = find_symmetries(model, x)
    found = time.perf_counter()
    graph = trace(model, lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]), (x, y))
    traced = time.perf_counter()
    discover(graph)
    ruled = time.perf_counter()
    return {
        "network": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "symmetries": len(symmetries),
        "charges": symmetries.n_charges(),
        "defects": len(symmetries.defects),
        "worst_unexplained": max(c.unexplained for c in symmetries.checks.values()),
        "worst_hessian": max(
            (c.hessian for c in symmetries.checks.values() if c.hessian is not None), default=None
        ),
        "seconds": found - start,
        "seconds_tracing": traced - found,
        "seconds_rules": ruled - traced,
    }


def large() -> dict[str, object]:
    """With C's allocator as it comes, since memory is looked at: pages that are kept (`keep_pages`) count as taken."""
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        del os.environ[name]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.apply(_large)


def _large() -> dict[str, object]:
    find_symmetries(nn.Linear(2, 2), torch.randn(4, 2))
    before = _most_memory()
    model = GPT2()
    words = torch.randint(50257, (1, 1025))
    start, processor = time.perf_counter(), time.process_time()
    symmetries = find_symmetries(model, words[:, :-1], loss=next_word, target=words[:, 1:])
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    of_model = 4 * sum(p.numel() for p in model.parameters())
    return {
        "network": "GPT-2 small, 1024 tokens",
        "parameters": of_model // 4,
        "charges": {kind: symmetries.n_charges(kind) for kind in KINDS},
        "defects": len(symmetries.defects),
        "left_out": len(symmetries.left_out),
        "notes": symmetries.notes,
        "worst_unexplained": max(c.unexplained for c in symmetries.checks.values()),
        "seconds": seconds,
        "processor_seconds": processor,
        "bytes_of_model": of_model,
        "bytes_before": before,
        "bytes_at_most": _most_memory(),
        "share_of_model": _most_memory() / of_model,
    }


def _most_memory() -> int:
    """Of this process so far."""
    with open("/proc/self/status", encoding="utf-8") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def recording(hidden: tuple[int, ...]) -> dict[str, object]:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, 32, 32, generator=random)
    y = torch.randint(200, (64,), generator=random)
    problem = Problem(vgg(11, image=32, hidden=hidden), F.cross_entropy, (x, y), dtype=torch.float32)
    found = find_symmetries(problem.model, x[:4])
    sgd = SGD(lr=1e-4, momentum=0.9, weight_decay=1e-4)
    context = Context(problem, sgd, 1, (0, 1), problem.device)
    (observer,) = (one for one in Charges(found).begin(context) if one.update_variables)
    theta = problem.theta0.clone().requires_grad_()
    optimizer = sgd.torch_optimizer([theta])
    theta.grad = torch.empty_like(theta)

    def step() -> None:
        problem.loss_and_grad(theta.detach(), out=theta.grad)
        optimizer.step()

    before = theta.detach().clone()

    def record() -> None:
        # Of the step, `train` has its gradient and θ_{k+1} − θ_k already.
        view = View(
            problem, 0, 0.0, theta.detach(), lr=sgd.lr, loss_and_gradient=lambda: (before[0], theta.grad)
        )
        observer.observe(view)
        view.take_update(before)
        observer.observe_update(view)

    result = paired_ratio(record, step, REPEATS)
    return {
        "network": f"VGG-11, 32×32, hidden {hidden}",
        "parameters": problem.layout.size,
        "charges": found.n_charges(),
        "share_of_a_step": result["ratio_median"],
        "share_quartiles": result["ratio_quartiles"],
        "ms_recording": result["ms"],
        "ms_step": result["ms_other"],
    }


def recordings(hidden: tuple[int, ...]) -> dict[str, object]:
    """The median over fresh processes: on a shared machine where a process's two threads lie moves the share by two."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        found = sorted(pool.map(recording, [hidden] * PROCESSES, chunksize=1), key=_share)
    return found[PROCESSES // 2] | {"share_of_each_process": [_share(one) for one in found]}


def _share(one: dict[str, object]) -> float:
    share = one["share_of_a_step"]
    assert isinstance(share, float)
    return share


PARTS = {
    "recording": lambda: [recordings(()), recordings((4096, 4096))],
    "discovery": discovery,
    "large": large,
}


def _results(names: list[str]) -> dict[str, object]:
    """Of these parts anew, of the others as they were saved; of all where none is named."""
    saved = Path(__file__).parent / "results" / "symmetry.json"
    before = json.loads(saved.read_text()) if names and saved.exists() else {}
    made = {name: part() if name in names or not names else before.get(name) for name, part in PARTS.items()}
    return {name: result for name, result in made.items() if result is not None}


if __name__ == "__main__":
    keep_pages()
    report(
        "symmetry",
        "recording all charges with a training step; discovery in seconds",
        _results([argument for argument in sys.argv[1:] if not argument.startswith("-")]),
    )
