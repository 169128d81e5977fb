"""Run in each worker of this machine when it starts."""

from __future__ import annotations

import signal
import threading
from typing import Any


def dask_setup(worker: Any) -> None:
    """Ctrl-C is for the command, which tells its workers; the members' libraries are there before the first."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    import nm_ode.batch.member  # noqa: F401
