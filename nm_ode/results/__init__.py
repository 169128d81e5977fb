"""The tree of results: what its variables are called, what each group says of itself, where it is stored."""

from nm_ode.results.beyond import BeyondLaws
from nm_ode.results.checkpoints import Checkpoint
from nm_ode.results.codec import ResultError, decode, encode, write
from nm_ode.results.frame import frame
from nm_ode.results.grid import TimeGrid
from nm_ode.results.identity import Identity, StoreError
from nm_ode.results.members import member_run
from nm_ode.results.records import (
    Beside,
    ComparisonInfo,
    EnsembleInfo,
    LadderInfo,
    LawInfo,
    StudyInfo,
    SymmetriesInfo,
    comparison_info,
    ensemble_info,
    ladder_info,
    law_info,
    layout_of,
    study_info,
    symmetries_info,
)
from nm_ode.results.run_record import RunInfo, encode_run, run_info, write_run_info
from nm_ode.results.schema import Variable, annotate, long_name, variable
from nm_ode.results.solve_record import CheckVerdict, SolveInfo, solve_info
from nm_ode.results.store import open_store
from nm_ode.results.stream import open_run
from nm_ode.results.study import open_study

__all__ = [
    "Beside",
    "BeyondLaws",
    "CheckVerdict",
    "Checkpoint",
    "ComparisonInfo",
    "EnsembleInfo",
    "Identity",
    "LadderInfo",
    "LawInfo",
    "ResultError",
    "RunInfo",
    "SolveInfo",
    "StoreError",
    "StudyInfo",
    "SymmetriesInfo",
    "TimeGrid",
    "Variable",
    "annotate",
    "comparison_info",
    "decode",
    "encode",
    "encode_run",
    "ensemble_info",
    "frame",
    "ladder_info",
    "law_info",
    "layout_of",
    "long_name",
    "member_run",
    "open_run",
    "open_store",
    "open_study",
    "run_info",
    "solve_info",
    "study_info",
    "symmetries_info",
    "variable",
    "write",
    "write_run_info",
]
