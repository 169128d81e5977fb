"""Groups beside the members: what a study makes of all of them, such as the observed order."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import xarray as xr

from nm_ode.results.folders import Folder
from nm_ode.results.group import write_group
from nm_ode.results.root import ROOT_FILE
from nm_ode.results.study.root import read_study_root, write_study_root


def add_reduction(study: Folder, unfinished: Path, group: str, dataset: xr.Dataset) -> None:
    """Write a group, or replace it: nobody reads it from before its first file changes until its last is there.

    Raises:
        OSError: no room, or no access.
        StoreError: the study has no root.
    """
    writing = unfinished / f".writing-{group}-{os.getpid()}"
    try:
        digests = write_group(dataset, writing)
        remove_reduction(study, group)
        study.take(writing, group, last=ROOT_FILE)
    finally:
        shutil.rmtree(writing, ignore_errors=True)
    root = read_study_root(study)
    write_study_root(study, replace(root, digests={**root.digests, group: digests}))


def remove_reduction(study: Folder, group: str) -> None:
    """First from the root, so that none counts that is half removed.

    Raises:
        OSError: no access.
        StoreError: the study has no root.
    """
    root = read_study_root(study)
    if group in root.digests:
        kept = {name: found for name, found in root.digests.items() if name != group}
        write_study_root(study, replace(root, digests=kept))
    study.remove(group)
