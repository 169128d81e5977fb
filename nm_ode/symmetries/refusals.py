"""What is said of a model that cannot be traced: what it does, where, and what to do about it."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import nn
from torch.fx import Node

from nm_ode.arguments import first_line
from nm_ode.loss.explain import passes_through, without_float64
from nm_ode.loss.no_hessian import without_derivative
from nm_ode.symmetries.errors import DependsOnValuesError, SymmetryError
from nm_ode.symmetries.operations import operation
from nm_ode.symmetries.places import is_users, place_of

_REASONS = (
    (
        re.compile(r"data-dependent|GuardOnDataDependent|Could not extract specialized integer|\bitem\b"),
        "Python asks for the value of a tensor (an if, float(), .item(), a loop or a size that depends on it), so that "
        "one graph does not hold for all batches; keep it a tensor: torch.where, a product with a mask; or, where it "
        "is the same for every batch (a graph's edges), compute it of buffers alone",
    ),
    (
        re.compile(r"numpy"),
        "the computation leaves torch for NumPy, where no graph follows it; write it with torch's operations",
    ),
    (
        re.compile(
            r"does not require grad|autograd\.grad|create_graph|'constant'|fake tensor in the exported program"
        ),
        "the model differentiates inside its forward pass (torch.autograd.grad or torch.func), which torch.export does "
        "not follow, so that nothing is known of its symmetries; find those of the network inside, of a loss without "
        "the derivatives: a symmetry of the network's output is one of its derivatives by the input too",
    ),
)


def differentiates(error: BaseException) -> bool:
    """Is an error of torch.export about a derivative inside the model?"""
    pattern, _ = _REASONS[-1]
    return any(pattern.search(str(one)) for one in _chain(error))


def refused(model: nn.Module, error: BaseException) -> SymmetryError:
    """In the place of torch's own error."""
    found = _users_frame(error)
    where = f" at {Path(found.filename).name}:{found.lineno} ({found.line})" if found is not None else ""
    text = " ".join(f"{type(one).__name__}: {one}" for one in _chain(error)) + (
        found.line or "" if found else ""
    )
    if reason := without_float64(text):
        return SymmetryError(f"the graph of {type(model).__name__} cannot be traced{where}: {reason}")
    for i, (pattern, reason) in enumerate(_REASONS):
        if pattern.search(text):
            kind = DependsOnValuesError if i == 0 else SymmetryError
            return kind(f"the graph of {type(model).__name__} cannot be traced{where}: {reason}")
    return SymmetryError(
        f"the graph of {type(model).__name__} cannot be traced{where}: torch.export says {first_line(error)!r}; write "
        "that line with operations that it follows, or leave that part out of the model whose symmetries are asked for"
    )


@contextmanager
def foreseen(at: Node | Sequence[Node]) -> Iterator[None]:
    """What a graph's operation raises is said in one sentence, with the operation and its place.

    Args:
        at: the operation; or all that are differentiated, of which torch may name the one without a derivative.

    Raises:
        SymmetryError: in the place of any other error but those that pass through.
    """
    try:
        yield
    except Exception as error:
        if passes_through(error):
            raise
        if isinstance(at, Node):
            where = str(place_of(at))
        else:
            missing = without_derivative(error)
            where = next((str(place_of(node)) for node in at if operation(node) == missing), "its derivative")
        raise SymmetryError(
            f"the graph cannot be computed at random numbers: {where} fails ({type(error).__name__}: "
            f"{first_line(error)}); if the model itself takes such numbers, this is a defect of nm_ode, please report "
            "it"
        ) from error


@contextmanager
def ruled(kind: str, node: Node | None = None, rule: object = None) -> Iterator[None]:
    """What a kind's rule raises is said in one sentence, with the operation that it was asked about and its place.

    Args:
        kind: whose rules these are.
        node: the operation; None outside of all of them.
        rule: where it comes from, nm_ode's own if None.

    Raises:
        SymmetryError: in the place of any other error but those that pass through.
    """
    try:
        yield
    except Exception as error:
        if passes_through(error):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = "outside the rules of single operations" if node is None else f"at {place_of(node)}"
        module = getattr(rule, "__module__", "") or ""
        what = (
            "this is a defect of nm_ode, please report it (until then, write that line with other operations)"
            if rule is None or module.partition(".")[0] == "nm_ode"
            else f"the rule is of {module}, not nm_ode's own, and must return None for what it does not know"
        )
        raise SymmetryError(
            f"the rules of {kind} symmetries fail {where} ({type(error).__name__}: {first_line(error)}; "
            f"{Path(frame.filename).name}:{frame.lineno}): {what}"
        ) from error


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _users_frame(error: BaseException) -> traceback.FrameSummary | None:
    """The innermost line of the user's own."""
    for one in _chain(error):
        frames = [frame for frame in traceback.extract_tb(one.__traceback__) if is_users(frame.filename)]
        if frames:
            return frames[-1]
    return None
