"""Case studies: what a TOML file says, and running it into a store."""

from nm_ode.results import StoreError, open_store
from nm_ode.studies.build import Study, build_study
from nm_ode.studies.errors import CaseError
from nm_ode.studies.find import find_case, shipped_cases
from nm_ode.studies.load import load_case, load_sweep
from nm_ode.studies.own_code import code_files
from nm_ode.studies.reductions import REDUCTIONS
from nm_ode.studies.run import Outcome, Written, run_case, run_case_into
from nm_ode.studies.schema import Case
from nm_ode.studies.sweep.expand import Member, Sweep, expand

__all__ = [
    "REDUCTIONS",
    "Case",
    "CaseError",
    "Member",
    "Outcome",
    "StoreError",
    "Study",
    "Sweep",
    "Written",
    "build_study",
    "code_files",
    "expand",
    "find_case",
    "load_case",
    "load_sweep",
    "open_store",
    "run_case",
    "run_case_into",
    "shipped_cases",
]
