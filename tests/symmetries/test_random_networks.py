"""Whatever operations meet in a network, what the rules find holds: judged by the model itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nm_ode.symmetries import find_symmetries, scan_symmetries
from nm_ode.symmetries.symmetry import Part, Symmetry, whole
from tests.random_graphs import soundness
from tests.random_graphs.drawing import Drawer
from tests.random_graphs.losses import draw
from tests.random_graphs.minimise import minimised
from tests.random_graphs.program import Program
from tests.random_graphs.soundness import judged


@pytest.mark.filterwarnings("ignore")  # of torch, about what a user would not write
@pytest.mark.parametrize("seed", [3, 16, 21, 24, 36])  # more: python -m tests.random_graphs
def test_finite_transformations_leave_random_networks_losses_as_they_are(seed):
    seen = judged(draw(seed), seed=seed)
    assert seen.unsound == ()
    assert seen.decided


def _two_layers() -> Program:
    drawer = Drawer(0)
    a, b, c = (drawer.parameter(*shape) for shape in ((4, 4), (4,), (3, 4)))
    hidden = drawer.emit(f"torch.relu(F.linear(x, {a}, {b}))")
    doubled = drawer.emit(f"{hidden} * 2.0")
    out = drawer.emit(f"F.linear({doubled}, {c})")
    drawer.emit(f"F.mse_loss({out}, y)", scalar=True)
    return drawer.program()


def test_what_does_not_hold_is_seen_and_its_network_made_smaller(monkeypatch):
    # A rule that forgets the bias, and one that says that all weights may be shifted.
    program = _two_layers()
    places = torch.arange(4)
    rescale = Symmetry(
        "rescale",
        "rescale",
        4,
        (Part(whole("p0", (4, 4)), (0,), places, 1.0), Part(whole("p2", (3, 4)), (1,), places, -1.0)),
        {"p0": (4, 4), "p2": (3, 4)},
    )
    shift = Symmetry(
        "translation", "translation", 4, (Part(whole("p1", (4,)), (0,), places, 1.0),), {"p1": (4,)}
    )
    monkeypatch.setattr(soundness, "discover", lambda graph: ((rescale, shift), ()))
    assert [one.name for one in judged(program).unsound] == ["rescale", "translation"]
    small = minimised(program, lambda candidate: bool(judged(candidate).unsound))
    assert len(small.lines) == len(program.lines) - 1
    assert "* 2.0" not in small.source()


def test_a_rule_that_is_right_is_borne_out():
    seen = judged(_two_layers())
    assert [(s.kind, s.count) for s in seen.symmetries] == [("rescale", 4)]
    assert seen.unsound == ()


def test_a_shift_passes_a_linear_layer_before_batch_norm(normal):
    # BatchNorm takes away whatever is the same for all samples, W·(a shift) too.
    model = nn.Sequential(
        nn.Linear(6, 4), nn.Linear(4, 5), nn.BatchNorm1d(5, affine=False), nn.Tanh(), nn.Linear(5, 3)
    )
    found = find_symmetries(model, normal(8, 6))
    assert {s.name: s.count for s in found.of_kind("translation")} == {
        "translation 0": 4,
        "translation 1": 5,
        "translation 4": 5 + 1,
    }
    assert scan_symmetries(model, normal(8, 6)).unexplained == ()
