"""The zoo: sizes known from the literature, shapes, seeds, mistakes."""

from __future__ import annotations

import pytest
import torch

from nm_ode.models import cnn, mlp, resnet18, vgg, vit


def size(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("depth", "batch_norm", "parameters"),
    [  # of torchvision's models for 224×224 images and 1000 classes
        (11, False, 132_863_336),
        (13, False, 133_047_848),
        (16, False, 138_357_544),
        (19, False, 143_667_240),
        (11, True, 132_868_840),
        (16, True, 138_365_992),
    ],
)
def test_vgg_has_the_published_size(depth, batch_norm, parameters):
    with torch.device("meta"):
        assert size(vgg(depth, image=224, classes=1000, batch_norm=batch_norm)) == parameters


def test_vgg_by_default_is_the_papers():
    with torch.device("meta"):
        model = vgg(16)
        assert model(torch.empty(2, 3, 64, 64, dtype=torch.float64)).shape == (2, 200)


def test_resnet18_has_the_published_size():
    # For 32×32 images and 10 classes, with a 3×3 stem and without pooling behind it.
    assert size(resnet18(classes=10)) == 11_173_962
    assert size(resnet18(classes=10, norm="group")) == 11_173_962


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda seed: mlp([64, 8, 10], "relu", norm="layer", seed=seed), (64,)),
        (lambda seed: cnn(batch_norm=True, seed=seed), (1, 8, 8)),
        (
            lambda seed: vgg(plan=[4, "M", 8], image=8, channels=1, classes=10, hidden=[6], seed=seed),
            (1, 8, 8),
        ),
        (lambda seed: resnet18(classes=10, channels=1, width=0.125, seed=seed), (1, 8, 8)),
        (lambda seed: vit(seed=seed, norm="rms", mlp="glu"), (1, 8, 8)),
    ],
    ids=["mlp", "cnn", "vgg", "resnet18", "vit"],
)
def test_a_seed_fixes_a_network_and_leaves_the_global_state(build, shape):
    state = torch.random.get_rng_state()
    model, again, other = build(0), build(0), build(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    same = [torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)]
    assert all(same)
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    x = torch.rand(3, *shape, dtype=torch.float64)
    assert model(x).shape == (3, 10)
    assert all(p.dtype == torch.float64 for p in model.parameters())


def test_vits_attention_is_torchs_own():
    # nn.MultiheadAttention with the same weights gives the same.
    attention = vit(dim=8, heads=2).blocks[0].attention
    reference = torch.nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    layers = [attention.query, attention.key, attention.value]
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        reference.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        reference.out_proj.weight.copy_(attention.out.weight)
        reference.out_proj.bias.copy_(attention.out.bias)
    x = torch.rand(3, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(attention(x), reference(x, x, x)[0])


def test_vit_patches_are_squares_of_the_image():
    model = vit(image=4, patch=2, dim=4, heads=1)
    x = torch.arange(16.0, dtype=torch.float64).reshape(1, 1, 4, 4)
    seen = []
    model.embed.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(x)
    assert seen[0][0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mlp([3, 2], norm="group"), "norm must be one of none, batch, layer; 'group' was given"),
        (lambda: vgg(12), "depth must be one of 11, 13, 16, 19; 12 was given"),
        (lambda: vgg(16, image=16), "image = 16 is too small: 5 poolings"),
        (lambda: cnn([4, 4], image=2), "2 poolings leave nothing"),
        (lambda: cnn([4], pooling="mean"), "pooling must be one of max, average; 'mean' was given"),
        (lambda: resnet18(norm="layer"), "norm must be 'batch' or 'group'"),
        (lambda: vit(patch=3), "patch must divide image"),
        (lambda: vit(norm="batch"), "norm must be 'layer' or 'rms'"),
        (lambda: vit(mlp="moe"), "mlp must be 'mlp' or 'glu'"),
    ],
)
def test_mistakes_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
