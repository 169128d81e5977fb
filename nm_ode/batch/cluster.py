"""The Dask cluster that runs a batch: one of this machine's, or one that is there."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import dask
from distributed import Client, LocalCluster, Nanny

from nm_ode.batch.tasks import BatchError

_CONNECT = 10.0  # seconds
_LOCAL = {
    # A member that is to be tried again is counted by the member's own attempts.
    "distributed.scheduler.allowed-failures": 100,
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.worker-ttl": None,  # a long step of one thread is no death
    "distributed.scheduler.work-stealing": False,
    # A process that once had much memory is no reason not to begin the next member.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.98,
    "distributed.comm.timeouts.connect": "30s",
}
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@contextlib.contextmanager
def local_client(workers: int, threads: int, memory: int | None, gpus: int = 0) -> Iterator[Client]:
    """A cluster of so many processes on this machine; they end with this one, however it ends.

    Args:
        threads: of each, for linear algebra.
        memory: bytes that each may have.
        gpus: that each take one of; 0 for none.
    """
    environment = dict.fromkeys(_THREADS, str(threads))
    _be_quiet()
    with dask.config.set(_LOCAL):
        cluster = LocalCluster(
            n_workers=0,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            # Its HTTP server is there all the same, and would first try the port that another command has.
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            silence_logs=False,
        )
        try:
            for i in range(workers):
                own = {"CUDA_VISIBLE_DEVICES": _device(i % gpus)} if gpus else {}
                cluster.worker_spec[i] = _worker(environment | own, memory)
            client = Client(cluster, set_as_default=False)
            try:
                cluster.sync(cluster._correct_state)
                yield client
            finally:
                client.close(timeout=5)
        finally:
            cluster.close(timeout=10)


def _worker(environment: dict[str, str], memory: int | None) -> dict[str, Any]:
    options = {
        "nthreads": 1,
        "memory_limit": memory or 0,
        "env": environment,
        "preload": "nm_ode.batch.preload",
        "silence_logs": logging.CRITICAL,
        "dashboard": False,
        "local_directory": dask.config.get("temporary-directory", None),
    }
    return {"cls": Nanny, "options": options}


def _device(i: int) -> str:
    """The i-th of the GPUs that this process may use."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return visible[i] if i < len(visible) else str(i)


@contextlib.contextmanager
def remote_client(address: str) -> Iterator[Client]:
    """A cluster that is there already.

    Raises:
        BatchError: no scheduler answers.
    """
    _be_quiet()
    try:
        client = Client(address, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise BatchError(
            f"--scheduler {address}: no Dask scheduler answers there ({why}): start one with `dask scheduler`, "
            "or give the address that it prints, tcp://HOST:PORT"
        ) from None
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):  # there may be nobody to say goodbye to
            client.close(timeout=3)


def _be_quiet() -> None:
    """What Dask logs of workers that come and go is told in one line where it matters; some of it comes at the end."""
    for name in ("distributed", "tornado", "asyncio", *logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
