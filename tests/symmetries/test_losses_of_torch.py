"""Every loss of torch.nn: its symmetries of a small network, counted by hand, or one sentence that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode.symmetries import SymmetryError, find_symmetries
from tests.symmetries.conftest import integers

SIGNS = 2.0 * integers(2, 8, seed=1) - 1
REALS = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
CLASSES = integers(3, 8)
HEAD, BIASES = 4 + 1, 3  # all-ones in each column of the head and in its bias; each entry of its bias

Case = tuple[Callable[[Tensor, Any], Tensor], Any, dict[str, int]]


def _triplet(distance: nn.Module) -> Callable[[Tensor, Any], Tensor]:
    return lambda out, y: distance(out, out.roll(1, 0) + 0 * y, out.roll(2, 0))


def _ctc(out: Tensor, y: Tensor) -> Tensor:
    # Each sample's three outputs are three steps with three classes of their own.
    steps = (out.unsqueeze(1) * torch.arange(1, 4, dtype=out.dtype).view(1, 3, 1)).log_softmax(-1)
    return nn.CTCLoss()(steps.transpose(0, 1), y, (3,) * 8, (1,) * 8)


CASES: dict[str, Case] = {
    "L1Loss": (nn.L1Loss(), REALS, {}),
    "MSELoss": (nn.MSELoss(), REALS, {}),
    "SmoothL1Loss": (nn.SmoothL1Loss(), REALS, {}),
    "HuberLoss": (nn.HuberLoss(), REALS, {}),
    "CrossEntropyLoss": (nn.CrossEntropyLoss(label_smoothing=0.1), CLASSES, {"translation": HEAD}),
    "NLLLoss": (lambda out, y: nn.NLLLoss()(out.log_softmax(1), y), CLASSES, {"translation": HEAD}),
    "KLDivLoss": (
        lambda out, y: nn.KLDivLoss(reduction="batchmean")(out.log_softmax(1), y),
        REALS.softmax(1),
        {"translation": HEAD},
    ),
    "CTCLoss": (_ctc, 1 + integers(2, 8, 1), {"translation": HEAD}),
    "BCELoss": (lambda out, y: nn.BCELoss()(out.sigmoid(), y), REALS.sigmoid(), {}),
    "BCEWithLogitsLoss": (nn.BCEWithLogitsLoss(), REALS.sigmoid(), {}),
    "PoissonNLLLoss": (nn.PoissonNLLLoss(full=True), integers(4, 8, 3).double(), {}),
    "GaussianNLLLoss": (lambda out, y: nn.GaussianNLLLoss()(out, y, F.softplus(out)), REALS, {}),
    "SoftMarginLoss": (nn.SoftMarginLoss(), SIGNS[:, None].expand(8, 3), {}),
    "MultiLabelSoftMarginLoss": (nn.MultiLabelSoftMarginLoss(), integers(2, 8, 3).double(), {}),
    "HingeEmbeddingLoss": (nn.HingeEmbeddingLoss(), SIGNS[:, None].expand(8, 3), {}),
    # The head as a whole, before a cosine.
    "CosineEmbeddingLoss": (
        lambda out, y: nn.CosineEmbeddingLoss()(out, out.roll(1, 0), y),
        SIGNS,
        {"scale": 1},
    ),
    "MarginRankingLoss": (
        lambda out, y: nn.MarginRankingLoss(0.5)(out, out.roll(1, 1), y[:, None]),
        SIGNS,
        {"translation": HEAD},
    ),
    "MultiMarginLoss": (nn.MultiMarginLoss(), CLASSES, {"translation": HEAD}),
    "MultiLabelMarginLoss": (
        nn.MultiLabelMarginLoss(),
        torch.tensor([[0, 2, -1], [1, -1, 0]] * 4),
        {"translation": HEAD},
    ),
    "TripletMarginLoss": (_triplet(nn.TripletMarginLoss()), REALS, {"translation": BIASES}),
    "TripletMarginWithDistanceLoss": (
        _triplet(nn.TripletMarginWithDistanceLoss()),
        REALS,
        {"translation": BIASES},
    ),
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


@pytest.mark.parametrize("name", CASES)
def test_its_symmetries_are_those_counted_by_hand(name: str, normal) -> None:
    torch.manual_seed(0)
    loss, target, expected = CASES[name]
    found = find_symmetries(Net(), normal(8, 3), loss, target=target)
    assert found.defects == found.left_out == ()
    counts = {kind: found.n_charges(kind) for kind in ("translation", "scale", "rescale", "matrix")}
    assert counts == {"translation": 0, "scale": 0, "rescale": 4, "matrix": 0} | expected


def test_one_with_parameters_of_its_own_is_refused() -> None:
    loss = nn.AdaptiveLogSoftmaxWithLoss(3, 4, [2], div_value=1.0)
    with pytest.raises(SymmetryError, match="trainable parameter"):
        find_symmetries(Net(), REALS, loss, target=CLASSES)


def test_none_is_left_out() -> None:
    with_parameters = {"AdaptiveLogSoftmaxWithLoss", "LinearCrossEntropyLoss"}
    assert {name for name in vars(nn) if name.endswith("Loss")} - with_parameters == set(CASES)
    # A function without a module would be none of these.
    plain = {name.removesuffix("Loss").lower() for name in CASES} | {
        "binarycrossentropy",
        "binarycrossentropywithlogits",
    }
    functions = {name.removesuffix("_loss").replace("_", "") for name in dir(F) if name.endswith("_loss")}
    assert functions <= plain, functions - plain
