"""The journal and the tail of a store that grows: what was written, and how far it goes."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nm_ode.results.files import sync_folder, write_atomically
from nm_ode.results.segments import Arrays, Segment, read_segment, write_segment
from nm_ode.results.stream.arrays import GrowingArray
from nm_ode.results.verified import sha256

VERSION = 1
JOURNAL, TAIL = "journal.jsonl", "tail.bin"
_DIGEST = 64


@dataclass
class Ledger:
    """How far a store is, read from its journal and its tail.

    Attributes:
        version: of the format; None where the journal does not begin.
        arrays: by name.
        whole: array → how many chunks are on the disk.
        digests: file → SHA-256; of files that were written again, that of the last time.
        facts: what the run says of itself.
        state: arrays that go with the facts.
        partial: array → rows after its whole chunks.
        end, chain: of the journal: its length, and the digest of its last line.
        begun: was something once written whole? Then a journal that does not begin is damaged.
        torn: sentences on what was not written to its end, or was damaged.
    """

    version: int | None = None
    arrays: dict[str, GrowingArray] = field(default_factory=dict)
    whole: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    state: Arrays = field(default_factory=dict)
    partial: dict[str, Any] = field(default_factory=dict)
    end: int = 0
    chain: str = ""
    begun: bool = False
    torn: list[str] = field(default_factory=list)

    def rows(self, name: str) -> int:
        """How many rows of an array there are."""
        return self.whole[name] * self.arrays[name].chunk + len(self.partial.get(name, ()))

    def cut(self, whole: Mapping[str, int]) -> None:
        """Chunks after so many of each array count no more; nor do those of an array that is not named."""
        self.whole = {name: whole.get(name, 0) for name in self.arrays}

    def apply(self, record: Mapping[str, Any]) -> None:
        """Take up a line of the journal."""
        if "version" in record:
            self.version = record["version"]
        if "facts" in record:
            self.facts = record["facts"]
        for found in record.get("arrays", ()):
            array = GrowingArray.from_json(found)
            self.arrays[array.name] = array
            self.whole.setdefault(array.name, 0)
        if "chunk" in record:
            name, index = record["chunk"]
            self.whole[name] = index + 1
        self.digests.update(record.get("files", {}))
        if "cut" in record:
            self.cut(record["cut"])
            gone = record["forget"]
            self.digests = {key: one for key, one in self.digests.items() if key.split("/")[0] not in gone}


def read_ledger(folder: Path) -> Ledger:
    """What there is, as far as it is whole.

    Raises:
        OSError: the journal cannot be read, or is not there.
    """
    ledger, tail = Ledger(), _read_tail(folder)
    size = (folder / JOURNAL).stat().st_size
    until = -1 if tail is None else tail.facts["journal"]
    ledger.begun = (folder / TAIL).exists() or _has_a_line(folder / JOURNAL)
    for record, end, chain in _lines(folder / JOURNAL):
        ledger.apply(record)
        ledger.end, ledger.chain = end, chain
        if tail is not None and end == until:
            ledger.cut(tail.facts["whole"])
    if ledger.end < until:
        ledger.torn.append(f"{JOURNAL} is damaged after {ledger.end} bytes")
    elif ledger.end < size:
        ledger.torn.append(f"the last line of {JOURNAL} was not written to its end")
    if tail is None:
        if (folder / TAIL).exists():
            ledger.torn.append(f"{TAIL} is damaged")
        return ledger
    ledger.facts, ledger.state = tail.facts["facts"], tail.state
    for name, rows in tail.rows.items():
        if name in ledger.arrays and ledger.whole[name] == tail.facts["whole"][name]:
            ledger.partial[name] = rows
    return ledger


def write_tail(
    folder: Path,
    facts: Mapping[str, Any],
    state: Arrays,
    *,
    whole: Mapping[str, int],
    partial: Arrays,
    journal: int,
) -> None:
    """Replace the tail.

    Args:
        whole, partial: as of `Ledger`.
        journal: its length when this was so.

    Raises:
        OSError: no room, or no access; the tail is as it was.
    """
    content = io.BytesIO()
    header = {"facts": {"facts": facts, "whole": whole, "journal": journal}}
    write_segment(content, header, state, partial, b"")
    write_atomically(folder / TAIL, content.getvalue())


class Journal:
    """The journal, to be appended to.

    Args:
        ledger: as it was read; what follows its end is cut off.

    Raises:
        OSError: no access.
    """

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._path = folder / JOURNAL
        self.end, self._chain = ledger.end, ledger.chain
        self._path.touch()
        os.truncate(self._path, self.end)
        sync_folder(folder)

    def append(self, **record: Any) -> None:
        """Add a line, which is on the disk when this returns.

        Raises:
            OSError: no room; the journal is as it was.
        """
        text = json.dumps(record, default=dict)
        chain = _linked(self._chain, text)
        line = f"{chain} {text}\n".encode()
        with self._path.open("r+b") as file:
            file.seek(self.end)
            try:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                os.truncate(self._path, self.end)
                raise
        self.end, self._chain = self.end + len(line), chain


def record_of(array: GrowingArray) -> dict[str, Any]:
    """An array as a line of the journal has it."""
    return asdict(array)


def _linked(chain: str, text: str) -> str:
    return sha256((chain + text).encode())


def _has_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline().endswith(b"\n")


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], int, str]]:
    """Each line that is whole and follows the one before: what it says, where it ends, its digest."""
    end, chain = 0, ""
    with path.open("rb") as file:
        for line in file:
            text = line[_DIGEST + 1 : -1].decode("utf-8", "replace")
            chain = _linked(chain, text)
            if not line.endswith(b"\n") or line[: _DIGEST + 1] != f"{chain} ".encode():
                return
            end += len(line)
            yield json.loads(text), end, chain


def _read_tail(folder: Path) -> Segment | None:
    """None if it is not there, or not what was written."""
    try:
        content = (folder / TAIL).read_bytes()
    except FileNotFoundError:
        return None
    read = read_segment(io.BytesIO(content), len(content), b"")
    return None if read is None else read[1]
