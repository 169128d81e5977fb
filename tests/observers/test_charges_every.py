"""Charges at every k-th step alone: the same numbers, a k-th of the memory (for laws: test_laws_at_records.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nm_ode import (
    SGD,
    Charges,
    Checkpoint,
    GradientFlow,
    LawError,
    Problem,
    compare,
    predict_charges,
    solve,
    solve_charges,
    symmetries_of,
    train,
)
from nm_ode.charges import LAWS, Law
from nm_ode.charges.exact import exact
from nm_ode.errors import ArgumentError
from nm_ode.models import mlp
from nm_ode.reporting import write_report
from nm_ode.studies import CaseError, load_case, run_case

CASE = """
name = "some_steps"
loss = "cross_entropy"
flows = ["gradient"]

[model]
name = "mlp"
widths = [64, 6, 10]
activation = "relu"

[data]
name = "digits"
samples = 60

[optimizer]
lr = 0.05

[training]
steps = 11
save_every = 11

[symmetries]
charges_every = 4
"""


@pytest.fixture(scope="module")
def relu() -> Problem:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    return Problem(mlp([3, 4, 2], "relu", seed=1), nn.functional.mse_loss, (x, y))


def test_they_are_those_of_every_step(relu: Problem) -> None:
    found = symmetries_of(relu)
    each = train(relu, SGD(lr=0.1, momentum=0.9), 11, observe=[Charges(found)])
    some = train(relu, SGD(lr=0.1, momentum=0.9), 11, observe=[Charges(found, every=4)])
    assert some["charge_step"].values.tolist() == [0, 4, 8]
    np.testing.assert_array_equal(some["charge_time"], each["time"][::4])
    for name in ("charge", "generator_norm", "constraint_residual"):
        np.testing.assert_array_equal(some[name], each[name][::4])
    np.testing.assert_array_equal(some["saved_charge"], each["saved_charge"])
    assert "charge_driver" not in some


def test_an_engine_takes_no_law_from_them_and_flows_are_compared(relu: Problem) -> None:
    run = train(relu, SGD(lr=0.1), 11, observe=[Charges(symmetries_of(relu), every=4)])
    with pytest.raises(LawError, match="every=1"):
        solve_charges(run, "first_order")
    solution = solve(GradientFlow(relu), run, observe=[Charges(symmetries_of(relu))])
    assert np.isfinite(compare(run, solution)["charge_error"]).all()


def test_a_checkpoint_holds_them(relu: Problem, tmp_path: Path) -> None:
    observe, said = [Charges(symmetries_of(relu), every=4)], []

    def stop(step: int) -> None:
        if step == 7:
            raise KeyboardInterrupt

    keep = Checkpoint(tmp_path / "run.ckpt", 0, said.append)
    with pytest.raises(KeyboardInterrupt):
        train(relu, SGD(lr=0.1), 11, observe=observe, checkpoint=keep, on_step=stop)
    assert not said
    again = train(relu, SGD(lr=0.1), 11, observe=observe, checkpoint=keep)
    assert "step" in said[0]
    undisturbed = train(relu, SGD(lr=0.1), 11, observe=observe)
    for name in ("charge", "saved_charge", "charge_time", "exact_response", "second_order_propagator"):
        np.testing.assert_array_equal(again[name], undisturbed[name])
    np.testing.assert_allclose(predict_charges(again, "exact")["charge"], again["charge"], atol=1e-13)


@pytest.mark.parametrize("every", [0, -3, 1.5])
def test_every_is_a_count(relu: Problem, every: float) -> None:
    with pytest.raises(ArgumentError, match="every"):
        Charges(symmetries_of(relu), every=every)  # type: ignore[arg-type]


def test_a_case_of_some_steps(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_text(CASE)
    outcome = run_case(load_case(path), path, tmp_path / "out")
    assert not outcome.failures
    assert outcome.tree["discrete"]["charge"].sizes["charge_step"] == 3
    assert sorted(outcome.tree["laws"].children) == ["exact", "first_order"]
    for law in outcome.tree["laws"].children:
        comparison = outcome.tree[f"comparison/{law}"]
        assert comparison["charge_step"].values.tolist() == [0, 4, 8]
        assert (
            float(np.nanmax(comparison["symmetry_relative_error"]))
            < {"exact": 1e-11, "first_order": 0.1}[law]
        )
    assert write_report(outcome.tree, tmp_path / "report.html").exists()


def test_a_case_without_laws_sums_none(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_text(CASE + "laws = []\n")
    outcome = run_case(load_case(path), path, tmp_path / "out")
    assert not outcome.failures
    assert "laws" not in outcome.tree.children
    assert "exact_response" not in outcome.tree["discrete"]


def test_a_case_that_wants_a_law_of_every_step_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_text(CASE + 'laws = ["of_every_step"]\n')
    LAWS.register("of_every_step", Law("law of every step", exact))
    try:
        with pytest.raises(CaseError, match="charges_every"):
            load_case(path)
    finally:
        LAWS.unregister("of_every_step")
