"""Which engines may solve a flow whose field jumps from step to step."""

from __future__ import annotations

from pathlib import Path

from bridges import get_engine
from nm_ode.studies.errors import CaseError
from nm_ode.studies.schema import Case


def require_stops_at_jumps(case: Case, path: Path) -> None:
    """Raises CaseError if a same-batch flow would be solved by a method that steps across the jumps of its field.

    Engines that check the first take their own method, which chooses its own steps.
    """
    solver = case.solver
    for i, flow in enumerate(case.flows):
        if flow.batches == "same" and not all(
            _stops(case, name, k == 0) for k, name in enumerate(solver.engines)
        ):
            raise CaseError(
                f"{path}: flows[{i}]: batches = 'same' makes the field jump each step, and engine = "
                f"'{', '.join(solver.engines)}' would step across: use engine = 'auto'"
            )


def _stops(case: Case, name: str, is_first: bool) -> bool:
    if name == "auto":
        return True
    if not is_first:
        return False
    fixed = get_engine(name).fixed_step_methods
    return case.solver.step is not None and bool(fixed) and case.solver.method in (None, *fixed)
