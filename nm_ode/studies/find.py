"""The cases that come with nm_ode, and those in a folder."""

from __future__ import annotations

from pathlib import Path

from nm_ode.registry import did_you_mean
from nm_ode.studies.errors import CaseError


def shipped_cases() -> list[Path]:
    """Their files: in the wheel beside the package, in a checkout at its top."""
    package = Path(__file__).resolve().parents[1]
    folders = (package / "cases", package.parent / "cases")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    return sorted(folder.glob("*.toml")) if folder is not None else []


def cases_in(folder: Path) -> list[Path]:
    """The case files in a folder, by name; none where there is no such folder.

    Raises:
        CaseError: the folder is there and cannot be read.
    """
    try:
        if not folder.is_dir():
            return []
        return sorted(path for path in folder.iterdir() if path.suffix == ".toml" and path.name[0] != ".")
    except OSError as error:
        raise CaseError(f"{folder} cannot be read ({error.strerror or error})") from None


def absolute(path: Path) -> Path:
    """The path without links, as far as they lead anywhere."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # links in a circle
        return path.absolute()


def find_case(name: str) -> Path:
    """A path as it is; a bare name as the case of that name that ships with nm_ode.

    Args:
        name: "digits_mlp", or the path of a case file.

    Raises:
        CaseError: neither; with near names.

    Example:
        >>> from nm_ode.studies import find_case
        >>> find_case("digits_mlp").name
        'digits_mlp.toml'
        >>> find_case("digit_mlp")
        Traceback (most recent call last):
            ...
        nm_ode.studies.errors.CaseError: no case file and no shipped case is called 'digit_mlp'; did you mean ...
    """
    path = Path(name)
    try:
        there = path.exists()
    except OSError as error:
        raise CaseError(f"{name} cannot be read ({error.strerror or error})") from None
    if there or path.suffix == ".toml" or len(path.parts) > 1:
        return path
    shipped = {case.stem: case for case in shipped_cases()}
    if name in shipped:
        return shipped[name]
    raise CaseError(f"no case file and no shipped case is called {name!r}{did_you_mean(name, shipped)}")
