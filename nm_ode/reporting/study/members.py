"""The pages of a study's members, beside its own: drawn where they are missing, or older than their results."""

from __future__ import annotations

from collections.abc import Iterable

from nm_ode.reporting.report import report_html
from nm_ode.reporting.study.page import MEMBERS
from nm_ode.results import open_store
from nm_ode.results.files import remove_leftovers
from nm_ode.results.folders import Folder, LocalFolder
from nm_ode.results.root import ROOT_FILE
from nm_ode.results.study.reader import STUDY
from nm_ode.results.verified import sha256

_END = ".html"
_LONG = 60.0  # seconds that nobody takes to write a page


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
        if member not in drawn or not folder.read(_page(member)).endswith(_mark(folder, member))
    ]


def draw_page(folder: Folder, member: str) -> None:
    """Write the page of a member, as a whole or not at all.

    Raises:
        NmOdeError: the member's store does not open, or no page can be made of it.
        OSError: no room, or no access.
    """
    page, mark = _page(member), _mark(folder, member)
    html = report_html(open_store(folder.place(f"{STUDY}/{member}")))
    folder.write(page, html.encode("utf-8", "backslashreplace") + mark)
    if isinstance(folder, LocalFolder):
        remove_leftovers(folder.path / page, older_than=_LONG)


def _page(member: str) -> str:
    return f"{MEMBERS}/{member}{_END}"


def _mark(folder: Folder, member: str) -> bytes:
    """At the end of the page: the digest of what it is of."""
    return f"<!-- {sha256(folder.read(f'{STUDY}/{member}/{ROOT_FILE}'))} -->\n".encode()
