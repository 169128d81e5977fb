"""The pages of a study's members, beside its own: drawn where they are missing, or older than their results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nm_ode.reporting.report import report_html
from nm_ode.reporting.study.page import MEMBERS
from nm_ode.results import open_store
from nm_ode.results.folders import Folder
from nm_ode.results.root import ROOT_FILE
from nm_ode.results.study.reader import STUDY
from nm_ode.results.verified import sha256

_END = ".html"


def pages_of(folder: Folder) -> list[str]:
    """Names of the members that have a page.

    Args:
        folder: of the study: `study.zarr`, `members`.

    Raises:
        OSError: it cannot be read.
    """
    return [name.removesuffix(_END) for name in folder.names(MEMBERS) if name.endswith(_END)]


def stale(folder: Folder, members: Iterable[str]) -> list[str]:
    """Of these members, those without a page of the results that are there now.

    Raises:
        OSError: something cannot be read.
    """
    drawn = set(pages_of(folder))
    return [
        member
        for member in members
        if member not in drawn or not _page(folder, member).endswith(_mark(folder, member))
    ]


def draw_pages(folder: Folder, members: Iterable[str]) -> Iterator[str]:
    """Write the page of each member; its name when it is there.

    Raises:
        NmOdeError: a member's store does not open, or no page can be made of it.
        OSError: no room, or no access.
    """
    for member in members:
        mark = _mark(folder, member)
        html = report_html(open_store(folder.place(f"{STUDY}/{member}")))
        folder.write(f"{MEMBERS}/{member}{_END}", html.encode("utf-8", "backslashreplace") + mark)
        yield member


def _page(folder: Folder, member: str) -> bytes:
    return folder.read(f"{MEMBERS}/{member}{_END}")


def _mark(folder: Folder, member: str) -> bytes:
    """At the end of the page: the digest of what it is of."""
    return f"<!-- {sha256(folder.read(f'{STUDY}/{member}/{ROOT_FILE}'))} -->\n".encode()
