"""Case files: what is right is read, what is wrong is answered with file, key, value and what is allowed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nm_ode.studies import CaseError, Study, build_study, find_case, load_case, shipped_cases


def built(path: Path) -> Study:
    """What is done with a case before anything is computed."""
    return build_study(load_case(path), path)


def test_every_shipped_case_loads_and_is_called_like_its_file() -> None:
    assert {path.stem for path in shipped_cases()} >= {
        "digits_mlp",
        "diabetes_linear",
        "orders_tanh",
        "orders_relu",
        "orders_heavy_ball",
        "orders_adam",
        "edge_of_stability",
    }
    for path in shipped_cases():
        case = load_case(path)
        assert case.name == path.stem
        if case.device == "cpu":  # others need data and a GPU, and have smoke runs
            build_study(case, path)


def test_a_case_is_what_its_file_says(tiny_case: Path) -> None:
    case = load_case(tiny_case)
    study = build_study(case, tiny_case)
    problem, optimizer = study.problem, study.optimizer
    assert problem.layout.size == 64 * 4 + 4 + 4 * 10 + 10
    assert problem.n_samples == 40
    assert optimizer.lr == 0.1
    assert [flow.name for flow in study.flows] == ["gradient", "modified_2_hessian"]
    assert case.solver.rtol == 1e-5


@pytest.mark.parametrize("engine", [None, "scipy"])
def test_a_value_in_the_place_of_a_table_is_named(edited, engine: str | None) -> None:
    path = edited(("[solver]\nrtol = 1e-5", ""), ('name = "tiny"', 'name = "tiny"\nsolver = 3'))
    with pytest.raises(CaseError, match="solver: 3 was given; it must be a table"):
        load_case(path, engine=engine)


def test_a_seed_fixes_the_start(edited) -> None:
    starts = []
    for seed in (1, 1, 2):
        path = edited(("seed = 1", f"seed = {seed}"))
        starts.append(built(path).problem.theta0.numpy())
    np.testing.assert_array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0], starts[2])


def test_the_engine_can_be_named_from_outside(tiny_case: Path) -> None:
    assert load_case(tiny_case, engine="sundials").solver.engine == "sundials"
    assert load_case(tiny_case, engine="sundials").solver.rtol == 1e-5


MISTAKES = [
    (("lr = 0.1", "learning_rate = 0.1"), r"optimizer: unknown key 'learning_rate'.* Known: .*lr"),
    (("steps = 10", "stps = 10"), r"training: unknown key 'stps'; did you mean 'steps'\?"),
    (("seed = 1", "sed = 1"), r"unknown key 'sed'; did you mean 'seed'\?"),
    (("lr = 0.1", "lr = -0.1"), r"optimizer.lr: -0.1 was given; it must be greater than 0"),
    (("lr = 0.1", 'lr = "fast"'), r"optimizer.lr: 'fast' was given; it must be a valid number"),
    (("lr = 0.1", "lr = inf"), r"optimizer.lr: inf was given; it must be a finite number"),
    (("lr = 0.1", "lr = 0.1\nmomentum = 1.5"), r"optimizer.momentum: 1.5 was given; it must be less than 1"),
    (("lr = 0.1", "lr = 0.1\nnesterov = true"), r"optimizer: nesterov needs momentum > 0"),
    (("lr = 0.1", ""), r"optimizer.lr: is missing"),
    (("steps = 10", "steps = 0"), r"training.steps: 0 was given; it must be greater than or equal to 1"),
    (("steps = 10", "steps = 1.5"), r"training.steps: 1.5 was given; it must be a valid integer"),
    (
        ("save_every = 5", 'batch_size = "ful"'),
        r"training.batch_size: 'ful' was given; it must be 'full' or a number of samples, at least 1$",
    ),
    (
        ('name = "mlp"', 'name = "mpl"'),
        r"model.name: 'mpl' was given; did you mean 'mlp'\? Known: mlp, linear",
    ),
    (('name = "digits"', 'name = "digit"'), r"data.name: 'digit' was given; did you mean 'digits'\?"),
    (('name = "digits"', ""), r"data.name: is missing"),
    (("widths = [64, 4, 10]", "widths = [64, 0, 10]"), r"model.widths\[1\]: 0 was given"),
    (
        ("widths = [64, 4, 10]", 'widths = [64, 4, 10]\nactivation = "rellu"'),
        r"model.activation: 'rellu' was given; did you mean 'relu'\?",
    ),
    (
        ('"cross_entropy"', '"crossentropy"'),
        r"loss: 'crossentropy' was given; did you mean 'cross_entropy'\?",
    ),
    (
        ("seed = 1", 'dtype = "float16"'),
        r"dtype: 'float16' was given.*float16 and bfloat16 are too coarse for a flow",
    ),
    (('["gradient",', '["gradiant",'), r"flows\[0\]: 'gradiant' was given; did you mean 'gradient'\?"),
    (("order = 2", "order = 4"), r"flows\[1\]: the Hessian form is built for orders 2 and 3, not 4"),
    (('["gradient",', '["gradient", "gradient",'), r"flows\[1\] is there twice"),
    (
        ("lr = 0.1", "lr = 0.1\nmomentum = 0.9"),
        r"flows\[0\]: gradient flow with momentum = 0.9.*take the modified flow",
    ),
    (
        ("lr = 0.1", 'name = "adam"\nlr = 0.1'),
        r"flows\[0\]: gradient flow with Adam: it is that of SGD alone; take the modified flow",
    ),
    (
        ('["gradient",', '[{ kind = "slow_manifold", order = 3 },'),
        r"flows\[0\]: the slow-manifold flow is built for orders 1 and 2, not 3",
    ),
    (("lr = 0.1", 'name = "adamax"\nlr = 0.1'), r"optimizer.name: 'adamax' was given; did you mean 'adam'\?"),
    (
        ("lr = 0.1", 'name = "adam"\nlr = 0.1\nbetas = [0.9]'),
        r"optimizer.betas",
    ),
    (
        ("lr = 0.1", 'name = "adam"\nlr = 0.1\nbetas = [0.9, 1.0]'),
        r"optimizer.betas\[1\]: 1.0 was given; it must be less than 1",
    ),
    (("lr = 0.1", 'name = "adam"\nlr = 0.1\nmomentum = 0.9'), r"optimizer: unknown key 'momentum'"),
    (
        ("save_every = 5", "batch_size = 20"),
        r"flows\[0\]: training.batch_size = 20: say which samples .*batches = 'same' .* or batches = 'full'",
    ),
    (
        ('["gradient",', '[{ kind = "gradient", batches = "same" },'),
        r"flows\[0\]: batches = 'same' is for a run on minibatches; training.batch_size is 'full': leave it out",
    ),
    (
        ("[solver]", "[ladder]\nlr = [0.2, 0.1]\n[solver]"),
        r"ladder is written as a sweep now: \[sweep\] with \"optimizer.lr\" = \[0.2, 0.1\], constraint = "
        r"\['lr \* steps = 1'\], reduce = \[\"order\"\]",
    ),
    (("[solver]", "[stability]\npoints = 1\n[solver]"), r"stability.points: 1 was given"),
    (('name = "tiny"', 'name = "../tiny"'), r"name: '../tiny' was given; it must be a file name"),
    (("[solver]", "[solver"), r"is not valid TOML"),
]


@pytest.mark.parametrize(("edit", "sentence"), MISTAKES, ids=[edit[1] for edit, _ in MISTAKES])
def test_mistakes_in_the_file_are_named(edited, edit: tuple[str, str], sentence: str) -> None:
    path = edited(edit)
    with pytest.raises(CaseError, match=sentence) as caught:
        built(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1


MISTAKES_OF_TWO = [
    (
        [
            ("save_every = 5", "batch_size = 20"),
            ('["gradient",', '[{ kind = "gradient", batches = "same" },'),
            (', form = "hessian" }', ', batches = "full" }'),
            ("rtol = 1e-5", 'engine = "scipy"'),
        ],
        r"flows\[0\]: batches = 'same' makes the field jump each step, and engine = 'scipy' would step across",
    ),
    (
        [
            ("save_every = 5", "batch_size = 20"),
            ('["gradient",', '[{ kind = "gradient", batches = "same" },'),
            (', form = "hessian" }', ', batches = "full" }'),
            ("rtol = 1e-5", 'engine = "diffeq"\nmethod = "RK4"\nstep = 0.1'),
        ],
        r"flows\[0\]: batches = 'same' makes the field jump each step, and engine = 'diffeq' would step across",
    ),
    (
        [
            ('["gradient", { kind = "modified", order = 2, form = "hessian" }]', "[]"),
            ("lr = 0.1", 'name = "adam"\nlr = 0.1'),
            ("[solver]", '[symmetries]\nlaws = ["exact"]\n[solver]'),
        ],
        r"symmetries.laws\[0\]: 'exact' was given; the exact discrete law exists for SGD, and this run is of Adam",
    ),
]


@pytest.mark.parametrize(
    ("edits", "sentence"), MISTAKES_OF_TWO, ids=[sentence for _, sentence in MISTAKES_OF_TWO]
)
def test_what_does_not_go_together_is_named(edited, edits, sentence: str) -> None:
    with pytest.raises(CaseError, match=sentence):
        built(edited(*edits))


def test_optimisers_of_a_case(edited) -> None:
    from nm_ode import Adam, AdamW

    plain = ('["gradient", { kind = "modified", order = 2, form = "hessian" }]', "[]")
    adam = load_case(edited(plain, ("lr = 0.1", 'name = "adam"\nlr = 1e-2\nbetas = [0.8, 0.99]\neps = 1e-6')))
    assert adam.optimizer.make(folder=Path()) == Adam(1e-2, (0.8, 0.99), 1e-6)
    assert adam.optimizer.make(folder=Path(), lr=1e-3) == Adam(1e-3, (0.8, 0.99), 1e-6)
    adamw = load_case(edited(plain, ("lr = 0.1", 'name = "adamw"\nlr = 1e-2')))
    assert adamw.optimizer.make(folder=Path()) == AdamW(1e-2)


def test_every_mistake_gets_a_line(edited) -> None:
    path = edited(("lr = 0.1", "lr = -0.1"), ("steps = 10", "steps = 0"))
    with pytest.raises(CaseError) as caught:
        load_case(path)
    assert len(str(caught.value).splitlines()) == 2


MISFITS = [
    (("[64, 4, 10]", "[60, 4, 10]"), r"model.widths\[0\]: 60 was given; .* so it must be 64"),
    (
        ("[64, 4, 10]", "[64, 4, 8]"),
        r"model.widths\[-1\]: 8 was given; the labels of data 'digits' run from 0 to 9",
    ),
    (
        ('"cross_entropy"', '"mse"'),
        r"loss: 'mse' was given; data 'digits' has classes: use 'cross_entropy' or 'mse_one_hot'",
    ),
    (("samples = 40", "samples = 4000"), r"data: samples must be from 1 to 1797.*4000"),
    (
        ("rtol = 1e-5", 'engine = "sundial"'),
        r"solver.engine: 'sundial' was given; did you mean 'sundials'\?",
    ),
    (("rtol = 1e-5", 'engine = "scipy"\nmethod = "BDF"'), r"solver: engine 'scipy' has no method 'BDF'"),
    (("rtol = 1e-5", 'method = "BDF"'), r"solver: method goes with a named engine"),
    (("seed = 1", 'device = "gpu"'), r"device: 'gpu' was given; it must be 'cpu' or 'cuda'"),
    (("seed = 1", 'device = "meta"'), r"device: 'meta' was given; it must be 'cpu' or 'cuda'"),
]


@pytest.mark.parametrize(("edit", "sentence"), MISFITS, ids=[edit[1] for edit, _ in MISFITS])
def test_what_does_not_fit_together_is_named(edited, edit: tuple[str, str], sentence: str) -> None:
    path = edited(edit)
    with pytest.raises(CaseError, match=sentence) as caught:
        built(path)
    assert str(caught.value).startswith(str(path))


def test_a_batch_larger_than_the_data_is_named(edited) -> None:
    flows = '["gradient", { kind = "modified", order = 2, form = "hessian" }]'
    path = edited(("save_every = 5", "batch_size = 41"), (flows, "[]"))
    with pytest.raises(CaseError, match=r"training.batch_size: 41 was given; data 'digits' has 40 samples"):
        built(path)


def npz_case(edited, **arrays) -> Path:
    path = edited(('name = "digits"', 'name = "npz"\npath = "mine.npz"'), ("samples = 40", ""), ("64", "3"))
    if arrays:
        np.savez(path.parent / "mine.npz", **arrays)
    return path


X = np.random.default_rng(0).standard_normal((6, 3))


def test_a_users_own_arrays(edited) -> None:
    path = npz_case(edited, x=X, y=np.arange(6))
    problem = built(path).problem
    np.testing.assert_array_equal(problem.x, X)
    assert problem.y.tolist() == list(range(6))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({}, r"data: no data file .*mine.npz"),
        ({"x": X, "y": np.array([0, 1, 2, 3, 4, 10])}, r"the labels of data 'npz' run from 0 to 10"),
        ({"x": X, "y": np.array([0, 1, 2, 3, 4, -1])}, r"the labels of data 'npz' run from -1 to 4"),
        ({"x": X, "y": np.ones(6)}, r"data 'npz' has values, not classes: use 'mse'"),
        ({"x": X}, r"mine.npz has no array y"),
        ({"x": X, "y": np.arange(5)}, r"6 inputs and 5 targets"),
        ({"x": X * np.nan, "y": np.arange(6)}, r"values that are not finite"),
        ({"x": X[:, :2], "y": np.arange(6)}, r"model.widths\[0\]: 3 was given; .* so it must be 2"),
    ],
)
def test_what_is_wrong_with_a_users_arrays_is_named(edited, arrays, sentence: str) -> None:
    path = npz_case(edited, **arrays)
    with pytest.raises(CaseError, match=sentence):
        built(path)


def test_a_file_that_is_no_npz_is_named(edited) -> None:
    path = npz_case(edited)
    (path.parent / "mine.npz").write_text("no arrays here")
    with pytest.raises(CaseError, match=r"mine.npz is not a NumPy .npz file"):
        built(path)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"no case file .*nope.toml; `nm-ode cases` lists"):
        load_case(tmp_path / "nope.toml")
    with pytest.raises(CaseError, match="cannot be read"):
        load_case(tmp_path)


def test_a_bare_name_is_a_shipped_case() -> None:
    assert find_case("digits_mlp").name == "digits_mlp.toml"
    with pytest.raises(CaseError, match=r"'digits_mpl'; did you mean 'digits_mlp'\?"):
        find_case("digits_mpl")
