"""What goes between caller and worker: frames of nine bytes, messages in JSON, vectors in shared memory.

Control travels over a socket or pipe of its own, never over stdin or stdout: libuv makes descriptor 0 non-blocking, and
Julia's packages print on 1 (docs/bridge.md rule 1). Vectors lie in a file without a name that both sides map: the
worker is handed the caller's descriptor, so that no crash leaves a file behind, whenever it comes, and no resource
tracker unlinks it twice, as it does named shared memory (rule 2). Windows has no such files: there it has a name.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import tempfile
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from bridges.errors import EngineError
from bridges.problem import Array

_FRAME = struct.Struct("<cd")

# The worker asks, with a number that says which:
RHS = b"f"  # the derivative at time x, of the state in row STATE, into row RATE
JVP = b"j"  # the Jacobian at time x and row STATE times row DIRECTION, into row RATE
SHARPNESS = b"e"  # the spectral radius of the Jacobian at time x and row STATE
SAMPLE = b"s"  # here is sample number x, in row STATE
DONE = b"d"  # the job is done; a message follows
FAILED = b"x"  # it is not; a message follows

# The caller answers, with a number where one was asked for:
GO_ON = b"."
GIVE_UP = b"!"

KEY = "NM_ODE_WORKER_KEY"
"""The environment variable that has the key of a connection with a name."""

INHERITED = "fd:"
"""Before the number of a connection that the worker is born with."""

STATE, RATE, DIRECTION = 0, 1, 2
_ROWS = 3


def send_frame(connection: Connection, operation: bytes, number: float = 0.0) -> None:
    """One byte and one number."""
    connection.send_bytes(_FRAME.pack(operation, number))


def receive_frame(connection: Connection) -> tuple[bytes, float]:
    """The other side's byte and number; EOFError or OSError if it is gone."""
    operation, number = _FRAME.unpack(connection.recv_bytes(_FRAME.size))
    return operation, number


def send_message(connection: Connection, message: dict[str, Any]) -> None:
    """One message, as JSON, which unlike a pickle cannot run code on arrival."""
    connection.send_bytes(json.dumps(message).encode())


def receive_message(connection: Connection) -> dict[str, Any]:
    """The other side's message; EOFError or OSError if it is gone."""
    message: dict[str, Any] = json.loads(connection.recv_bytes())
    return message


def describe(arrays: dict[str, Array]) -> dict[str, list[int]]:
    """Name → shape, in the order in which they are sent."""
    return {name: list(array.shape) for name, array in arrays.items()}


def send_arrays(connection: Connection, arrays: dict[str, Array]) -> None:
    """Whole arrays, float64."""
    for array in arrays.values():
        connection.send_bytes(np.ascontiguousarray(array, dtype=np.float64).tobytes())


def receive_arrays(connection: Connection, shapes: dict[str, list[int]]) -> dict[str, Array]:
    """What `send_arrays` sent."""
    return {
        name: np.frombuffer(connection.recv_bytes(), dtype=np.float64).reshape(shape)
        for name, shape in shapes.items()
    }


class Vectors:
    """Three vectors of length n in memory that caller and worker share: state, rate, direction.

    Args:
        file: descriptor; it is kept open for `send`, and closed by `close`.
        path: of a file that has a name; None where it has none.

    Attributes:
        rows: shape (3, n), float64.
    """

    def __init__(self, file: int, path: Path | None, n: int) -> None:
        self.n = n
        self._file, self._path = file, path
        self._map = mmap.mmap(file, _ROWS * n * 8)
        self.rows: Array = np.ndarray((_ROWS, n), np.float64, self._map)

    @classmethod
    def create(cls, n: int) -> Vectors:
        """In memory where there is room, else on disk.

        Raises:
            EngineError: neither has room.
        """
        wanted = _ROWS * n * 8
        for folder in _folders():
            file, path = _new_file(folder)
            try:
                # A file that only claims its size would kill the process with SIGBUS when the room runs out.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file, 0, wanted)
                else:
                    os.truncate(file, wanted)
                return cls(file, path, n)
            except OSError:
                os.close(file)
                if path is not None:
                    path.unlink()
        raise EngineError(
            f"no room for {wanted / 1e6:.0f} MB that the state shares with the worker, in {' or '.join(_folders())}: "
            "make some, or set TMPDIR to a folder that has it"
        )

    def send(self, connection: Connection, pid: int) -> None:
        """Hand them to the worker, which calls `receive`."""
        send_message(connection, {"vectors": str(self._path or ""), "n": self.n})
        if self._path is None:
            reduction.send_handle(connection, self._file, pid)

    @classmethod
    def receive(cls, connection: Connection, message: dict[str, Any]) -> Vectors:
        """The worker's side of `send`, after its message."""
        path = Path(message["vectors"]) if message["vectors"] else None
        if path is None:
            file = reduction.recv_handle(connection)
        else:
            file = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        return cls(file, path, message["n"])

    def close(self) -> None:
        """Unmap; views of `rows` that are still held keep it mapped until they go."""
        if not hasattr(self, "rows"):
            return
        del self.rows
        os.close(self._file)
        with contextlib.suppress(BufferError):  # somebody holds a view: the memory goes with it
            self._map.close()
        if self._path is not None:
            with contextlib.suppress(PermissionError):  # while the other side has it open: that side will
                self._path.unlink(missing_ok=True)


def _new_file(folder: str) -> tuple[int, Path | None]:
    """A descriptor, and a path where a file cannot be without one."""
    if hasattr(os, "O_TMPFILE"):
        with contextlib.suppress(OSError):  # not every file system
            return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600), None
    file, name = tempfile.mkstemp(prefix="nm_ode-", dir=folder)
    if os.name != "posix":
        return file, Path(name)
    os.unlink(name)
    return file, None


def _folders() -> list[str]:
    memory = "/dev/shm"
    first = [memory] if os.path.isdir(memory) and os.access(memory, os.W_OK) else []
    return [*first, tempfile.gettempdir()]
