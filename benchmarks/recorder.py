"""What recording costs a training loop of one's own: a step with the recorder and without, in turns, in one run.

    python benchmarks/recorder.py [--save] [network …]

Recorded at every step: all norms, inner products and cosines, of each layer, and the charges of all symmetries with
their drivers and constraints. `share_of_a_step` is the time by which the recorder makes `optimizer.step()` longer, over
a whole step without it (forward, backward, step): pairs of two loops in turns, the median of their differences. Only
`step` is timed for it, for there the recorder works, and the noise of a shared machine lies in the rest.
`ratio_of_steps` is that of whole steps, its quartiles beside it.

`parts` says where it goes: the same with fewer observers. Beside it the way of the paper's own code (Kunin et al.
2021):
two accumulators of the squared velocity for each parameter, in the optimiser, and at each saved step a checkpoint of
model and optimiser. Bytes are those of a checkpoint over those of the recorder's numbers at one step, uncompressed;
memory what each holds beside model and optimiser, in vectors of P numbers.
"""

from __future__ import annotations

import io
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from measuring import keep_pages, report
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode import Charges, Observer, Recorder, Statistics
from nm_ode.models import resnet18, vgg
from nm_ode.symmetries import Symmetries, find_symmetries

REPEATS = 15


def _clock() -> float:
    """Seconds; with one thread those that it computed, which other programs on the machine do not add to."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


@dataclass(frozen=True)
class Network:
    build: Callable[[], nn.Module]
    batch: int
    repeats: int = REPEATS


NETWORKS = {
    "resnet18": Network(lambda: resnet18(classes=10), 64, 7),
    "vgg11": Network(lambda: vgg(11, image=32, classes=10, hidden=()), 64),
    "vgg11_4096": Network(lambda: vgg(11, image=32, classes=10), 64),
    "vgg11_4096_batch128": Network(lambda: vgg(11, image=32, classes=10), 128, 9),
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


def extra(one: Loop, other: Loop, repeats: int) -> dict[str, Any]:
    """How much longer the first's steps are, in turns."""
    one.step(), other.step()
    pairs = []
    for i in range(repeats):
        if i % 2:
            b, a = other.step(), one.step()
        else:
            a, b = one.step(), other.step()
        pairs.append((a, b))
    ratios = sorted(a[0] / b[0] for a, b in pairs)
    longer = statistics.median(a[1] - b[1] for a, b in pairs)
    whole = statistics.median(b[0] for _, b in pairs)
    return {
        "share_of_a_step": longer / whole,
        "ms_more": 1e3 * longer,
        "ms_step": 1e3 * whole,
        "ratio_of_steps": statistics.median(ratios),
        "ratio_quartiles": [ratios[len(ratios) // 4], ratios[(3 * len(ratios)) // 4]],
    }


def recorded(
    network: Network, bare: Loop, observers: Sequence[Observer], **options: Any
) -> tuple[dict[str, Any], Recorder]:
    with ExitStack() as stack:
        loop = Loop(network.build(), network.batch)
        recorder = stack.enter_context(Recorder(loop.model, loop.optimizer, observe=observers, **options))
        loop.tell = recorder.loss
        return extra(loop, bare, network.repeats), recorder


def measured(name: str) -> dict[str, Any]:
    network = NETWORKS[name]
    bare = Loop(network.build(), network.batch)
    found: Symmetries = find_symmetries(network.build().float(), torch.randn(4, 3, 32, 32))
    size = sum(p.numel() for p in bare.model.parameters())
    everything, recorder = recorded(network, bare, [Statistics(), Charges(found)])
    numbers = sum(
        one.nbytes // one.sizes["step"] for one in recorder.run.data_vars.values() if "step" in one.dims
    )
    everything_by_rule, _ = recorded(network, bare, [Statistics(), Charges(found)], update_by_rule=True)
    parts = {
        part: [
            recorded(network, bare, observers, update_by_rule=by_rule)[0]["share_of_a_step"]
            for by_rule in (False, True)
        ]
        for part, observers in {
            "norms of gradient and update": [],
            "charges": [Charges(found)],
            "charges and statistics without a copy of the gradient": [
                Statistics(keep_gradient=False),
                Charges(found),
            ],
        }.items()
    }
    papers = Loop(network.build(), network.batch)
    accumulate(papers.optimizer)
    cost = extra(papers, bare, network.repeats)
    file = io.BytesIO()
    torch.save({"model": papers.model.state_dict(), "optimizer": papers.optimizer.state_dict()}, file)
    return {
        "network": name,
        "batch": network.batch,
        "parameters": size,
        "charges": found.n_charges(),
        **everything,
        "by_rule": everything_by_rule,
        "parts": parts,
        "bytes_a_step": numbers,
        "vectors_held": 2,
        "papers_way": {
            "share_of_a_step": cost["share_of_a_step"],
            "bytes_a_checkpoint": file.tell(),
            "vectors_held": 2,
            "bytes_over_the_recorders": file.tell() / numbers,
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
