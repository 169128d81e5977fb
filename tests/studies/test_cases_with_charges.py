"""Cases that name a network of the zoo, a schedule, symmetries: what they become, and what does not go together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from nm_ode.comparison import symmetry_summary
from nm_ode.results import symmetries_info
from nm_ode.studies import CaseError, build_study, load_case, run_case, shipped_cases
from nm_ode.symmetries import find_symmetries
from tests.studies.test_whole_way import SMALL

MODELS = {
    "cnn": ('name = "cnn"\nclasses = 10\nwidths = [3, 4]', {"rescale conv1 → conv2": 3}),
    "vgg": (
        'name = "vgg"\nclasses = 10\nplan = [3, "M", 4]\nhidden = [5]',
        {"rescale features.0 → features.3": 3},
    ),
    "resnet18": ('name = "resnet18"\nclasses = 10\nwidth = 0.125', {"scale conv": 8}),
    "vit": ('name = "vit"\nclasses = 10\ndim = 8\nheads = 2\ndepth = 1', {"rescale norm → head": 8}),
    "mlp": ('name = "mlp"\nwidths = [64, 5, 10]\nactivation = "relu"\nnorm = "layer"', {"scale linear1": 1}),
}
MODEL = 'name = "mlp"\nwidths = [64, 6, 10]\nactivation = "relu"\nnorm = "batch"'


@pytest.mark.parametrize("name", MODELS)
def test_every_network_can_be_named(name, charges_case):
    text, expected = MODELS[name]
    path = charges_case((MODEL, text))
    problem = build_study(load_case(path), path).problem
    assert problem.x.shape[1:] == ((64,) if name == "mlp" else (1, 8, 8))
    table = {s.name: s.count for s in find_symmetries(problem.model, problem.x[:4])}
    assert expected.items() <= table.items()


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> xr.DataTree:
    from tests.studies.conftest import CHARGES

    folder = tmp_path_factory.mktemp("charges")
    path = folder / "charges.toml"
    path.write_text(CHARGES)
    outcome = run_case(load_case(path), path, folder / "out")
    assert outcome.failures == ()
    return outcome.tree


def test_the_tree_has_symmetries_charges_and_laws(tree):
    assert {node.path for node in tree.subtree} >= {
        "/symmetries",
        "/laws/exact",
        "/laws/exact_epsilon",
        "/laws/second_order",
        "/comparison/exact",
        "/comparison/exact_epsilon",
        "/comparison/second_order",
    }
    table = tree["symmetries"].dataset
    assert dict(zip(table["symmetry"].values.tolist(), table["n_charges"].values.tolist(), strict=True)) == {
        "translation linear1": 6,
        "translation linear2": 7,
        "scale linear1": 6,
        "rescale norm1 → linear2": 6,
    }
    run = tree["discrete"].dataset
    assert run["charge"].shape == (30, 25)
    assert run["charge"].dims == ("step", "charge_index")
    assert run["lr"].values.tolist() == [0.05] * 15 + [0.025] * 15
    for node in tree.subtree:
        for name, variable in node.dataset.variables.items():
            assert {"units", "long_name"} <= set(variable.attrs), f"{node.path}/{name}"


def test_laws_close_as_far_as_they_claim(tree):
    rows = {row.name: row for row in symmetry_summary(tree)}
    scale = rows["scale linear1"]
    assert scale.laws["exact_epsilon"].worst < 1e-11
    assert 1e-9 < scale.laws["exact"].together < 0.1  # what ε adds
    assert 1e-9 < scale.recorded_residual < 1e-2
    rescale = rows["rescale norm1 → linear2"]
    assert rescale.laws["exact"].worst < 1e-11
    assert rescale.laws["second_order"].together < 0.05
    assert rescale.recorded_residual < 1e-13
    assert rows["translation linear2"].laws["second_order"].together < 1e-3


def test_symmetries_may_be_chosen_by_kind_and_laws_by_name(charges_case, tmp_path: Path):
    path = charges_case(
        ("[symmetries]", '[symmetries]\nkinds = ["rescale"]\nlaws = ["first_order"]'),
        ("momentum = 0.9\n", ""),
    )
    tree = run_case(load_case(path), path, tmp_path / "out").tree
    assert set(np.unique(tree["discrete"].dataset["kind"].values)) == {"rescale"}
    assert set(tree["laws"].children) == {"first_order"}
    assert len(tree["symmetries"].dataset["symmetry"]) == 4  # all are verified, whatever is recorded
    missing = next(row for row in symmetry_summary(tree) if row.kind == "scale")
    assert np.isnan(missing.laws["first_order"].together)


def test_symmetries_may_be_chosen_by_layer(charges_case, tmp_path: Path):
    path = charges_case(("[symmetries]", '[symmetries]\nlayers = ["linear2"]'))
    tree = run_case(load_case(path), path, tmp_path / "out").tree
    assert set(tree["discrete"]["charge_symmetry"].values) == {"translation linear2"}
    assert len(tree["symmetries"]["symmetry"]) > 1


def test_layers_that_have_no_symmetry_by_themselves_are_told(charges_case, tmp_path: Path):
    path = charges_case(
        ("[symmetries]", '[symmetries]\nlayers = ["linear2"]\nkinds = ["scale"]'),
    )
    with pytest.raises(
        CaseError, match=r"symmetries: layers: linear2 were given, .* \(there are translation"
    ):
        run_case(load_case(path), path, tmp_path / "out")


def test_charges_are_recorded_along_flows_too(charges_case, tmp_path: Path):
    path = charges_case(
        ("momentum = 0.9\n", ""),
        ("batch_size = 20\n", ""),
        ('norm = "batch"\n', ""),
        ('activation = "relu"', 'activation = "identity"'),
        ('loss = "cross_entropy"\n', 'loss = "cross_entropy"\nflows = ["gradient"]\n'),
    )
    tree = run_case(load_case(path), path, tmp_path / "out").tree
    flow, comparison = tree["flows/gradient"].dataset, tree["comparison/gradient"].dataset
    matrix = flow["kind"].values == "matrix"
    # Gradient flow with weight decay: every quadratic charge decays with e^{−2λt}.
    expected = flow["charge"].values[0, matrix] * np.exp(-2e-3 * flow["time"].values[:, None])
    np.testing.assert_allclose(flow["charge"].values[:, matrix], expected, rtol=1e-4, atol=1e-7)
    assert {"charge_relative_error", "error"} <= set(comparison)


def test_no_law_is_claimed_from_a_warm_start(charges_case, tmp_path: Path):
    path = charges_case(("save_every = 10", "save_every = 10\nwarm_steps = 5"))
    outcome = run_case(load_case(path), path, tmp_path / "out")
    assert outcome.failures == ()
    assert "charge" in outcome.tree["discrete"].dataset
    assert "laws" not in outcome.tree.children
    named = charges_case(
        ("save_every = 10", "save_every = 10\nwarm_steps = 5"),
        ("[symmetries]", '[symmetries]\nlaws = ["exact"]'),
    )
    with pytest.raises(CaseError, match=r"symmetries.laws\[0\]: 'exact' was given; .* at rest"):
        build_study(load_case(named), named)


STRAIGHT = """
import torch
from torch import nn

class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, grad):
        return grad

class Signs(nn.Module):
    def forward(self, x):
        return Sign.apply(x)

def build(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 6), Signs(), nn.Linear(6, 10)).double()
"""


def test_no_law_is_claimed_where_the_gradient_is_not_the_loss_s(charges_case, tmp_path: Path):
    (tmp_path / "own.py").write_text(STRAIGHT)
    path = charges_case((MODEL, f'python = "{tmp_path / "own.py"}:build"'))
    outcome = run_case(load_case(path), path, tmp_path / "out")
    assert outcome.failures == ()
    assert (
        "charge" in outcome.tree["discrete"].dataset
    )  # the last layer's translation, which such training has too
    assert "laws" not in outcome.tree.children
    assert any(
        "Sign" in remark for remark in symmetries_info(outcome.tree["symmetries"].to_dataset()).remarks
    )
    named = charges_case(
        (MODEL, f'python = "{tmp_path / "own.py"}:build"'),
        ("[symmetries]", '[symmetries]\nlaws = ["exact"]'),
    )
    with pytest.raises(CaseError, match=r"symmetries.laws: .*Sign.*leave laws out"):
        build_study(load_case(named), named)


def test_a_model_without_symmetries_is_no_mistake(charges_case, tmp_path: Path):
    path = charges_case(
        (MODEL, 'name = "linear"\ninputs = 10\noutputs = 1'),
        ('name = "digits"\nsamples = 60', 'name = "diabetes"\nsamples = 60'),
        ("cross_entropy", "mse"),
    )
    outcome = run_case(load_case(path), path, tmp_path / "out")
    assert outcome.failures == ()
    assert symmetry_summary(outcome.tree) == []
    assert "charge" not in outcome.tree["discrete"].dataset


MISTAKES = [
    (
        [("[symmetries]", '[symmetries]\nlaws = ["first_order"]')],
        r"symmetries.laws\[0\]: 'first_order' was given; .* is for momentum = 0.* 0.9: use the second-order law",
    ),
    (
        [("[symmetries]", '[symmetries]\nkinds = ["rotation"]')],
        r"symmetries.kinds\[0\]: 'rotation' was given",
    ),
    (
        [
            ("momentum = 0.9\n", ""),
            (
                'loss = "cross_entropy"\n',
                'loss = "cross_entropy"\nflows = [{ kind = "modified", batches = "full" }]\n',
            ),
        ],
        r"flows\[0\]: modified flow, .* is that of a constant lr, and optimizer.schedule changes it",
    ),
    (
        [("at = [15]", "at = [15, 5]")],
        r"optimizer.schedule: a drop's steps must be positive and increase; \[15, 5\] was given",
    ),
    (
        [('name = "drop"', 'name = "dropp"')],
        r"optimizer.schedule.name: 'dropp' was given; did you mean 'drop'",
    ),
    ([('norm = "batch"', 'norm = "bach"')], r"model.norm: 'bach' was given; did you mean 'batch'"),
    ([(MODEL, 'name = "vgg"\nclasses = 10')], r"model: give depth or plan"),
    (
        [(MODEL, 'name = "vgg"\nclasses = 10\nplan = [4, "N"]')],
        r"model.plan\[1\]: 'N' was given; it must be a whole number, at least 1, .* or 'M'",
    ),
]


@pytest.mark.parametrize(("edits", "sentence"), MISTAKES, ids=[sentence for _, sentence in MISTAKES])
def test_mistakes_are_named(edits, sentence, charges_case):
    path = charges_case(*edits)
    with pytest.raises(CaseError, match=sentence) as caught:
        build_study(load_case(path), path)
    assert len(str(caught.value).splitlines()) == 1


MISFITS = [
    (
        [("[symmetries]", '[symmetries]\nlayers = ["linear3"]')],
        r"symmetries.layers\[0\]: 'linear3' was given; did you mean 'linear",
    ),
    ([(MODEL, 'name = "vgg"\nclasses = 10\ndepth = 16')], r"model: image = 8 is too small: 5 poolings"),
    ([(MODEL, 'name = "vit"\nclasses = 10\npatch = 3')], r"model: patch must divide image"),
    (
        [(MODEL, 'name = "cnn"\nclasses = 7')],
        r"model.classes: 7 was given; the labels of data 'digits' run from 0",
    ),
    (
        [
            (MODEL, 'name = "cnn"\nclasses = 1'),
            ('name = "digits"', 'name = "diabetes"'),
            ("cross_entropy", "mse"),
        ],
        r"data: inputs of shape \(10,\) are no square images",
    ),
]


@pytest.mark.parametrize(("edits", "sentence"), MISFITS, ids=[sentence for _, sentence in MISFITS])
def test_what_does_not_fit_together_is_named(edits, sentence, charges_case):
    path = charges_case(*edits)
    with pytest.raises(CaseError, match=sentence):
        build_study(load_case(path), path)


def _closes_here(case: Path) -> bool:
    """Those of test_whole_way run there, from the file to the page."""
    text = case.read_text()
    return "[symmetries]" in text and "[smoke]" not in text and case.stem not in SMALL


@pytest.mark.parametrize(
    "path",
    [p for p in shipped_cases() if _closes_here(p)],
    ids=lambda p: p.stem,
)
def test_shipped_cases_close(path: Path, tmp_path: Path):
    short = tmp_path / path.name
    text = path.read_text()
    steps = next(line for line in text.splitlines() if line.startswith("steps"))
    short.write_text(
        text.replace(steps, "steps = 40")
        .replace("at = [700]", "at = [20]")
        .replace("warmup = 50", "warmup = 5")
    )
    outcome = run_case(load_case(short), short, tmp_path / "out")
    assert outcome.failures == ()
    rows = symmetry_summary(outcome.tree)
    assert {row.kind for row in rows} >= {"translation", "rescale"}
    exact = "exact_epsilon" if "exact_epsilon" in outcome.tree["laws"].children else "exact"
    for row in rows:
        # – relative to a motion of 40 steps, in which a translation moves by its decay alone
        assert not row.laws[exact].worst > 1e-8, row.name
        assert row.unexplained_residual < 1e-10
        assert row.hessian_residual < 1e-10
