"""Charges of what meets zeros, of what nothing reads, and of weights in two roles: counted by hand, and carried out."""

from __future__ import annotations

import pytest

from tests.random_graphs.drawing import Drawer
from tests.random_graphs.soundness import judged

# x: (8, 4), y: (8, 3), k: (8,); p0, p1, … have the shapes given
NETWORKS = {
    "a first state of zeros": (  # its weight does nothing
        [(4, 4), (4,), (4, 4), (3, 4)],
        ["torch.tanh(F.linear(torch.zeros_like(x), p0, p1) + F.linear(x, p2))", "F.linear({}, p3)"],
        {"translation": 16},
    ),
    "of two steps the first is read": (
        [(4, 4), (4, 4), (3, 4)],
        [
            "torch.stack([torch.tanh(F.linear(x, p0)), torch.tanh(F.linear(x, p1))], 1)[:, 0]",
            "F.linear({}, p2)",
        ],
        {"translation": 16},
    ),
    "a gate of a state of zeros": (  # of three parts of the rows the first does nothing
        [(12, 4), (3, 4)],
        [
            "(lambda i, z, o: i.sigmoid() * torch.zeros_like(x) + z.sigmoid() * o.tanh())"
            "(*F.linear(x, p0).chunk(3, -1))",
            "F.linear({}, p1)",
        ],
        {"translation": 16},
    ),
    "rows that no batch meets": (
        [(3, 4), (3, 4)],
        ["torch.tanh(x + F.embedding(torch.zeros_like(k), p0))", "F.linear({}, p1)"],
        {"translation": 8},
    ),
    "a linear recurrence": (  # A → M A M⁻¹
        [(3, 4), (3, 3), (3, 3)],
        ["F.linear(x, p0)", "F.linear({}, p1) + F.linear(x, p0)", "F.linear({}, p2)"],
        {"matrix": 6},
    ),
    "products of features": (  # each with a factor of its own
        [(2, 4), (2, 4), (3, 3)],
        [
            "torch.stack([F.linear(x, p0), F.linear(x, p1)], 1)",
            "({0} @ {0}.mT)[:, [0, 0, 1], [0, 1, 1]]",
            "F.linear({}, p2)",
        ],
        {"rescale": 2},
    ),
    "a part that is written": (  # what is beside it is zero, and so are the columns that read it
        [(2, 4), (3, 4)],
        ["torch.slice_scatter(torch.zeros_like(x), F.linear(x, p0), 1, 1, 3)", "F.linear({}, p1)"],
        {"matrix": 3, "scale": 2},
    ),
    "a spectral layer": (  # the constant's imaginary weights do nothing
        [(3, 1, 1), (3, 2, 2, 2), (3, 8)],
        [
            "torch.fft.irfft(torch.einsum('bim,iom->bom', torch.fft.rfft(F.conv1d(x.unsqueeze(1), p0))[..., :2], "
            "torch.view_as_complex(p1)), n=4)",
            "F.linear({}.flatten(1).tanh(), p2)",
        ],
        {"matrix": 6, "translation": 6},
    ),
    "distances": (  # which a shift of all points alike leaves
        [(2, 4), (2,), (3, 1)],
        [
            "F.linear(torch.stack([x, x.square()], 1), p0, p1)",
            "torch.cdist({0}[:, :1], {0}[:, 1:]).flatten(1)",
            "F.linear({}, p2)",
        ],
        {"translation": 2, "rescale": 1},
    ),
    "experts": (  # each times a number that the sample says, and all read by one weight
        [(2, 3, 4), (3, 3)],
        ["(x[:, :2, None] * torch.einsum('bi,eji->bej', x, p0)).sum(1)", "F.linear({}, p1)"],
        {"matrix": 6},
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_all_that_is_so_is_found(name):
    shapes, lines, expected = NETWORKS[name]
    drawer, last = Drawer(0), ""
    for shape in shapes:
        drawer.parameter(*shape)
    for line in lines:
        last = drawer.emit(line.format(last, last))
    drawer.emit(f"F.mse_loss({last}, y)", scalar=True)
    seen = judged(drawer.program(), seed=1)
    counts: dict[str, int] = {}
    for s in seen.symmetries:
        if s.within is None:
            counts[s.kind] = counts.get(s.kind, 0) + s.count
    assert counts == expected
    assert seen.unsound == ()
    assert seen.decided
