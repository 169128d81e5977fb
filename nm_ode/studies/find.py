"""The cases that come with nm_ode."""

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


def find_case(name: str) -> Path:
    """A path as it is; a bare name as the case of that name that ships with nm_ode.

    Raises:
        CaseError: neither; with near names.
    """
    path = Path(name)
    if path.exists() or path.suffix == ".toml" or len(path.parts) > 1:
        return path
    shipped = {case.stem: case for case in shipped_cases()}
    if name in shipped:
        return shipped[name]
    raise CaseError(f"no case file and no shipped case is called {name!r}{did_you_mean(name, shipped)}")
