"""`nm-ode run` of a sweep that is reduced to orders: what it prints is what the study's store has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nm_ode

CASE = """
name = "orders"
loss = "mse"
flows = ["gradient"]
model = { name = "mlp", widths = [10, 2, 1] }
data = { name = "diabetes", samples = 20 }
solver = { rtol = 1e-8 }
stability = { points = 2 }
[sweep]
"optimizer.lr" = [0.2, 0.1]
constraint = "lr * steps = 0.8"
reduce = ["order"]
"""


def test_orders_are_printed_as_they_are_in_the_store(tmp_path: Path, call, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nm_ode.batch.plan.MANY_PAGES", 0)  # the study's page alone
    Path("orders.toml").write_text(CASE)
    result = call("run", "orders.toml", "--workers", "0")
    assert result.exit_code == 0, result.output
    assert "2 of 2 members whole" in result.stdout
    found = nm_ode.open_study("results/orders/study.zarr")["convergence"].dataset.sel(flow="gradient")
    order, errors = float(found["observed_order"]), found["error"].sel(lr=[0.2, 0.1]).values
    assert order == pytest.approx(np.log2(errors[0] / errors[1]))  # two points: the line through them
    assert order == pytest.approx(1, abs=0.3)
    printed = next(line.split() for line in result.stdout.splitlines() if line.endswith(" 2/2"))
    assert printed == ["gradient", f"{order:.2f}", "1", *(f"{one:.1e}" for one in errors), "2/2"]
