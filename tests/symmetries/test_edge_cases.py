"""Networks that once were judged wrongly, each of a few lines; what is right is written beside them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nm_ode.symmetries.discovery import verified_symmetries
from tests.random_graphs.drawing import Drawer
from tests.random_graphs.program import Program
from tests.random_graphs.soundness import judged, traced

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


@pytest.mark.parametrize(
    ("through", "rescales"),
    [
        # A floor is met by entries of any size; only a norm, which is above it, may have one.
        ("v0.clamp_min(1e-3)", 0),
        ("v0.clamp(min=0.0)", 4),
        # Of entries that are not zero the number is the same at any scale.
        ("torch.linalg.vector_norm(v0, 0, -1, keepdim=True) + v0", 0),
        # The threshold is the bias, which scales too; it cannot where it is compared with data.
        ("torch.where(v0 > p1, v0, 0.0)", 4),
        ("torch.where(x > p1, v0, 0.0)", 0),
        ("torch.where(v0 > 0, v0, 1.0)", 0),
        ("v0.clamp(max=0.0)", 4),
        ("v0 * v0.long()", 0),
        ("v0 * (v0.argmax(-1, keepdim=True) + 1)", 1),
        ("v0.index_put((torch.arange(len(x)), k), v0[:, 3])", 1),
        ("torch.zeros_like(v0).scatter_add(1, ids.clamp(max=3), v0[:, :3])", 1),
        ("v0.masked_fill(v0 < v0.mean(), 0.0)", 1),
        ("v0.masked_fill(v0 < 0, p1[0])", 0),
        ("v0 / len(x)", 4),
        ("v0 * v0.detach()", 0),
    ],
)
def test_how_many_units_may_be_rescaled_before(through, rescales):
    counts = charges(program(HIDDEN, through, "F.mse_loss(F.linear(v1, p2), y)"))
    assert counts.get("rescale", 0) == rescales


def test_a_pool_of_images_without_samples_takes_rows_together():
    # (N, T, d) is read as (C, H, W): all of T and d meet in the windows.
    drawn = program(
        "F.linear(s, p0, p1)", "F.max_pool2d(v0, 3, 1, 1)", "F.mse_loss(F.linear(v1.mean(1), p2), y)"
    )
    assert charges(drawn)["rescale"] == 1


@pytest.mark.parametrize("factor", ["on[:, None]", "k[:, None, None]", "p1", "s[..., :1]"])
@pytest.mark.parametrize("put", ["mean", "sum"])
def test_a_mean_of_products_is_no_end_of_shifts(put, factor):
    # What shifts a product by a factor that varies shifts the mean too.
    loss = "F.cross_entropy(v2, k)"
    counts = charges(
        program("F.linear(s, p0, p1)", f"v0 * {factor}", f"v1.{put}(1)", loss, shapes=((4, 4), (4,)))
    )
    of_units = {"k[:, None, None]": 4 + 1, "s[..., :1]": 4 + 1}
    if put == "sum" and factor == "k[:, None, None]":
        of_units = {}  # added as often as there are positions, of which another batch may have more: not found
    assert counts.get("translation", 0) == of_units.get(factor, 0)


@pytest.mark.parametrize("like", ["torch.zeros_like(v0)", "torch.full_like(v0, 2.0)", "v0.new_ones(4)"])
def test_what_is_made_like_a_tensor_reads_nothing_of_it(like):
    drawn = program(HIDDEN, f"torch.softmax(v0 + {like}, -1)", "F.mse_loss(F.linear(v1, p2), y)")
    assert charges(drawn)["translation"] == 4 + 1


def test_overlapping_views_of_a_parameter_move_its_entries_once():
    drawn = program(
        "F.linear(s, p0, p1)",
        "torch.softmax(s @ v0.mT, -1) @ s",  # a key's bias shifts what a softmax takes away
        "F.linear(v1.mean(1), p2, p3) + F.linear(x, p4, p1[1:4])",
        "F.cross_entropy(v2, k)",
        shapes=(*SHAPES, (3,), (3, 4)),
    )
    assert charges(drawn)["translation"] >= 4 + 4 + 1


def test_a_part_that_is_written_in_place_is_what_was_written():
    drawn = program(
        HIDDEN,
        "written(v0, (slice(None), slice(1, None)), torch.relu(v0[:, :3]))",
        "F.mse_loss(F.linear(v1, p2), y)",
    )
    charges(drawn)
    assert verified_symmetries(traced(drawn)).defects == ()
