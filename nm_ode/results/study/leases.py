"""A claim where there are no locks: an object that only one can create, renewed as long as its owner lives.

A lease that nobody renews is stale, and whoever wants the member creates the next one: they are numbered, and the
highest counts. So of several that see a stale lease one gets the member, and an owner that comes to again, after its
machine had stopped, finds a higher number than its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nm_ode.results.identity import StoreError
from nm_ode.results.remote import RemoteFolder
from nm_ode.results.study.claims import Busy, myself

SECONDS = 90.0
"""After which a lease that was not renewed is stale; clocks may differ by less."""
_RENEWALS = 6


@contextlib.contextmanager
def leased(folder: RemoteFolder, member: str, seconds: float = SECONDS) -> Iterator[Lease]:
    """A member, for this process alone.

    Args:
        folder: which has the leases of all members.

    Raises:
        Busy: another process has it.
        OSError: no access, or no connection.
    """
    lease = _acquired(folder, member, seconds)
    stop = threading.Event()
    renewing = threading.Thread(target=_renew, args=(lease, stop, seconds / _RENEWALS), daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        stop.set()
        renewing.join()
        with contextlib.suppress(OSError):  # it will be stale
            lease.release()


@dataclass
class Lease:
    """A member's lease, while it is held."""

    folder: RemoteFolder
    member: str
    number: int
    seconds: float
    said: dict[str, Any] = field(default_factory=dict)

    def require(self) -> None:
        """Raises StoreError unless it is held still; OSError if that cannot be known."""
        numbers = _numbers(self.folder, self.member)
        if self.number not in numbers or max(numbers) > self.number or not self._is_mine():
            raise StoreError(
                f"{self.member} was taken over by another process, as this one did not renew its lease for "
                f"{self.seconds:g} s: nothing was written"
            )

    def _is_mine(self) -> bool:
        """Where a file system cannot create a file only if there is none, two may have created it."""
        try:
            found = json.loads(self.folder.read(_key(self.member, self.number)))
            return bool(found["token"] == self.said["token"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False

    def renew(self) -> None:
        self.require()
        self.folder.write(_key(self.member, self.number), _content(self.said))

    def release(self) -> None:
        """Lower numbers first: while any is there, the highest is this one."""
        numbers = _numbers(self.folder, self.member)
        if self.number in numbers and max(numbers) == self.number:
            for number in sorted(numbers):
                self.folder.remove(_key(self.member, number))


def _acquired(folder: RemoteFolder, member: str, seconds: float) -> Lease:
    numbers = _numbers(folder, member)
    if numbers:
        _require_stale(folder, member, max(numbers))
    said = {**myself(), **_process(), "token": secrets.token_hex(8), "seconds": seconds}
    lease = Lease(folder, member, max(numbers, default=0) + 1, seconds, said)
    if not folder.create(_key(member, lease.number), _content(said)):
        _require_stale(folder, member, lease.number)  # it is another's
        raise Busy(member)
    try:
        # Whoever looked long ago may have created a number that others have done with.
        for number in _numbers(folder, member):
            if number > lease.number:
                raise Busy(member)
            if number < lease.number:
                _require_stale(folder, member, number)
    except Busy:
        folder.remove(_key(member, lease.number))
        raise
    return lease


def _renew(lease: Lease, stop: threading.Event, every: float) -> None:
    while not stop.wait(every):
        try:
            lease.renew()
        except StoreError:
            return  # the owner is told when it commits
        except OSError:
            continue


def _require_stale(folder: RemoteFolder, member: str, number: int) -> None:
    """Raises Busy unless its owner has gone."""
    try:
        found = json.loads(folder.read(_key(member, number)))
        who, since = str(found["who"]), str(found["since"])
        age, seconds = time.time() - float(found["renewed"]), float(found["seconds"])
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        raise Busy(member) from None
    if age < seconds and not _is_gone(found):
        raise Busy(member, who, since)


def _numbers(folder: RemoteFolder, member: str) -> list[int]:
    return [int(name) for name in folder.names(member) if name.isdigit()]


def _key(member: str, number: int) -> str:
    return f"{member}/{number}"


def _content(said: dict[str, Any]) -> bytes:
    return json.dumps({**said, "renewed": time.time()}).encode()


def _process() -> dict[str, Any]:
    """Which process of which running system this is; empty where one cannot know."""
    try:
        system = Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink(
            "/proc/self/ns/pid"
        )
        return {"system": system, "pid": os.getpid(), "started": _started(os.getpid())}
    except (OSError, ValueError, IndexError):
        return {}


def _is_gone(found: dict[str, Any]) -> bool:
    """Was the owner a process of this system that has ended?"""
    here = _process()
    if not here or found.get("system") != here["system"]:
        return False
    try:
        return _started(int(found["pid"])) != str(found["started"])
    except FileNotFoundError:
        return True
    except (OSError, ValueError, IndexError, KeyError):
        return False


def _started(pid: int) -> str:
    """Ticks since the system started: a number is given to a second process later."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
