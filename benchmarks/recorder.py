"""What recording costs a training loop of one's own: a step with the recorder and without, in turns, in one run.

    python benchmarks/recorder.py [--save] [network …]

`everything` at every step: norms, inner products and cosines of each layer, and the charges of all symmetries with
their drivers and constraints; then with less. `share_of_a_step` is the time by which `optimizer.step()`, in which the
recorder works, is longer, over a whole step without it (forward, backward, step): all loops in turns, the median of the
differences within a round. `ratio_of_steps` is that of whole steps, in which the noise of a shared machine lies too.

Beside it the way of the paper's own code (Kunin et al. 2021): two accumulators of the squared velocity for each
parameter, in the optimiser, and at each saved step a checkpoint of model and optimiser. Bytes are those of a checkpoint
over those of the recorder's numbers at one step, uncompressed; `vectors_held` is what each holds beside model and
optimiser, in vectors of P numbers, and `vectors_moved` how many of them it reads and writes at a step.
"""

from __future__ import annotations

import io
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from measuring import keep_pages, report
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode import Charges, Observer, Recorder, Statistics
from nm_ode.models import resnet18, vgg
from nm_ode.symmetries import find_symmetries

REPEATS = 9


def _clock() -> float:
    """Seconds; with one thread those that it computed, which other programs on the machine do not add to."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


@dataclass(frozen=True)
class Network:
    build: Callable[[], nn.Module]
    batch: int
    repeats: int = REPEATS


NETWORKS = {
    "resnet18": Network(lambda: resnet18(classes=10), 64, 5),
    "vgg11": Network(lambda: vgg(11, image=32, classes=10, hidden=()), 64),
    "vgg11_4096": Network(lambda: vgg(11, image=32, classes=10), 64),
    "vgg11_4096_batch128": Network(lambda: vgg(11, image=32, classes=10), 128, 5),
}


class Loop:
    """A training loop as a user has it; `step` gives the seconds of the step and of the optimiser in it."""

    def __init__(self, model: nn.Module, batch: int) -> None:
        draw = torch.Generator().manual_seed(0)
        self.model = model.float()
        self._x = torch.randn(batch, 3, 32, 32, generator=draw)
        self._y = torch.randint(10, (batch,), generator=draw)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
        self.tell: Callable[[Tensor], object] = lambda loss: None

    def step(self) -> tuple[float, float]:
        start = _clock()
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(self._x), self._y)
        loss.backward()
        self.tell(loss)
        at_step = _clock()
        self.optimizer.step()
        end = _clock()
        return end - start, end - at_step


def accumulate(optimizer: torch.optim.Optimizer) -> None:
    """Two accumulators for each parameter, as in the paper's optimiser: Σ factor(t) · v²."""

    def after(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                state = optimizer.state[parameter]
                square = state["momentum_buffer"] ** 2
                for i, factor in enumerate((1.1, 1.2)):
                    name = f"integral_{i}"
                    if name not in state:
                        state[name] = factor * square
                    else:
                        state[name].add_(factor * square)

    optimizer.register_step_post_hook(after)


def in_turns(loops: dict[str, Loop], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of the steps of each, one after the other, each time another first."""
    names = list(loops)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for loop in loops.values():  # warm: torch makes its momentum, the recorder its plans and comparisons
        for _ in range(5):
            loop.step()
    for i in range(repeats):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            seconds[name].append(loops[name].step())
    return seconds


def beside(these: list[tuple[float, float]], bare: list[tuple[float, float]]) -> dict[str, Any]:
    """How much longer steps are than the bare ones of the same rounds."""
    ratios = sorted(a[0] / b[0] for a, b in zip(these, bare, strict=True))
    more = sorted(a[1] - b[1] for a, b in zip(these, bare, strict=True))
    whole = statistics.median(b[0] for b in bare)
    return {
        "share_of_a_step": statistics.median(more) / whole,
        "share_quartiles": [one / whole for one in _quartiles(more)],
        "ms_more": 1e3 * statistics.median(more),
        "ratio_of_steps": statistics.median(ratios),
    }


def _quartiles(ordered: list[float]) -> list[float]:
    return [ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]]


def measured(name: str) -> dict[str, Any]:
    network = NETWORKS[name]
    found = find_symmetries(network.build().float(), torch.randn(4, 3, 32, 32))
    charges = Charges(found)
    variants: dict[str, tuple[list[Observer], bool]] = {
        "everything": ([Statistics(), charges], False),
        "everything, update by rule": ([Statistics(), charges], True),
        "everything without the gradient before": ([Statistics(keep_gradient=False), charges], False),
        "norms and charges": ([charges], False),
        "norms": ([], False),
    }
    with ExitStack() as stack:
        loops = {"bare": Loop(network.build(), network.batch)}
        recorders = {}
        for variant, (observers, by_rule) in variants.items():
            loops[variant] = Loop(network.build(), network.batch)
            recorders[variant] = stack.enter_context(
                Recorder(
                    loops[variant].model,
                    loops[variant].optimizer,
                    observe=observers,
                    update_by_rule=by_rule,
                )
            )
            loops[variant].tell = recorders[variant].loss
        loops["paper's accumulators"] = Loop(network.build(), network.batch)
        accumulate(loops["paper's accumulators"].optimizer)
        seconds = in_turns(loops, network.repeats)
    bare = seconds.pop("bare")
    run = recorders["everything"].run
    numbers = sum(one.nbytes // one.sizes["step"] for one in run.data_vars.values() if "step" in one.dims)
    papers = loops["paper's accumulators"]
    file = io.BytesIO()
    torch.save({"model": papers.model.state_dict(), "optimizer": papers.optimizer.state_dict()}, file)
    return {
        "network": name,
        "batch": network.batch,
        "parameters": sum(p.numel() for p in papers.model.parameters()),
        "charges": found.n_charges(),
        "ms_step": 1e3 * statistics.median(whole for whole, _ in bare),
        "beside_the_bare_loop": {variant: beside(these, bare) for variant, these in seconds.items()},
        "bytes_a_step": numbers,
        "bytes_of_a_checkpoint_as_the_papers": file.tell(),
        "checkpoint_over_step": file.tell() / numbers,
        "vectors_held": {
            "everything": 1,
            "everything, update by rule": 1,
            "everything without the gradient before": 0,
            "norms and charges": 0,
            "norms": 0,
            "paper's accumulators": 2,
        },
        "vectors_moved": {
            "everything": 4,  # θ, g, the gradient before, v
            "everything, update by rule": 6,  # θ, g, the gradient before; θ', g, v'
            "everything without the gradient before": 3,
            "norms and charges": 3,
            "norms": 3,
        },
    }


if __name__ == "__main__":
    keep_pages()
    asked = [one for one in sys.argv[1:] if one in NETWORKS] or list(NETWORKS)
    report(
        "recorder",
        "a training step with everything recorded and without; the paper's way beside it",
        {
            "clock": "of the thread" if torch.get_num_threads() == 1 else "of the wall",
            "networks": [measured(one) for one in asked],
        },
    )
