"""Case studies: what a TOML file says, and running it into a store."""

from nm_ode.results import StoreError, open_store
from nm_ode.studies.build import Study, build_study
from nm_ode.studies.errors import CaseError, NotHereError
from nm_ode.studies.find import find_case, shipped_cases
from nm_ode.studies.load import Loaded, load, load_case, load_sweep
from nm_ode.studies.own_code import code_files
from nm_ode.studies.reductions import REDUCTIONS
from nm_ode.studies.run import Outcome, Written, run_case, run_case_into
from nm_ode.studies.schema import Case
from nm_ode.studies.smoke import make_data
from nm_ode.studies.sweep.expand import Member, Sweep, expand

__all__ = [
    "REDUCTIONS",
    "Case",
    "CaseError",
    "Loaded",
    "Member",
    "NotHereError",
    "Outcome",
    "StoreError",
    "Study",
    "Sweep",
    "Written",
    "build_study",
    "code_files",
    "expand",
    "find_case",
    "load",
    "load_case",
    "load_sweep",
    "make_data",
    "open_store",
    "run_case",
    "run_case_into",
    "shipped_cases",
]
