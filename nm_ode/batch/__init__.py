"""Many cases and members of studies, run in this process or by the workers of a Dask cluster."""

from nm_ode.batch.machine import Workers, workers_for
from nm_ode.batch.plan import Plan, new_batch, plan_case, plan_sweep
from nm_ode.batch.run import run_batch
from nm_ode.batch.standing import Standing
from nm_ode.batch.tasks import BatchError, MemberOutcome, MemberTask

__all__ = [
    "BatchError",
    "MemberOutcome",
    "MemberTask",
    "Plan",
    "Standing",
    "Workers",
    "new_batch",
    "plan_case",
    "plan_sweep",
    "run_batch",
    "workers_for",
]
