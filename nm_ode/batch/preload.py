"""Run in each worker of this machine when it starts."""

from __future__ import annotations

import signal
import threading
from typing import Any


def dask_setup(worker: Any) -> None:
    """Ctrl-C is for the command, which tells its workers; the process for members starts before the first comes."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    from nm_ode.batch.child import members

    members.start()


def dask_teardown(worker: Any) -> None:
    """Its members' process ends with a worker."""
    from nm_ode.batch.child import members

    members.end()
