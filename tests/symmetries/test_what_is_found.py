"""The symmetries of known architectures, counted by hand, each verified as it is found."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nm_ode.models import PLANS, cnn, mlp, resnet18, vgg
from nm_ode.symmetries import SymmetryError, find_symmetries


def test_relu_mlp(table_of, normal):
    # One rescale charge a hidden unit. Softmax: the ten logits shift together, so each of the last layer's 24 weight
    # columns and its bias has one.
    assert table_of(mlp([64, 32, 24, 10], "relu"), normal(8, 64)) == {
        "rescale linear1 → linear2": 32,
        "rescale linear2 → linear3": 24,
        "translation linear3": 24 + 1,
    }


def test_relu_mlp_with_batch_norm(table_of, normal):
    # Each unit's row and bias enter BatchNorm, which takes their scale and the bias's shift away: 32 + 24 of both.
    # What is left to rescale are BatchNorm's γ and β against the columns of the next layer. A shift of a weight
    # column moves all units by x_i, which the batch mean does not take away: no translation of weights before
    # BatchNorm.
    assert table_of(mlp([64, 32, 24, 10], "relu", norm="batch"), normal(8, 64)) == {
        "scale linear1": 32,
        "scale linear2": 24,
        "translation linear1": 32,
        "translation linear2": 24,
        "rescale norm1 → linear2": 32,
        "rescale norm2 → linear3": 24,
        "translation linear3": 24 + 1,
    }


def test_relu_mlp_with_layer_norm(table_of, normal):
    # LayerNorm takes away one scale for the whole layer, and a shift of all units together: one translation for
    # each input (the column of the weight) and one of the bias.
    assert table_of(mlp([64, 32, 24, 10], "relu", norm="layer"), normal(8, 64)) == {
        "scale linear1": 1,
        "scale linear2": 1,
        "translation linear1": 64 + 1,
        "translation linear2": 32 + 1,
        "rescale norm1 → linear2": 32,
        "rescale norm2 → linear3": 24,
        "translation linear3": 24 + 1,
    }


def test_linear_network(table_of, normal):
    # Nothing between: 32 × 32 mixings of which the symmetric 32·33/2 have charges; their diagonal is the rescales.
    found = find_symmetries(mlp([8, 6, 5, 3], "identity"), normal(8, 8))
    assert {s.name: s.count for s in found} == {
        "translation linear3": 5 + 1,
        "rescale linear1 → linear2": 6,
        "rescale linear2 → linear3": 5,
        "matrix linear1 → linear2": 6 * 7 // 2,
        "matrix linear2 → linear3": 5 * 6 // 2,
    }
    assert found.named("rescale linear1 → linear2").within == "matrix linear1 → linear2"
    assert found.n_charges() == 6 + 21 + 15  # the diagonals are not counted twice
    assert not found.defects


def _vgg_widths(depth: int) -> list[int]:
    return [n for n in PLANS[depth] if isinstance(n, int)]


@pytest.mark.parametrize("depth", [11, 16])
def test_vgg(depth, table_of, normal):
    # Every convolution's channels against the next; the last one's through max-pooling and Flatten, where a channel
    # becomes a block of columns of the classifier (2×2 at this size); the classifier's hidden units.
    model = vgg(depth, classes=7, image=64, width=1 / 16, hidden=(192, 144))
    table = table_of(model, normal(4, 3, 64, 64))
    widths = [max(1, n // 16) for n in _vgg_widths(depth)] + [12, 9]
    rescales = {name: n for name, n in table.items() if name.startswith("rescale")}
    assert list(rescales.values()) == widths
    assert table == {**rescales, "translation classifier.4": 9 + 1}


def test_vgg16_with_batch_norm(table_of, normal):
    # 13 convolutions → BatchNorm: scale and bias translation of every channel; γ, β → the next layer's columns.
    model = vgg(16, classes=7, image=32, width=1 / 16, hidden=(192,), batch_norm=True)
    table = table_of(model, normal(4, 3, 32, 32))
    widths = [n // 16 for n in _vgg_widths(16)]
    by_kind = {
        kind: [n for name, n in table.items() if name.startswith(kind)]
        for kind in ("scale", "rescale", "translation")
    }
    assert by_kind == {
        "scale": widths,
        "rescale": [*widths, 12],
        "translation": [*widths, 12 + 1],
    }
    assert "rescale features.41 → classifier.0" in table  # the last BatchNorm, through Flatten


def test_resnet18_with_batch_norm(table_of, normal):
    # Twenty convolutions without bias enter BatchNorm: a scale charge each channel (stem, 16 in the blocks, 3 in
    # shortcuts). Inside a block norm1 → conv2. A residual sum ties the channels of its branches: the stage's norm2's
    # and its shortcut's norm (in the first stage the stem's) against all that read the sum.
    model = resnet18(classes=5, width=1 / 8)
    table = table_of(model, normal(4, 3, 16, 16))
    widths = [8, 16, 32, 64]
    scales = {name: n for name, n in table.items() if name.startswith("scale")}
    assert len(scales) == 1 + 16 + 3
    assert sum(scales.values()) == 8 + 4 * sum(widths) + sum(widths[1:])
    inner = {
        f"rescale stages.{i}.{j}.norm1 → stages.{i}.{j}.conv2": n
        for i, n in enumerate(widths)
        for j in (0, 1)
    }
    joined = {name: n for name, n in table.items() if name.startswith("rescale") and name not in inner}
    assert inner.items() <= table.items()
    assert sorted(joined.values()) == widths
    assert (
        "rescale stages.3.0.norm2, stages.3.0.shortcut.1, stages.3.1.norm2 → stages.3.1.conv1, linear"
        in joined
    )
    assert table["translation linear"] == 64 + 1


def test_resnet18_with_group_norm(table_of, normal):
    # GroupNorm has one variance for a group: 2 groups up to 56 channels, else 8; no running statistics.
    table = table_of(resnet18(classes=5, width=1 / 8, norm="group"), normal(4, 3, 32, 32), "scale")
    assert table["scale conv"] == 2
    assert table["scale stages.3.1.conv2"] == 8
    assert len(table) == 20


def test_cnn_through_pooling_and_flatten(table_of, normal):
    assert table_of(cnn(batch_norm=False), normal(4, 1, 8, 8), "rescale") == {
        "rescale conv1 → conv2": 8,
        "rescale conv2 → linear": 16,
    }


class _Own(nn.Module):
    """Hand-written normalisation, a residual, two readers, a sum over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gain = nn.Linear(6, 5), nn.Parameter(torch.ones(5))
        self.a, self.b, self.c = nn.Linear(5, 4), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        h = self.first(x)
        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6) * self.gain
        h = h + self.b(F.relu(self.a(h)))
        return self.c(F.relu(h))


def test_a_users_own_module(table_of, normal):
    assert table_of(_Own(), normal(8, 6)) == {
        "scale first": 1,
        "rescale a → b": 4,
        "rescale gain, b → a, c": 5,  # the residual ties the branch b to the stream
        "translation c": 5 + 1,
    }


def test_batch_norm_through_a_linear_output(table_of, normal):
    # BatchNorm without affine: only scale and translation are left.
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, affine=False), nn.ReLU(), nn.Linear(5, 3))
    assert table_of(model, normal(8, 6)) == {"scale 0": 5, "translation 0": 5, "translation 3": 6}


@pytest.mark.parametrize(
    ("norm", "scales", "translations"),
    [
        (nn.BatchNorm2d(8), 8, 8),
        (nn.InstanceNorm2d(8, affine=True), 8, 8),
        (nn.GroupNorm(2, 8), 2, 2),  # one mean and one variance for four channels
        (nn.LayerNorm((8, 6, 6)), 1, 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_normalisations_of_images(norm, scales, translations, table_of, normal):
    # The kernel moves the channels by something that differs from place to place: only the bias is translated.
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm, nn.Tanh(), nn.Flatten(), nn.Linear(288, 3))
    assert table_of(model, normal(4, 3, 6, 6)) == {
        "scale 0": scales,
        "translation 0": translations,
        "translation 4": 288 + 1,
    }


def test_weight_normalisation(table_of, normal):
    # W = g v/‖v‖: v's scale is free, and g takes the part of the weight in the rescale.
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)), nn.ReLU(), nn.Linear(5, 3))
    assert table_of(model, normal(8, 6), "scale", "rescale") == {
        "scale 0.parametrizations.weight": 5,
        "rescale 0, 0.parametrizations.weight → 2": 5,
    }


@pytest.mark.parametrize(
    "between",
    [
        nn.LeakyReLU(),
        nn.PReLU(),
        nn.PReLU(8),
        nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.ReLU(), nn.AvgPool2d(2)),
        nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(3)),
        nn.Sequential(nn.ReLU(), nn.Dropout(0.5)),
        nn.Sequential(nn.ReLU(), nn.ZeroPad2d(1)),
        nn.Sequential(nn.ReLU(), nn.ReflectionPad2d(1)),
        nn.Sequential(nn.ReLU(), nn.Upsample(scale_factor=2)),
        nn.Identity(),
    ],
    ids=lambda between: str(between).replace("\n", ""),
)
def test_what_lets_a_rescale_pass(between, table_of, normal):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), between, nn.Conv2d(8, 4, 1), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)
    )
    model(torch.zeros(1, 3, 8, 8))
    assert table_of(model, normal(4, 3, 8, 8), "rescale") == {"rescale 0 → 2": 8}


@pytest.mark.parametrize(("groups", "reader_columns"), [(2, 4), (8, 1)])
def test_grouped_and_depthwise_convolutions_have_their_own_axes(groups, reader_columns, normal):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=groups),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
        nn.Flatten(),
    )
    found = find_symmetries(model, normal(4, 3, 6, 6))
    assert {s.name: s.count for s in found if s.kind == "rescale"} == {"rescale 0 → 2": 8, "rescale 2 → 4": 8}
    (minus,) = found.named("rescale 0 → 2").minus
    # Channel c is read by the 8/groups outputs of its group alone.
    assert minus.view.shape[:3] == (groups, 8 // groups, reader_columns)
    assert minus.axes == (0, 2)


def test_transposed_convolutions_have_input_channels_first(table_of, normal):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 3, groups=2),
        nn.ReLU(),
        nn.Conv2d(6, 4, 1),
        nn.Flatten(),
    )
    assert table_of(model, normal(4, 3, 6, 6), "rescale") == {"rescale 0 → 2": 8, "rescale 2 → 4": 6}


def test_log_softmax_and_nll(table_of, normal):
    model = nn.Sequential(nn.Linear(6, 3), nn.LogSoftmax(-1))
    target = torch.randint(3, (8,), generator=torch.Generator().manual_seed(0))
    assert table_of(model, normal(8, 6), loss=F.nll_loss, target=target) == {"translation 0": 7}


def test_tokens_of_an_embedding_that_enter_a_norm(table_of):
    model = nn.Sequential(nn.Embedding(9, 6), nn.LayerNorm(6), nn.Flatten(), nn.Linear(30, 3))
    tokens = torch.randint(9, (16, 5), generator=torch.Generator().manual_seed(0))
    table = table_of(model, tokens)
    assert table["translation 0"] == 9
    # A row of the table enters the norm alone, yet rows of one lookup share its rule: one scale for the table.
    assert table["scale 0"] == 1


def test_the_model_stays_as_it_is(normal):
    model = mlp([6, 5, 3], "relu", norm="batch")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    find_symmetries(model, normal(8, 6))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


def test_float32_models_are_looked_at_in_float64(table_of):
    model = mlp([6, 5, 3], "relu").float()
    assert table_of(model, torch.randn(8, 6)) == {"rescale linear1 → linear2": 5, "translation linear2": 6}
    assert next(model.parameters()).dtype == torch.float32


class _Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 3)

    def forward(self, x):
        return self.a(x) if x.sum() > 0 else -self.a(x)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (_Branching(), {}, "_Branching cannot be traced"),
        (nn.Linear(6, 3), {"loss": "hinge"}, "'hinge' was given"),
        (nn.Linear(6, 3), {"loss": F.nll_loss}, "needs `target`"),
        (nn.LSTM(6, 3), {}, "returns tuple"),
    ],
    ids=["depends on values", "unknown loss", "no target", "no tensor"],
)
def test_what_cannot_be_looked_at_is_refused_with_the_reason(model, options, message, normal):
    with pytest.raises(SymmetryError, match=message):
        find_symmetries(model, normal(8, 6), **options)


def test_parameters_that_are_not_finite_are_named(normal):
    model = mlp([6, 5, 3], "relu")
    model.linear1.weight.data[0, 0] = torch.nan
    with pytest.raises(SymmetryError, match="the loss is nan"):
        find_symmetries(model, normal(8, 6))
