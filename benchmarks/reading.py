"""Batches of 64×64 images that lie on disk: with a thread that reads ahead, and without it.

`disk`: as the disk and the system's cache are, and with the file's pages dropped from that before each run.
`slower_disk`: of one that takes a share of a step for each batch more, as one that others use, or a network's, does.
There the time of a step with the thread is the longer of reading and computing, and without it their sum.

`preparation`: what bytes → float32, normalised, takes of a batch of 256, with flips and crops and without.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import paired_ratio, report, seconds
from torch import Tensor, nn

import nm_ode
from nm_ode.data import ArraySource, Augmentation, Preparation, PreparedSource, Samples

IMAGES, SIDE, BATCH, STEPS, REPEATS = 8192, 64, 256, 24, 7
PREPARATION = Preparation((0.5,) * 3, (0.25,) * 3, Augmentation())


class SlowSource(ArraySource):
    """A disk that takes `wait` seconds more for each batch."""

    wait = 0.0

    def take(self, indices: Samples) -> Any:
        time.sleep(self.wait)
        return super().take(indices)


class WithoutThread(nm_ode.Problem):
    """Reads each batch when it is its turn."""

    def read_ahead(self, each: Any) -> AbstractContextManager[Any]:
        return nullcontext(each)


def problems(source: ArraySource) -> list[nm_ode.Problem]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(8 * 49, 10)
        )
    prepared = PreparedSource(source, PREPARATION)
    return [
        kind(model, nn.functional.cross_entropy, prepared, dtype=torch.float32, chunk_size=BATCH)
        for kind in (WithoutThread, nm_ode.Problem)
    ]


def train(problem: nm_ode.Problem, before: Any = None) -> None:
    if before is not None:
        before()
    nm_ode.train(
        problem.subset(None), nm_ode.SGD(lr=1e-3), STEPS, batch_size=BATCH, save_every=STEPS, full_loss=False
    )


def dropped(path: Path) -> None:
    """From the system's cache."""
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def on_disk(path: Path) -> dict[str, object]:
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (IMAGES, 3, SIDE, SIDE))
    images[:] = np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)
    images.flush()
    pair = (np.load(path, mmap_mode="r"), torch.arange(IMAGES) % 10)
    without, ahead = problems(ArraySource(pair))
    found: dict[str, object] = {
        "cached": paired_ratio(partial(train, without), partial(train, ahead), REPEATS),
        "dropped": paired_ratio(
            partial(train, without, partial(dropped, path)),
            partial(train, ahead, partial(dropped, path)),
            REPEATS,
        ),
    }
    slow = SlowSource(pair)
    without, ahead = problems(slow)
    step = seconds(partial(train, without)) / STEPS
    slower = {}
    for share in (0.25, 0.5, 1.0, 2.0):
        slow.wait = share * step
        slower[f"{share:g} of a step"] = paired_ratio(partial(train, without), partial(train, ahead), REPEATS)
    return {"disk": found, "slower_disk": slower}


def preparation() -> dict[str, float]:
    images = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8)
    virtual = torch.arange(BATCH) + IMAGES

    def milliseconds(indices: Tensor | None) -> float:
        def work() -> None:
            PREPARATION.prepared(images, indices, IMAGES, torch.float32)

        work()
        return 1e3 * min(seconds(work) for _ in range(20))

    return {"normalised_ms": milliseconds(None), "augmented_ms": milliseconds(virtual)}


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        results = {"preparation": preparation(), **on_disk(Path(folder) / "images.npy")}
    report("reading", "time of training steps without a thread that reads ahead, over that with it", results)


if __name__ == "__main__":
    main()
