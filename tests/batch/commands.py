"""The command and Dask's own, as processes that can be killed; and what must be right afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from nm_ode.results.study import StudyStore
from tests.kills.scenarios import bits

ROOT = Path(__file__).parents[2]
START = "from nm_ode.cli import main; main()"
WITHOUT_PAGES = (
    "import nm_ode.batch.tasks, nm_ode.cli.batch\n"
    "nm_ode.batch.tasks.MANY_PAGES = 0\n"
    "nm_ode.cli.batch._presented = lambda plan: True\n"
)
"""The command; and what keeps it from drawing pages, as the fixture `without_pages` does in this process."""
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
    "OMP_NUM_THREADS": "1",
}


def started(folder: Path, *arguments: str, pages: bool = True) -> subprocess.Popen[str]:
    """The command, in a group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", START if pages else WITHOUT_PAGES + START, "run", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def ran(folder: Path, *arguments: str, pages: bool = True) -> tuple[int, str]:
    """Exit code and what was said."""
    process = started(folder, *arguments, pages=pages)
    told, _ = process.communicate(timeout=600)
    return process.returncode, told


@contextlib.contextmanager
def dask_cluster(
    folder: Path, workers: int = 2, memory: str = "0"
) -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    """The address of a scheduler on loopback, and the processes: the scheduler first, then its workers."""
    address_file = folder / "scheduler.json"
    address_file.unlink(missing_ok=True)
    dask = [sys.executable, "-m", "dask"]
    local = ["--host", "127.0.0.1", "--no-dashboard"]
    # Nobody reads what they say: a pipe would fill.
    quiet = {"cwd": folder, "env": ENVIRONMENT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(
        [*dask, "scheduler", *local, "--port", "0", "--scheduler-file", str(address_file)], **quiet
    )
    processes = [scheduler]
    try:
        wait_for(address_file.exists, scheduler)
        for _ in range(workers):
            command = [*dask, "worker", *local, "--nthreads", "1", "--scheduler-file", str(address_file)]
            more = ["--death-timeout", "60", "--memory-limit", memory]
            processes.append(subprocess.Popen([*command, *more], **quiet))
        yield _address(address_file), processes
    finally:
        for process in reversed(processes):
            end(process)


def _address(file: Path) -> str:
    for _ in range(200):
        with contextlib.suppress(ValueError, KeyError):
            return str(json.loads(file.read_text())["address"])
        time.sleep(0.05)
    raise RuntimeError("the scheduler does not say where it is")


def end(process: subprocess.Popen[str]) -> None:
    """A process with its children, at once."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()
    process.wait()


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 300) -> None:
    """Until it is so; the process must live meanwhile."""
    until = time.monotonic() + seconds
    while not what():
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode}")
        if time.monotonic() > until:
            raise RuntimeError("it never came to that")
        time.sleep(0.02)


def below(process: subprocess.Popen[str], word: str) -> list[psutil.Process]:
    """The processes that it started, and those that these started, with this word in their command."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if word in " ".join(child.cmdline()):
                    found.append(child)
    return found


MEMBERS, WORKERS = "nm_ode.batch.process", "spawn_main"
"""In the commands of the processes that compute members, and of the Dask workers of this machine."""


def kill(process: psutil.Process | subprocess.Popen[str]) -> None:
    """SIGKILL."""
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)


def whole(out: Path, name: str = "slow") -> dict[str, dict[str, str]]:
    """The digests of each member's files, without clocks."""
    study = out / name / "study.zarr"
    return {
        folder.name: bits(folder)
        for folder in study.glob("*=*")
        if (folder / "zarr.json").is_file() and not folder.name.startswith(".")
    }


def left_over(out: Path, name: str = "slow") -> list[str]:
    """What is beside the study that need not be there."""
    store = StudyStore.at(out, name)
    found = [str(path.relative_to(out)) for path in (out / name / "unfinished").glob("*/*")]
    return [*found, *store.failures()]
