"""predict_charges: a law from the recorded drivers, at the run's steps or at its records."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nm_ode.charges.driven import driven, has_every_step
from nm_ode.charges.errors import LawError
from nm_ode.charges.law import Law
from nm_ode.charges.laws import LAWS, law_named, require_described
from nm_ode.charges.orthogonal import unseen_between
from nm_ode.charges.recorded import at_records
from nm_ode.charges.shares import shares
from nm_ode.required import require_dataset
from nm_ode.results import LawInfo, annotate, run_info, write

_UNSEEN = (
    "whether the gradient is orthogonal to the symmetries was looked at at the records alone: a Charges(…, "
    "residual=True) sees the steps between"
)


def predict_charges(
    run: xr.Dataset, law: str, *, with_residual: bool = False, from_rest: bool = False
) -> xr.Dataset:
    """Charges by a law from the recorded drivers, at the steps at which the run has its charges (docs/theory.md §3).

    Args:
        run: from `train` or a Recorder, with charges recorded: at each step, or at some, with what the law needs of
            those between.
        law: a name in `LAWS`: "exact", "second_order", or "first_order" (without momentum).
        with_residual: let the recorded ⟨g, ξ⟩ act, which a normalisation's ε makes other than zero ("exact" only).
        from_rest: Q̇(0) = 0, as in the paper, in place of the rate that makes up for torch's first step
            ("second_order" only).

    Returns:
        `charge` (step or charge_step, charge_index), with the run's coordinates and a LawInfo. Where parameters of a
        recorded loop's optimiser lie in groups, charges move by the steps of their own. Those that the law does not
        describe are NaN, and its `beyond` says why.

    Raises:
        LawError: no charges, or at some steps alone without what this law needs of the others, an unknown law, an
            option of another law, or a run that the law does not describe: of an optimiser for which it does not exist,
            one that went on from another's velocity, or, for the first-order law, one with momentum. Only where that is
            so of all charges.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> import nm_ode
        >>> from nm_ode.data import digits
        >>> from nm_ode.models import mlp
        >>> problem = nm_ode.Problem(mlp([64, 8, 10], "relu"), cross_entropy, digits(samples=64))
        >>> charges = nm_ode.Charges(nm_ode.symmetries_of(problem))
        >>> run = nm_ode.train(problem, nm_ode.SGD(lr=0.1, momentum=0.9), steps=20, observe=[charges])
        >>> float(abs(nm_ode.predict_charges(run, "exact").charge - run.charge).max()) < 1e-12
        True
    """
    require_dataset(run, "run", "nm_ode.train")
    found = law_named(law)
    if with_residual and not found.takes_residual:
        raise LawError(_option("with_residual", law, [n for n, one in LAWS.items() if one.takes_residual]))
    if from_rest and found.from_rest is None:
        raise LawError(_option("from_rest", law, [n for n, one in LAWS.items() if one.from_rest is not None]))
    parts, beyond = shares(run, with_residual=with_residual)
    charges = np.full(run["charge"].shape, np.nan)
    refused: list[LawError] = []
    for share in parts:
        try:
            predicted = _of_share(share.run, law, found, with_residual=with_residual, from_rest=from_rest)
        except LawError as error:
            refused.append(error)
            beyond |= dict.fromkeys(share.symmetries, str(error))
        else:
            charges[:, share.where] = predicted[: len(charges)]
    if refused and len(refused) == len(parts):
        raise refused[0]
    title = (
        found.title + (", with what ε adds" if with_residual else "") + (", from rest" if from_rest else "")
    )
    unseen = not with_residual and unseen_between(run, run_info(run))
    info = LawInfo(law, title, with_residual, beyond=beyond, remarks=(_UNSEEN,) if unseen else ())
    return as_prediction(run, charges, info)


def _of_share(
    run: xr.Dataset, name: str, law: Law, *, with_residual: bool, from_rest: bool
) -> NDArray[np.float64]:
    """Charges that one law describes, by it."""
    what = driven(run, with_residual=with_residual, at_records=True)
    require_described(name, what.optimizer, what.hyperparameters, at_rest=what.at_rest)
    if not has_every_step(run):
        return at_records(run, what, name, law, with_residual=with_residual, from_rest=from_rest)
    predict = law.from_rest if from_rest and law.from_rest is not None else law.predict
    return predict(what)


def as_prediction(run: xr.Dataset, charges: NDArray[np.float64], info: LawInfo) -> xr.Dataset:
    """Charges of shape (steps or more, C) as a dataset beside `run["charge"]`."""
    predicted = run["charge"].copy(data=charges[: len(run["charge"])])
    return annotate(write(predicted.to_dataset(name="charge"), info))


def _option(option: str, law: str, laws: list[str]) -> str:
    return f"{option} goes with law {' or '.join(map(repr, laws))}; law {law!r} was given"
