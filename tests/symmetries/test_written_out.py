"""What is traced in the place of torch's functions gives their numbers and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nm_ode.symmetries import SymmetryError, find_symmetries
from nm_ode.symmetries.written_out import WrittenOut, ctc_loss, gaussian_nll_loss
from tests.symmetries.conftest import gaussian, integers

STEPS, SAMPLES, CLASSES, LABELS = 7, 5, 4, 3


def both(torchs, own, x, *arguments, **keywords):
    """Value and gradient of each."""
    found = []
    for function in (torchs, own):
        at = x.clone().requires_grad_()
        made = function(at, *arguments, **keywords)
        found.append((made.detach(), torch.autograd.grad(made.sum(), at)[0]))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("blank", [0, CLASSES - 1])
@pytest.mark.parametrize("form", ["rows", "end to end", "alone"])
def test_connectionist_temporal_classification(reduction, blank, form) -> None:
    x = gaussian(STEPS, SAMPLES, CLASSES)
    labels = integers(CLASSES - 1, SAMPLES, LABELS) + (blank == 0)
    given, lengths = torch.tensor([7, 6, 7, 5, 7]), torch.tensor([3, 0, 2, 1, 3])
    if form == "alone":
        x, labels, given, lengths = x[:, 0], labels[0], (7,), (3,)
    elif form == "end to end":
        labels = torch.cat([row[:n] for row, n in zip(labels, lengths.tolist(), strict=True)])

    def of(function):
        return lambda scores, *rest, **options: function(scores.log_softmax(-1), *rest, **options)

    both(of(F.ctc_loss), of(ctc_loss), x, labels, given, lengths, blank=blank, reduction=reduction)


def test_labels_that_do_not_fit_into_the_steps() -> None:
    x, labels = gaussian(2, 1, CLASSES).log_softmax(-1), torch.tensor([[1, 1]])
    for zero in (False, True):
        expected = F.ctc_loss(x, labels, (2,), (2,), zero_infinity=zero)
        assert ctc_loss(x, labels, (2,), (2,), zero_infinity=zero) == expected


def test_too_many_steps_for_a_graph() -> None:
    with pytest.raises(SymmetryError, match=r"ctc_loss over 300 steps.*at most 256"):
        ctc_loss(torch.zeros(300, 1, 2), torch.ones(1, 1, dtype=torch.int64), (300,), (1,))


@pytest.mark.parametrize("var", [gaussian(6, 3).exp(), gaussian(6).exp(), gaussian(6, 1).exp(), 0.3])
def test_gaussian_likelihood(var) -> None:
    for full, reduction in ((True, "mean"), (False, "sum"), (False, "none")):
        options = {"full": full, "reduction": reduction}
        both(
            F.gaussian_nll_loss,
            gaussian_nll_loss,
            gaussian(6, 3, seed=1),
            gaussian(6, 3, seed=2),
            var,
            **options,
        )


class Mixture(nn.Module):
    """Of two experts, which the first input chooses; sorted by expert, as in transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = (nn.Parameter(gaussian(2, *shape).float()) for shape in ((4, 4), (4, 8)))

    def forward(self, x):
        expert = (x[:, 0] > 0).long()
        order = expert.argsort(stable=True)
        ends = (expert.unsqueeze(0) == torch.arange(2).unsqueeze(1)).sum(1).cumsum(0).int()
        h = F.relu(F.grouped_mm(x[order], self.wide, offs=ends))
        return F.grouped_mm(h, self.narrow, offs=ends)[order.argsort()]


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="this version of torch has no grouped_mm")
def test_products_of_groups_that_have_no_float64() -> None:
    model, x = Mixture(), gaussian(8, 4).float()
    with torch.no_grad():
        own = model(x)
        with WrittenOut():
            torch.testing.assert_close(model(x), own, rtol=1e-5, atol=1e-5)
    found = find_symmetries(model, x, "mse")
    assert found.defects == found.left_out == ()
    # A unit's factor is that of all experts.
    assert {s.name: s.count for s in found} == {"rescale wide → narrow": 4}
