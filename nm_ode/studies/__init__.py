"""Case studies: what a TOML file says, and running it into a store."""

from nm_ode.results.store import StoreError, open_store
from nm_ode.studies.case import Case, CaseError, find_case, load_case, shipped_cases
from nm_ode.studies.runner import Outcome, run_case

__all__ = [
    "Case",
    "CaseError",
    "Outcome",
    "StoreError",
    "find_case",
    "load_case",
    "open_store",
    "run_case",
    "shipped_cases",
]
