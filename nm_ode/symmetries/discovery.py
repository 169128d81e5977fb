"""find_symmetries: from a model to its symmetries, proved from the graph and verified by numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from nm_ode.loss import Problem
from nm_ode.loss.objective import LossFunction
from nm_ode.symmetries.alone import alone
from nm_ode.symmetries.check import Check
from nm_ode.symmetries.ended import Ended, rows_of
from nm_ode.symmetries.examples import name_of_loss
from nm_ode.symmetries.kinds import Kind
from nm_ode.symmetries.other_batches import lost_elsewhere
from nm_ode.symmetries.precision import is_large
from nm_ode.symmetries.proofs import discover
from nm_ode.symmetries.symmetry import Symmetry, count_charges
from nm_ode.symmetries.traced_loss import TracedLoss, loss_of_model, loss_of_problem
from nm_ode.symmetries.verify import Verification, verify


@dataclass(frozen=True, repr=False)
class Symmetries(Sequence[Symmetry]):
    """The symmetries of a model, each verified; a sequence (docs/theory.md §2).

    Attributes:
        found: in order of kind.
        checks: by name, what the verification measured.
        defects: sentences on what the graph's rules found and the numbers did not bear out. Never in `found`.
        left_out: sentences on what the graph has and the training does not: its gradient is another, or the graph is
            for batches of another size. Never in `found`.
        loss: the name of the loss that this is of.
        ended: of each parameter without a symmetry of some kind the operations that ended it.
        how: sentences on what was left out of the verification of a large model, and on what is true of floating-point
            numbers alone.

    Example:
        >>> import torch
        >>> import nm_ode
        >>> from nm_ode.models import mlp
        >>> found = nm_ode.find_symmetries(mlp([4, 6, 3], "relu"), torch.randn(8, 4), loss="cross_entropy")
        >>> len(found), found.n_charges("rescale"), found.defects
        (2, 6, ())
        >>> max(check.unexplained for check in found.checks.values()) < 1e-12
        True
    """

    found: tuple[Symmetry, ...]
    checks: dict[str, Check]
    defects: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    loss: str = ""
    ended: tuple[Ended, ...] = ()
    how: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what could not be checked, and on what was checked in another way."""
        missing = dict.fromkeys(check.missing for check in self.checks.values() if check.missing)
        return self.how + tuple(
            f"Hessian check not possible: torch has no second derivative of {operation}"
            for operation in missing
        )

    def __repr__(self) -> str:
        held = _listed([f"{symmetry.name} ({symmetry.count})" for symmetry in self.found]) or "none"
        of = f" of {self.loss}" if self.loss else ""
        return f"<Symmetries{of}, {self.n_charges()} charges: {held}>"

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, i):  # type: ignore[no-untyped-def]
        return self.found[i]

    def __iter__(self) -> Iterator[Symmetry]:
        return iter(self.found)

    def named(self, name: str) -> Symmetry:
        """The symmetry of this name.

        Raises:
            KeyError: there is none.
        """
        for symmetry in self.found:
            if symmetry.name == name:
                return symmetry
        raise KeyError(f"no symmetry is called {name!r}; there are {', '.join(s.name for s in self.found)}")

    def of_kind(self, kind: Kind) -> tuple[Symmetry, ...]:
        """Those of one kind."""
        return tuple(symmetry for symmetry in self.found if symmetry.kind == kind)

    def explain(self, kind: Kind | None = None) -> str:
        """Why parameters have no symmetry of a kind, or of any: a line for each operation that ends some."""
        return "\n".join(
            f"{row.kind}: {', '.join(row.parameters)}: {row.place}{f' ({row.why})' if row.why else ''}"
            + (f"; {row.remedy}" if row.remedy else "")
            for row in rows_of(self.ended)
            if kind is None or kind in row.kind.split(" and ")
        )

    def n_charges(self, kind: Kind | None = None) -> int:
        """Number of charges, of one kind or of all; those that are another symmetry's diagonal count once."""
        return count_charges(self.found, kind)


@alone
def find_symmetries(
    model: nn.Module,
    example_input: Any,
    loss: str | LossFunction | None = None,
    *,
    target: Any = None,
    draws: int = 2,
    seed: int = 0,
) -> Symmetries:
    """Every symmetry of a model's loss that can be proved from its graph, verified (docs/theory.md §2).

    Args:
        model: in the mode (train or eval) in which it is meant; it is copied, and stays as it is.
        example_input: a batch, samples along the first axis: a tensor, an array, a list of numbers; a tuple of them for
            `model(*batch)`, a dict for `model(**batch)`, a dataclass …; or a DataLoader or Dataset, of which the first
            samples are taken. Its size is the cost of the verification, so for a large network a small image is
            enough.
        loss: "cross_entropy", "mse", or a function of (output, target); then `target` is needed. "own" is the loss that
            the model returns of a batch with its targets. Where none is given, this is taken if there is one, and cross
            entropy is assumed if not; the result's `loss` says so.
        target: targets of the example; drawn at random if None.
        draws: random parameters and batches at which the constraints are verified.
        seed: of these.

    Returns:
        `Symmetries`, a sequence in order of kind, with what the verification measured of each.

    Raises:
        SymmetryError: the model cannot be traced, or its output does not go with the loss.

    Example:
        >>> import torch
        >>> import nm_ode
        >>> from nm_ode.models import mlp
        >>> found = nm_ode.find_symmetries(mlp([4, 6, 3], "relu"), torch.randn(8, 4), loss="cross_entropy")
        >>> for symmetry in found:
        ...     print(symmetry)
        <translation linear2: 7 charges of linear2.weight axis 1, linear2.bias>
        <rescale linear1 → linear2: 6 charges of linear1.weight axis 0, linear1.bias axis 0 | linear2.weight axis 1>
        >>> found.n_charges()
        13
    """
    traced, name = loss_of_model(model, example_input, loss, target, seed)
    return replace(verified_symmetries(traced, draws=draws, seed=seed), loss=name)


@alone
def symmetries_of(problem: Problem, *, samples: int = 8, draws: int = 2, seed: int = 0) -> Symmetries:
    """The symmetries of a problem's loss, found on its first samples, as `find_symmetries` finds them.

    Args:
        problem: whose model, objective and data.
        samples: how many of its first samples.
        draws, seed: as of `find_symmetries`.

    Returns:
        `Symmetries`, as `find_symmetries` gives them.

    Raises:
        SymmetryError: the model cannot be traced.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> import nm_ode
        >>> from nm_ode.data import digits
        >>> from nm_ode.models import mlp
        >>> problem = nm_ode.Problem(mlp([64, 8, 10], "relu"), cross_entropy, digits(samples=64))
        >>> nm_ode.symmetries_of(problem)
        <Symmetries of cross_entropy, 17 charges: translation linear2 (9), rescale linear1 → linear2 (8)>
    """
    traced = loss_of_problem(problem, samples)
    name = name_of_loss(problem.loss_fn or problem.objective)
    return replace(verified_symmetries(traced, draws=draws, seed=seed), loss=name)


def verified_symmetries(loss: TracedLoss, *, draws: int = 2, seed: int = 0) -> Symmetries:
    """What the rules prove of a traced model, and the numbers bear out."""
    found = _verified(loss, draws, seed)
    if found.left_out and loss.graph.has_stops:
        # No gradient comes out of the model's blocks under no_grad, then; out of a checkpoint's it does.
        stopped = _verified(replace(loss, stops=True), draws, seed)
        return found if stopped.left_out else stopped
    return found


def _verified(loss: TracedLoss, draws: int, seed: int) -> Symmetries:
    symmetries, links, ended, provisos = discover(loss.graph)
    seen = verify(loss, symmetries, links, draws=draws, seed=seed)
    elsewhere = lost_elsewhere(loss, symmetries)
    trained = tuple(s for s in symmetries if not seen.untrue & set(s.parameters) and s.name not in elsewhere)
    good = tuple(s for s in trained if seen.checks[s.name].holds)
    defects = tuple(
        f"{s.name}: found by its graph, but {seen.checks[s.name].explain()}; this is a defect of nm_ode, please report "
        "it"
        for s in trained
        if s not in good
    )
    return Symmetries(
        good,
        {s.name: seen.checks[s.name] for s in good},
        defects,
        _other_gradient(symmetries, seen) + _other_size(symmetries, elsewhere),
        ended=ended,
        how=_how(loss) + provisos,
    )


def _how(loss: TracedLoss) -> tuple[str, ...]:
    """What was done in another way than for a small model and a short example."""
    shapes = " and ".join("×".join(map(str, shape)) for shape in loss.graph.shapes)
    large = is_large(loss.model)
    why = f"{loss.layout.size:,} parameters" if large else "an operation without float64"
    return (
        (
            f"verified on tensors of {shapes} in the example's place: its graph has these sizes as symbols, so it is "
            "the same for both",
        )
        if shapes
        else ()
    ) + (
        (
            f"verified in float32, to {loss.precision.constraint:.0e}, at one draw and without the Hessian's "
            f"constraint, since the model has {why}",
        )
        if loss.is_single
        else ()
    )


def _other_gradient(symmetries: Sequence[Symmetry], seen: Verification) -> tuple[str, ...]:
    lost = [s for s in symmetries if seen.untrue & set(s.parameters)]
    if not lost:
        return ()
    by = f" by {', '.join(seen.functions)}" if seen.functions else ""
    return (
        f"{_listed([s.name for s in lost])}: left out, since the gradient that trains "
        f"{_listed(sorted({name for s in lost for name in s.parameters} & seen.untrue))} is not the loss's (a backward "
        f"of its own{by}, a hook, a stopped gradient or a coarser dtype inside changes it): the loss's symmetries say "
        "nothing of such training",
    )


def _other_size(symmetries: Sequence[Symmetry], elsewhere: Mapping[str, str]) -> tuple[str, ...]:
    lost = [s.name for s in symmetries if s.name in elsewhere]
    sizes = _listed(sorted({elsewhere[name] for name in lost}))
    return (
        (f"{_listed(lost)}: left out, since the model computes something else for a batch of {sizes}",)
        if lost
        else ()
    )


def _listed(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
