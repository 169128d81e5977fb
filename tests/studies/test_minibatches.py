"""Cases on minibatches: flows over all samples and over those of each step, from file to tree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nm_ode.comparison import Cause, diagnoses, summary
from nm_ode.data import diabetes, sample_batches
from nm_ode.reporting.words import flow_sentences
from nm_ode.results import run_info, solve_info
from nm_ode.studies import load_case, run_case
from tests.oracles.linear import Quadratic
from tests.studies.conftest import reduced

FLOWS = '["gradient", { kind = "modified", order = 2, form = "hessian" }]'

SWEEP = """[sweep]
"optimizer.lr" = [0.1, 0.05, 0.025]
constraint = "lr * steps = 1"
reduce = "order"
"""

QUADRATIC = """
name = "quadratic"
loss = "mse"
flows = [{ kind = "gradient", batches = "same" }]

[model]
name = "linear"
inputs = 10
outputs = 1

[data]
name = "diabetes"
samples = 60

[optimizer]
lr = 0.02
schedule = SCHEDULE

[training]
steps = 9
batch_size = 20
"""


def test_minibatches_beside_both_kinds_of_flow(edited, tmp_path: Path) -> None:
    path = edited(
        (
            FLOWS,
            '[{ kind = "gradient", batches = "full" }, { kind = "modified", order = 3, batches = "same" }, '
            '{ kind = "modified", order = 3, batches = "full" }]',
        ),
        ("lr = 0.1", "lr = 0.05"),
        ("save_every = 5", "batch_size = 20"),
    )
    tree = run_case(load_case(path), path, tmp_path / "out").tree
    rows = {row.name: row for row in summary(tree)}
    same, full = rows["same_batch_modified_3_iterated_map"], rows["full_batch_modified_3_iterated_map"]
    assert same.error < 0.1 * full.error
    assert rows["full_batch_gradient"].title == "full-batch gradient flow"
    assert same.method == "RK8"
    assert not same.solver_limited


@pytest.mark.parametrize(
    "schedule",
    [
        '{ name = "drop", at = [3, 5], factor = 0.25 }',
        '{ name = "warmup", steps = 4 }',
        '{ name = "cosine", final = 0.1, warmup = 2 }',
    ],
)
def test_a_same_batch_flow_keeps_the_times_of_a_schedule(tmp_path: Path, schedule: str) -> None:
    path = tmp_path / "quadratic.toml"
    path.write_text(QUADRATIC.replace("SCHEDULE", schedule))
    outcome = run_case(load_case(path), path, tmp_path / "out")
    assert outcome.failures == ()
    flow = outcome.tree["flows/same_batch_gradient"].dataset
    lrs = run_info(outcome.tree["discrete"].dataset).grid.lr
    assert len(set(lrs.tolist())) > 1
    # Batch after batch for as long as its step takes, each in closed form.
    data, theta = diabetes(60), flow["theta"].values[0]
    for k, (lr, batch) in enumerate(zip(lrs, sample_batches(60, 20, 0), strict=False)):
        oracle = Quadratic(data.x[batch].numpy(), data.y[batch].numpy())
        theta = oracle.gradient_flow(theta, float(lr))
        np.testing.assert_allclose(flow["theta"].values[k + 1], theta, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(flow["time"], np.append(0, np.cumsum(lrs)), rtol=1e-12)
    assert solve_info(flow).beside == "same_batch"


@pytest.mark.parametrize("coupled", [True, False], ids=["BatchNorm", "plain"])
def test_where_batches_miss_the_gradient_the_store_the_table_and_the_orders_say_so(
    edited, tmp_path: Path, coupled: bool
) -> None:
    path = edited(
        (FLOWS, '[{ kind = "gradient", batches = "full" }]'),
        ("widths = [64, 4, 10]", "widths = [64, 4, 10]" + coupled * '\nnorm = "batch"'),
        (
            "save_every = 5",
            "batch_size = 5\n\n" + SWEEP,
        ),
    )
    trees, made = reduced(path, tmp_path / "out")
    (row,) = summary(trees["lr=0.1"])
    (found,) = diagnoses(made["convergence"])
    warned = [said.text for said in flow_sentences([row]) if said.warns and "neither the mean" in said.text]
    assert len(warned) == coupled
    assert (row.batch_bias is not None) == coupled
    assert found.causes == ((Cause.BATCH_LOSS,) if coupled else ()) + (Cause.BATCH_NOISE,)
    if coupled:
        assert row.batch_bias > 2 * row.batch_bias_error
        assert found.evidence.batch_bias == pytest.approx(row.batch_bias)
