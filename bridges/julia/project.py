"""What a Julia project has, read from its files; and which versions have been seen running. Nothing is started."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SEEN = {
    "julia": "1.10.8",
    "OrdinaryDiffEq": "7.0.0",
    "SciMLBase": "3.7",
    "LinearSolve": "3.75",
    "StochasticDiffEq": "7.0.0",
    "PythonCall": "0.9.34",
}
"""The set of docs/bridge.md (rule 15); of 3.7 any 3.7.x."""


@dataclass(frozen=True)
class Project:
    """A project's direct dependencies, and what its manifest resolved them to.

    Attributes:
        direct: package → UUID, of Project.toml: what can be imported.
        resolved: package → UUID and version ("" where the manifest has none), of Manifest.toml.
        julia: the version of Julia that resolved it; "" if that is not on record.
    """

    direct: Mapping[str, str] = field(default_factory=dict)
    resolved: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    julia: str = ""

    def has(self, package: str, uuid: str) -> bool:
        """Whether `import package` finds this package; a dependency of a dependency is not found."""
        return self.direct.get(package) == uuid and self.resolved.get(package, ("", ""))[0] == uuid

    def version(self, package: str) -> str:
        """Of a package, or "julia"; "" if it is not known."""
        return self.julia if package == "julia" else self.resolved.get(package, ("", ""))[1]


def read_project(folder: Path) -> Project:
    """A project by its files; those that are not there count as empty.

    Raises:
        ValueError: one cannot be read; names it.
    """
    project = _read(folder, "JuliaProject.toml", "Project.toml")
    named = project.get("manifest")
    names = (named,) if isinstance(named, str) else ("JuliaManifest.toml", "Manifest.toml")
    manifest = _read(folder, *names)
    # Before Julia 1.7 the packages stood at the top.
    packages = manifest.get("deps", {}) if "manifest_format" in manifest else manifest
    return Project(
        direct={name: str(uuid).lower() for name, uuid in project.get("deps", {}).items()},
        resolved={
            name: (str(entries[0].get("uuid", "")).lower(), str(entries[0].get("version", "")))
            for name, entries in packages.items()
            if isinstance(entries, list) and entries and isinstance(entries[0], dict)
        },
        julia=str(manifest.get("julia_version", "")),
    )


def seen_running(package: str, version: str) -> bool:
    """Whether this version of a package of `SEEN` is the one that has been seen running."""
    return f"{version}.".startswith(f"{SEEN[package]}.")


def _read(folder: Path, *names: str) -> dict[str, Any]:
    """The first of these files that is there."""
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error})") from None
