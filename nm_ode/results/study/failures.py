"""Why a member has no results: kept beside the study, each with what is needed to run it alone."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

from nm_ode.results.codec import ResultError, decode, encode
from nm_ode.results.folders import Folder, LocalFolder
from nm_ode.results.study.record import Failure

_ERROR, _CASE, _LOG = "error.json", "case.toml", "log.txt"


def write_failure(folder: Folder, member: str, failure: Failure) -> None:
    """Keep a failure, in the place of an earlier one. It counts from when its last file is there.

    Raises:
        OSError: no room, or no access.
    """
    folder.write(f"{member}/{_CASE}", failure.case_text.encode("utf-8", "backslashreplace"))
    folder.write(f"{member}/{_LOG}", failure.log.encode("utf-8", "backslashreplace"))
    rest = encode(replace(failure, case_text="", log=""))
    folder.write(f"{member}/{_ERROR}", json.dumps(rest, indent=1).encode())


def remove_leftovers_of_failure(folder: LocalFolder, member: str) -> None:
    """What a process left that was killed in `write_failure`; nobody else may be writing it now."""
    for name in (_ERROR, _CASE, _LOG):
        folder.remove_leftovers(f"{member}/{name}")


def read_failures(folder: Folder) -> dict[str, Failure]:
    """Each member's failure. One whose record is damaged is a failure all the same.

    Raises:
        OSError: they cannot be read.
    """
    found = {}
    for member in folder.names():
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found[member] = _failure(folder, member)
    return found


def _failure(folder: Folder, member: str) -> Failure:
    content = folder.read(f"{member}/{_ERROR}")
    texts = []
    for name in (_CASE, _LOG):
        try:
            texts.append(folder.read(f"{member}/{name}").decode("utf-8", "replace"))
        except FileNotFoundError:
            texts.append("")
    try:
        failure = decode(Failure, json.loads(content))
    except (ResultError, ValueError, AttributeError, TypeError):
        sentence = f"it failed, and {folder.place(f'{member}/{_ERROR}')} is damaged, which said why"
        failure = Failure("error", sentence, "")
    return replace(failure, case_text=texts[0], log=texts[1])
