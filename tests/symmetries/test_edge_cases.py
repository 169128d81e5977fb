"""Networks that once were judged wrongly, each of a few lines; what is right is written beside them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.random_graphs.drawing import Drawer
from tests.random_graphs.program import Program
from tests.random_graphs.soundness import judged

HIDDEN = "F.linear(x, p0, p1)"
SHAPES = ((4, 4), (4,), (3, 4))


def program(*lines: str, shapes: Sequence[tuple[int, ...]] = SHAPES) -> Program:
    """Parameters p0, p1, … of these shapes, results v0, v1, …; the last line is the loss."""
    drawer = Drawer(0)
    for shape in shapes:
        drawer.parameter(*shape)
    for line in lines[:-1]:
        drawer.emit(line)
    drawer.emit(lines[-1], scalar=True)
    return drawer.program()


def charges(drawn: Program) -> dict[str, int]:
    """Kind → number of charges; fails on one that the model does not bear out."""
    seen = judged(drawn)
    assert seen.unsound == ()
    counts: dict[str, int] = {}
    for symmetry in seen.symmetries:
        counts[symmetry.kind] = counts.get(symmetry.kind, 0) + symmetry.count
    return counts


@pytest.mark.parametrize(
    ("through", "rescales"),
    [
        ("v0.prod(-1, keepdim=True).expand(-1, 4)", 4),
        ("v0[:, :1] * v0[:, 1:2] * v0", 4),
    ],
)
def test_an_entry_that_several_factors_meet_in_moves_with_each(through, rescales):
    # The column's factor is a sum of several free ones with one coefficient: a charge for each.
    counts = charges(program(HIDDEN, through, "F.mse_loss(F.linear(v1, p2), y)"))
    assert counts["rescale"] == rescales


def test_an_empty_piece_of_a_weight_has_no_factors():
    drawn = program(
        HIDDEN,
        "v0[:, :1]",
        "F.rms_norm(v1, (1,), torch.cat([p2[:1], p3[1:]]), eps)",
        "F.mse_loss(v2 * p4, y)",
        shapes=((4, 4), (4,), (1,), (1,), (3,)),
    )
    assert charges(drawn)["rescale"] >= 1
