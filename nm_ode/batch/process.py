"""A process that computes members and does nothing else: `python -m nm_ode.batch.process`.

Its caller sends pickled requests on its standard input and gets pickled answers from its standard output. When the
caller goes, however it goes, so does this process. In a Dask worker's own process other threads draw random numbers,
and a member could end with the worker alone.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import struct
import threading
from typing import IO, Any

_LENGTH = struct.Struct(">Q")


def send(stream: IO[bytes], message: Any) -> None:
    """One message. Raises OSError if nobody reads any more."""
    content = pickle.dumps(message)
    stream.write(_LENGTH.pack(len(content)) + content)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """The next message. Raises EOFError if nobody writes any more."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    content = stream.read(length)
    if len(content) < length:
        raise EOFError
    return pickle.loads(content)


def main() -> None:
    """Answer requests until there is nobody to ask."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which tells its workers
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(2, 1)  # what a library prints is no answer
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    from nm_ode.batch.member import run_member
    from nm_ode.batch.pages import is_to_be_drawn, with_page
    from nm_ode.batch.tasks import Sure
    from nm_ode.batch.watch import give_up, has_broken_off
    from nm_ode.memory import trim

    def listen() -> None:
        while True:
            try:
                kind, content = receive(asked)
            except EOFError:
                os._exit(1)  # at once: whoever asks next may want what this process has claimed
            if kind == "stop":
                give_up(content)
            else:
                tasks.put(content)

    threading.Thread(target=listen, name="listen", daemon=True).start()
    send(answers, "ready")
    while not has_broken_off():  # the next member gets a fresh process
        task = tasks.get()
        outcome = run_member(task, whole_process=True)
        if is_to_be_drawn(task, outcome):
            send(answers, Sure(outcome))
        send(answers, with_page(task, outcome))
        trim()  # else this process grows with every member
    os._exit(0)


if __name__ == "__main__":
    main()
