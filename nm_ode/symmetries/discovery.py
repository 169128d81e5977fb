"""find_symmetries: from a model to its symmetries, proved from the graph and verified by numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from nm_ode.loss import Problem
from nm_ode.loss.objective import LossFunction
from nm_ode.symmetries.kinds import Kind
from nm_ode.symmetries.proofs import discover
from nm_ode.symmetries.symmetry import Symmetry, count_charges
from nm_ode.symmetries.traced_loss import TracedLoss, loss_of_model, loss_of_problem
from nm_ode.symmetries.verify import Check, verify


@dataclass(frozen=True)
class Symmetries(Sequence[Symmetry]):
    """The symmetries of a model, each verified; a sequence.

    Attributes:
        found: in order of kind.
        checks: by name, what the verification measured.
        defects: sentences on what the graph's rules found and the numbers did not bear out. Never in `found`.
    """

    found: tuple[Symmetry, ...]
    checks: dict[str, Check]
    defects: tuple[str, ...]

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

    def n_charges(self, kind: Kind | None = None) -> int:
        """Number of charges, of one kind or of all; those that are another symmetry's diagonal count once."""
        return count_charges(self.found, kind)


def find_symmetries(
    model: nn.Module,
    example_input: Tensor,
    loss: str | LossFunction = "cross_entropy",
    *,
    target: Tensor | None = None,
    draws: int = 2,
    seed: int = 0,
) -> Symmetries:
    """Every symmetry of a model's loss that can be proved from its graph, verified (docs/theory.md §2).

    Args:
        model: in the mode (train or eval) in which it is meant; it is copied, and stays as it is.
        example_input: a batch, samples along the first axis. Its size is the cost of the verification, so for a
            large network a small image is enough.
        loss: "cross_entropy", "mse", or a function of (output, target); then `target` is needed.
        target: targets of the example; drawn at random if None.
        draws: random parameters and batches at which the constraints are verified.
        seed: of these.

    Raises:
        SymmetryError: the model cannot be traced, or its output does not go with the loss.
    """
    return verified_symmetries(
        loss_of_model(model, example_input, loss, target, seed), draws=draws, seed=seed
    )


def symmetries_of(problem: Problem, *, samples: int = 8, draws: int = 2, seed: int = 0) -> Symmetries:
    """The symmetries of a problem's loss, found on its first samples.

    Raises:
        SymmetryError: the model cannot be traced.
    """
    return verified_symmetries(loss_of_problem(problem, samples), draws=draws, seed=seed)


def verified_symmetries(loss: TracedLoss, *, draws: int = 2, seed: int = 0) -> Symmetries:
    """What the rules prove of a traced model, and the numbers bear out."""
    symmetries, links = discover(loss.graph)
    checks = verify(loss, symmetries, links, draws=draws, seed=seed)
    good = tuple(s for s in symmetries if checks[s.name].holds)
    defects = tuple(
        f"{s.name}: found by its graph, but {checks[s.name].explain()}; this is a defect of nm_ode, please report it"
        for s in symmetries
        if not checks[s.name].holds
    )
    return Symmetries(good, {s.name: checks[s.name] for s in good}, defects)
