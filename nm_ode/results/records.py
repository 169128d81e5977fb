"""What each group of the tree says of itself, as typed values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import xarray as xr

from nm_ode.parameters import Layout
from nm_ode.results.codec import attributes, decode

Beside = Literal["full_batch", "same_batch"]
"""Whose samples a flow beside a run on minibatches takes: all, or in each step those of that step."""


@dataclass(frozen=True)
class EnsembleInfo:
    """An ensemble: of runs of an optimiser, or of paths of a stochastic flow.

    Attributes:
        title: of the flow, or of the optimiser.
        seed: of the noise or the batches.
        time: flow time that the members end at.
        steps, batch_size: of runs.
        lr: of the optimiser, or of the flow's.
        step: of a fixed-step method.
        noise_kind, …: of a flow's noise, as of `GradientNoise`; None for a factor of the user's own. Where it was
            measured is the dataset's `noise_theta`. It is constant in theta, and for batches drawn with replacement.
    """

    title: str
    members: int
    seed: int
    time: float
    layout: Layout
    steps: int | None = None
    batch_size: int | None = None
    flow: str | None = None
    engine: str | None = None
    method: str | None = None
    step: float | None = None
    lr: float | None = None
    noise_kind: str | None = None
    noise_batch_size: int | None = None
    noise_captured: float | None = None
    noise_estimator: str | None = None
    noise_draws: int | None = None
    noise_standard_error: float | None = None


def ensemble_info(ensemble: xr.Dataset) -> EnsembleInfo:
    """The typed record of an ensemble.

    Args:
        ensemble: from `sgd_ensemble` or `solve_ensemble`.

    Returns:
        An `EnsembleInfo`: `title`, `members`, `seed`, `time`; `steps`, `batch_size` and `lr`, or `flow`, `engine` …

    Raises:
        ResultError: the dataset is no ensemble.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> runs = nm_ode.sgd_ensemble(problem, nm_ode.SGD(lr=0.05), steps=20, batch_size=16, members=8)
        >>> info = nm_ode.ensemble_info(runs)
        >>> info.title, info.members, info.time, info.lr, info.batch_size
        ('SGD, lr = 0.05', 8, 1.0, 0.05, 16)
    """
    return decode(EnsembleInfo, attributes(ensemble))


def layout_of(dataset: xr.Dataset) -> Layout:
    """Where each parameter lies in the `theta` of a run, a solution or an ensemble.

    Raises:
        ResultError: the dataset does not say.
    """
    return decode(_Parameters, attributes(dataset)).layout


@dataclass(frozen=True)
class _Parameters:
    """Anything that has theta."""

    layout: Layout


@dataclass(frozen=True)
class LawInfo:
    """A prediction of charges: the law, and the engine that solved it if one did.

    Attributes:
        with_residual: did the recorded ⟨g, ξ⟩ of a normalisation's ε act?
        beyond: name of a symmetry whose charges it does not predict, which are NaN → why.
        remarks: sentences on what was not looked at.
        rtol, atol: of a method that chooses its steps.
        step: of a fixed-step method, in flow time.
        rhs_evaluations, jvp_evaluations: of the law, and products with its Jacobian.
    """

    law: str
    title: str
    with_residual: bool = False
    engine: str | None = None
    method: str | None = None
    rtol: float | None = None
    atol: float | None = None
    step: float | None = None
    rhs_evaluations: int | None = None
    jvp_evaluations: int | None = None
    beyond: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    status: str = "success"


def law_info(predicted: xr.Dataset) -> LawInfo:
    """The typed record of charges that a law predicts.

    Args:
        predicted: from `predict_charges` or `solve_charges`.

    Returns:
        A `LawInfo`: `law`, `title`, `beyond` (symmetries whose charges it does not predict, and why) …

    Raises:
        ResultError: the dataset is no prediction.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> import nm_ode
        >>> from nm_ode.data import digits
        >>> from nm_ode.models import mlp
        >>> problem = nm_ode.Problem(mlp([64, 4, 10], "relu"), cross_entropy, digits(samples=64))
        >>> charges = nm_ode.Charges(nm_ode.symmetries_of(problem))
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=5, observe=[charges])
        >>> info = nm_ode.law_info(nm_ode.predict_charges(run, "first_order"))
        >>> info.law, info.title, dict(info.beyond)
        ('first_order', 'first-order continuous law', {})
    """
    return decode(LawInfo, attributes(predicted))


@dataclass(frozen=True)
class ComparisonInfo:
    """A comparison: of which flow or law, and the first step from which on a flow's one-step defects are small.

    `holds_from` is −1 where they never are, and None where they are not known. `average` is over which window the
    run's own time average is taken, None where there is none; `no_average` why not, where it was asked for.
    """

    title: str
    flow: str | None = None
    law: str | None = None
    expected_order: int | None = None
    holds_from: int | None = None
    average: str | None = None
    no_average: str = ""


def comparison_info(comparison: xr.Dataset) -> ComparisonInfo:
    """The typed record of a comparison.

    Args:
        comparison: from `compare`.

    Returns:
        A `ComparisonInfo`: `title`, `flow` or `law`, `expected_order`, `holds_from` …

    Raises:
        ResultError: the dataset is none.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=5)
        >>> info = nm_ode.comparison_info(nm_ode.compare(run, nm_ode.solve(nm_ode.GradientFlow(problem), run)))
        >>> info.title, info.expected_order
        ('gradient flow', 1)
    """
    return decode(ComparisonInfo, attributes(comparison))


@dataclass(frozen=True)
class LadderInfo:
    """Runs at several learning rates: the confounders of the fit.

    Attributes:
        kinks: operations whose derivative jumps.
        stateful: has the optimiser a state beyond theta?
        warm_start: did the runs start warm?
        fixed_step: were the flows solved with a step of the user's?
        batch_bias, batch_bias_error: as of `SolveInfo`, where the runs are on minibatches.
    """

    stateful: bool
    warm_start: bool
    fixed_step: bool
    batch_bias: float | None = None
    batch_bias_error: float | None = None
    kinks: tuple[str, ...] = ()
    status: str = "success"


def ladder_info(convergence: xr.Dataset) -> LadderInfo:
    """Of what `convergence` gives.

    Raises:
        ResultError: the dataset is no convergence study.
    """
    return decode(LadderInfo, attributes(convergence))


@dataclass(frozen=True)
class SymmetriesInfo:
    """The symmetries of a model.

    Attributes:
        n_charges: how many charges they have, those of a matrix's diagonal not counted twice.
        remarks: sentences on what was left out, and on what could not be checked.
    """

    n_charges: int
    status: str = "success"
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyInfo:
    """A study: its case, with what it was made, how it ended. The root of the tree.

    Attributes:
        case: the case with all defaults, by key.
        case_text: the file as the user wrote it.
        failures: a sentence for each part that did not go well.
        versions: of Python and the packages.
        code: path → SHA-256 of the user's own code that the case names, and of its data on disk.
    """

    title: str
    case: Mapping[str, Any]
    case_file: str
    case_text: str
    status: Literal["complete", "failed"]
    versions: Mapping[str, Any]
    git_commit: str
    device: str
    dtype: str
    seed: int
    started: str
    ended: str
    parameters: int
    samples: int
    failures: tuple[str, ...] = ()
    code: Mapping[str, Any] = field(default_factory=dict)


def symmetries_info(table: xr.Dataset) -> SymmetriesInfo:
    """Of the table of a model's symmetries.

    Raises:
        ResultError: the dataset is none.
    """
    return decode(SymmetriesInfo, attributes(table))


def study_info(tree: xr.DataTree) -> StudyInfo:
    """The typed record of a study of one case: what its tree says of itself.

    Args:
        tree: from `open_store`.

    Returns:
        A `StudyInfo`: `title`, `case`, `status`, `versions`, `seed`, `failures` …

    Raises:
        ResultError: the tree is none.

    Example:
        After `nm-ode run diabetes_linear`:

        >>> import nm_ode
        >>> info = nm_ode.study_info(nm_ode.open_store("results/diabetes_linear/run.zarr"))
        >>> info.title, info.status, info.parameters, info.dtype
        ('Diabetes, linear regression, full batch', 'complete', 11, 'float64')
    """
    return decode(StudyInfo, attributes(tree))
