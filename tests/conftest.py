"""Problems that many tests share: small, and of the kinds of the field."""

from __future__ import annotations

import gc
import logging
import os
import signal
import typing
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings
from torch import nn

import nm_ode
from nm_ode.data import digits
from nm_ode.models import mlp
from tests import kept_kernels

# Tensors of tests are small: a second thread costs more than it gives, and on a busy machine threads wait in vain.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # nor in the processes that tests start

# No test depends on how busy the machine is.
settings.register_profile("untimed", parent=settings.default, deadline=None)
settings.load_profile("untimed")

# torch makes 10,000 annotations anew whenever a graph is taken apart; typing remembers those that it made.
torch._ops.Callable = typing.Callable  # type: ignore[attr-defined]

kept_kernels.keep()

# torch writes a report of each graph where somebody listens, and pytest listens wherever it can.
_REPORTS = logging.getLogger("torch.__trace")
_REPORTS.handlers.clear()
_REPORTS.addHandler = lambda handler: None  # type: ignore[method-assign]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: one of these at the end would leave the other processes without work."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """The garbage collector need not look through all that is imported again and again: a fifth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.fixture(scope="session", autouse=True)
def no_fsync() -> Iterator[None]:
    """No test cuts the power, and a disk that is waited for is a third of the time that a small run takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def tanh_digits() -> nm_ode.Problem:
    """docs/theory.md's digits problem: 512 samples, 64-32-10 tanh, cross-entropy, P = 2410."""
    data = digits(512)
    return nm_ode.Problem(mlp([64, 32, 10], "tanh"), nn.functional.cross_entropy, (data.x, data.y))


@pytest.fixture(scope="session")
def tiny() -> nm_ode.Problem:
    """A tanh regression with 27 parameters: fast, smooth, with a dense Hessian that one can look at."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    return nm_ode.Problem(mlp([3, 4, 2], "tanh", seed=1), nn.functional.mse_loss, (x, y))


@pytest.fixture
def python_sigint() -> Iterator[None]:
    """Python's own handler of SIGINT; a background job of a shell without job control starts with SIGINT ignored."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
