"""What data may hold: numbers of any layout and library become tensors, all else is named with its place."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode
from nm_ode import NmOdeError, Problem, ProblemError, TrainingDiverged
from nm_ode.data import DataError, DatasetSource, TensorSource

X = np.linspace(-1, 1, 24).reshape(12, 2)
Y = X[:, :1] ** 2
CLASSES = np.arange(12) % 2
MODEL = nn.Linear(2, 2)

SAME: dict[str, Any] = {
    "float32": lambda x: x.astype(np.float32).astype(np.float64),
    "longdouble": lambda x: x.astype(np.longdouble),
    "big-endian": lambda x: x.astype(">f8"),
    "Fortran order": np.asfortranarray,
    "reversed twice": lambda x: x[::-1].copy()[::-1],
    "read-only": lambda x: np.broadcast_to(x, x.shape),
    "nothing masked": np.ma.array,
    "data frame": pd.DataFrame,
    "xarray": xr.DataArray,
    "lists": lambda x: x.tolist(),
    "with a graph": lambda x: torch.from_numpy(x).requires_grad_() * 1,
}


@pytest.mark.parametrize("kind", SAME)
def test_the_same_numbers_in_another_form_give_the_same_loss(kind: str) -> None:
    expected = Problem(nn.Linear(2, 1).requires_grad_(), F.mse_loss, (X, Y))
    theta = expected.theta0
    problem = Problem(nn.Linear(2, 1), F.mse_loss, (SAME[kind](X), Y))
    assert problem.grad(theta) == pytest.approx(expected.grad(theta), rel=1e-6)
    assert torch.equal(problem.hvp(theta, theta), problem.hvp(theta, theta))  # no graph is left over


NO_DATA: list[tuple[Any, str]] = [
    (X.astype(object), "Python objects"),
    (np.array(["a"] * 12), "text"),
    (np.array(["2020-01-01"] * 12, dtype="datetime64[D]"), "dates"),
    (np.ones(12, dtype="timedelta64[s]"), "durations"),
    (np.ones(12, dtype=[("a", float), ("b", float)]), "records"),
    (np.ma.masked_less(X, 0), "12 masked values"),
    (torch.from_numpy(X).to_sparse(), "sparse"),
    (torch.from_numpy(X).to("meta"), "meta"),
    (X[:, :0], "no numbers in it"),
    (np.float64(3.0), "single number"),
    (CLASSES.astype(np.uint64) + 2**63, "2\\^63"),
    (pd.DataFrame({"a": ["x"] * 12}), "(objects|text)"),
]


@pytest.mark.parametrize(("leaf", "reason"), NO_DATA, ids=lambda p: p if isinstance(p, str) else "")
def test_what_is_no_data_is_named_with_its_place(leaf: Any, reason: str) -> None:
    with pytest.raises(DataError, match=rf"data\['x'\].*{reason}"):
        TensorSource({"y": Y, "x": leaf})


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int32, np.bool_])
def test_labels_of_any_integer_are_classes(dtype: Any) -> None:
    problem, expected = (Problem(MODEL, F.cross_entropy, (X, y)) for y in (CLASSES.astype(dtype), CLASSES))
    assert torch.equal(problem.grad(expected.theta0), expected.grad(expected.theta0))


IGNORING = functools.partial(F.cross_entropy, ignore_index=7)


@pytest.mark.parametrize(
    ("loss", "labels", "wrong"),
    [
        (F.cross_entropy, [*CLASSES[:-1], 2], "1 labels of no class, such as 2"),
        (nn.CrossEntropyLoss(), [-1, *CLASSES[1:]], "such as -1"),
        (F.nll_loss, [*CLASSES[:-1], 9], "such as 9"),
        (IGNORING, [*CLASSES[:-1], 8], "such as 8"),
    ],
)
def test_a_label_of_no_class_is_named(loss: Any, labels: Any, wrong: str) -> None:
    with pytest.raises(DataError, match=wrong):
        Problem(MODEL, loss, (X, np.array(labels)))


def test_a_label_of_no_class_beyond_the_first_samples_is_named() -> None:
    x, y = torch.randn(200, 2), torch.zeros(200, dtype=torch.int64)
    y[150] = 5
    with pytest.raises(DataError, match="such as 5"):
        Problem(MODEL, F.cross_entropy, (x, y))
    late = DatasetSource(list(zip(x, y, strict=True)))
    problem = Problem(MODEL, F.cross_entropy, late, chunk_size=200)
    with pytest.raises(ProblemError, match="labels must be"):
        problem.loss(problem.theta0)


def test_labels_that_are_left_out_are_welcome() -> None:
    for loss, ignored in ((F.cross_entropy, -100), (IGNORING, 7), (nn.CrossEntropyLoss(ignore_index=-1), -1)):
        y = CLASSES.copy()
        y[3] = ignored
        kept = np.arange(12) != 3
        one, other = Problem(MODEL, loss, (X, y)), Problem(MODEL, F.cross_entropy, (X[kept], CLASSES[kept]))
        assert float(one.loss(one.theta0)) == pytest.approx(float(other.loss(other.theta0)), rel=1e-12)


def test_labels_that_are_no_integers_or_of_another_shape_are_named() -> None:
    with pytest.raises(ProblemError, match="integer labels"):
        Problem(MODEL, F.cross_entropy, (X, CLASSES.astype(float)))
    with pytest.raises(ProblemError, match=r"labels of shape .12, 1."):
        Problem(MODEL, F.cross_entropy, (X, CLASSES[:, None]))


def with_nan(array: np.ndarray, *places: tuple[int, int]) -> np.ndarray:
    made = array.copy()
    for place in places:
        made[place] = np.nan
    return made


def test_values_that_are_not_finite_are_counted_with_their_array() -> None:
    with pytest.raises(
        DataError, match=r"data\[0\] has 2 values that are NaN .of 24., in 2 of 12 samples .1, 5"
    ):
        Problem(nn.Linear(2, 1), F.mse_loss, (with_nan(X, (1, 0), (5, 1)), Y))
    with pytest.raises(DataError, match=r"data\[1\] has 1 value that is NaN"):
        Problem(nn.Linear(2, 1), F.mse_loss, (X, with_nan(Y, (11, 0))))
    model = nn.Linear(2, 1)
    model.bias.data.fill_(torch.inf)
    with pytest.raises(ProblemError, match="'bias' has 1 value that is infinite"):
        Problem(model, F.mse_loss, (X, Y))


def test_values_that_are_not_finite_and_not_read_are_welcome() -> None:
    def of_known(out: Tensor, y: Tensor) -> Tensor:
        return torch.where(y.isnan(), 0.0, (out - y.nan_to_num()).square()).mean()

    assert Problem(nn.Linear(2, 1), of_known, (X, with_nan(Y, (3, 0)))).layout.size == 3

    def attending(model: Any, batch: Any) -> Tensor:
        return ((batch["mask"] + model(batch["x"])).softmax(-1) * batch["x"]).sum()

    mask = np.where(CLASSES[:, None] == 0, [0, -np.inf], [0.0, 0.0])
    problem = Problem.from_objective(MODEL, attending, {"x": X, "mask": mask})
    assert problem.grad(problem.theta0).isfinite().all()


class Complex(nn.Module):
    """A real linear layer between complex constants."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.register_buffer("phase", torch.tensor([1 + 2j, 3 - 1j]))

    def forward(self, x: Tensor) -> Tensor:
        return (self.inner(x) * self.phase).abs()


def test_complex_buffers_and_data_keep_their_imaginary_part() -> None:
    model = Complex()
    problem = Problem(model, F.mse_loss, (X, X))
    by_hand = (model.inner.double()(torch.from_numpy(X)) * model.phase).abs()
    expected = F.mse_loss(by_hand, torch.from_numpy(X))
    assert float(problem.loss(problem.theta0)) == pytest.approx(float(expected.detach()), rel=1e-12)

    def of_complex(model: Any, z: Tensor) -> Tensor:
        return model(torch.view_as_real(z)).square().mean()

    z = torch.complex(*torch.from_numpy(X).float().unbind(1))
    one = Problem.from_objective(nn.Linear(2, 1), of_complex, z)
    assert one.batch().dtype == torch.complex128
    with pytest.raises(ProblemError, match="complex numbers"):
        Problem(MODEL, F.mse_loss, (X + 1j, X))


def test_complex_parameters_are_refused() -> None:
    with pytest.raises(ProblemError, match="'weight' is complex"):
        Problem(nn.Linear(2, 1, dtype=torch.complex64), F.mse_loss, (X, Y))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_coarse_parameters_are_converted(dtype: torch.dtype) -> None:
    model = nn.Linear(2, 1).to(dtype)
    problem = Problem(model, F.mse_loss, (X, Y))
    flat = torch.cat([p.detach().double().flatten() for p in model.parameters()])
    assert torch.equal(problem.theta0, flat)


@pytest.mark.parametrize("data", ["data.npz", X, (X,), (X, Y, Y), {"x": X, "y": Y}, None, 3, object()])
def test_what_is_no_pair_is_told_what_to_give(data: Any) -> None:
    with pytest.raises(NmOdeError, match="data"):
        Problem(nn.Linear(2, 1), F.mse_loss, data)


class Output(nn.Linear):
    """Gives something other than a tensor."""

    def __init__(self, wrap: Any) -> None:
        super().__init__(2, 1)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(super().forward(x))


@pytest.mark.parametrize(
    ("wrap", "what"), [(lambda o: (o,), "tuple"), (lambda o: None, "NoneType"), (lambda o: {"o": o}, "dict")]
)
def test_a_model_that_returns_no_tensor_is_told_to_take_an_objective(wrap: Any, what: str) -> None:
    with pytest.raises(ProblemError, match=f"returns {what}.*from_objective"):
        Problem(Output(wrap), F.mse_loss, (X, Y))


def test_what_fails_in_a_loss_is_told_when_the_problem_is_made() -> None:
    def imports(out: Tensor, y: Tensor) -> Tensor:
        import a_module_that_is_not_there  # type: ignore[import-not-found]  # noqa: F401

        return F.mse_loss(out, y)

    cases: list[tuple[Any, str]] = [
        (imports, "a_module_that_is_not_there.*installed"),
        (lambda out: out.mean(), "TypeError"),
        (lambda out, y: out.nothing, "AttributeError"),
        (lambda out, y: F.mse_loss(out, y).detach(), "does not depend"),
        (lambda out, y: F.mse_loss(out, y).long(), "int64"),
        (lambda out, y: (F.mse_loss(out, y), 1), "returns tuple"),
        (lambda out, y: None, "returns NoneType"),
        (nn.MSELoss, "class MSELoss"),
    ]
    for loss, reason in cases:
        with pytest.raises(ProblemError, match=reason):
            Problem(nn.Linear(2, 1), loss, (X, Y))
    with pytest.raises(ProblemError, match="class Linear"):
        Problem(nn.Linear, F.mse_loss, (X, Y))  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_scripted_modules_are_refused_by_name() -> None:
    with pytest.raises(ProblemError, match=r"module '0' is scripted"):
        Problem(nn.Sequential(torch.jit.script(nn.Linear(2, 1))), F.mse_loss, (X, Y))


class Gap(torch.utils.data.Dataset[Any]):
    """One sample, not among the first 64, has no value."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, i: int) -> Any:
        return torch.full((2,), torch.nan if i == 90 else 1.0), torch.ones(1)


def test_a_loss_that_is_not_finite_for_its_data_is_not_blamed_on_the_learning_rate() -> None:
    problem = Problem(nn.Linear(2, 1), F.mse_loss, Gap(), chunk_size=100)
    with pytest.raises(TrainingDiverged, match=r"step 0: its batch\[0\] has 2 values that are NaN"):
        nm_ode.train(problem, nm_ode.SGD(lr=0.01), steps=3)


def test_a_start_at_which_the_loss_is_not_finite_is_not_blamed_on_the_learning_rate() -> None:
    problem = Problem(nn.Linear(2, 1), lambda out, y: F.mse_loss(out.exp(), y), (X, Y))
    with pytest.raises(TrainingDiverged, match="before any update"):
        nm_ode.train(problem, nm_ode.SGD(lr=0.01), steps=3, theta0=problem.theta0 + 1e4)
