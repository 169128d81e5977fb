"""The store of a study of many members: one Zarr group a member, and what the study says of itself."""

from nm_ode.results.study.claims import Busy
from nm_ode.results.study.reader import open_study, study_tree_info
from nm_ode.results.study.record import Axis, Failure, Place, StudyRecord, StudyTreeInfo
from nm_ode.results.study.store import StudyStore

__all__ = [
    "Axis",
    "Busy",
    "Failure",
    "Place",
    "StudyRecord",
    "StudyStore",
    "StudyTreeInfo",
    "open_study",
    "study_tree_info",
]
