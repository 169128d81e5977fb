"""Convolutional networks, in train mode: blocks of timm's at small widths, the rest written out."""

from __future__ import annotations

from typing import Any

import torch
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from timm.models.mlp_mixer import MlpMixer
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.registry import Net, classified, network, supervised

B, SIDE, CLASSES = 6, 8, 3


def _images(model: nn.Module) -> Net:
    return classified(model.train(), torch.randn(B, 2, SIDE, SIDE), CLASSES)


class ResNet(nn.Module):
    """A stem, two stages of timm's blocks, the second with stride and a convolved shortcut, a head (He et al. 2016)."""

    def __init__(self, block: type[nn.Module], planes: tuple[int, int] = (3, 2)) -> None:
        super().__init__()
        wide = block.expansion
        first, second = (n * wide for n in planes)
        self.stem = nn.Sequential(
            nn.Conv2d(2, first, 3, padding=1, bias=False), nn.BatchNorm2d(first), nn.ReLU(inplace=True)
        )
        short = nn.Sequential(nn.Conv2d(first, second, 1, stride=2, bias=False), nn.BatchNorm2d(second))
        self.blocks = nn.Sequential(
            block(first, planes[0]), block(first, planes[1], stride=2, downsample=short)
        )
        self.head = nn.Linear(second, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))  # type: ignore[no-any-return]


@network("ResNet, basic blocks", "vision", "timm's blocks", "cross entropy")
def resnet() -> Net:
    return _images(ResNet(BasicBlock))


@network("ResNet, bottlenecks", "vision", "timm's blocks", "cross entropy")
def resnet_bottleneck() -> Net:
    return _images(ResNet(Bottleneck, (2, 2)))


@network("ResNet, eval mode (fine-tuned)", "vision", "timm's blocks", "cross entropy")
def resnet_eval() -> Net:
    net = resnet()
    net.model(net.batch[0])  # running statistics that are not those of the start
    net.model.eval()
    return net


class VGG(nn.Module):
    """VGG with one layer before the head (Simonyan and Zisserman 2015), with and without BatchNorm."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((2, 3), (3, 4)):
            layers.append(nn.Conv2d(before, after, 3, padding=1))
            layers += [nn.BatchNorm2d(after)] if norm else []
            layers += [nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(16, 5), nn.ReLU(inplace=True), nn.Linear(5, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))  # type: ignore[no-any-return]


@network("VGG", "vision", "written out", "cross entropy")
def vgg() -> Net:
    return _images(VGG(norm=False))


@network("VGG, BatchNorm", "vision", "written out", "cross entropy")
def vgg_bn() -> Net:
    return _images(VGG(norm=True))


def _of_blocks(kind: type[nn.Module], blocks: list[Any], features: int, act: type[nn.Module]) -> Net:
    return _images(
        kind(
            blocks,
            num_classes=CLASSES,
            in_chans=2,
            num_features=features,
            stem_size=4,
            act_layer=act,
            round_chs_fn=int,
            fix_stem=True,
        )
    )


@network("MobileNetV2", "vision", "timm", "cross entropy")
def mobilenet_v2() -> Net:
    blocks = decode_arch_def([["ds_r1_k3_s1_c4"], ["ir_r2_k3_s2_e2_c4"]])
    return _of_blocks(EfficientNet, blocks, 5, nn.ReLU6)


@network("MobileNetV3", "vision", "timm", "cross entropy")
def mobilenet_v3() -> Net:
    blocks = decode_arch_def(
        [["ds_r1_k3_s1_e1_c4_se0.5_nre"], ["ir_r1_k3_s2_e2_c4_se0.5"], ["cn_r1_k1_s1_c5"]]
    )
    return _of_blocks(MobileNetV3, blocks, 6, nn.Hardswish)


@network("EfficientNet", "vision", "timm", "cross entropy")
def efficientnet() -> Net:
    blocks = decode_arch_def([["ds_r1_k3_s1_e1_c4_se0.25"], ["ir_r2_k3_s2_e2_c4_se0.25"]])
    return _of_blocks(EfficientNet, blocks, 5, nn.SiLU)


class DenseNet(nn.Module):
    """Each layer (BN, ReLU, convolution) adds channels to all before; a transition halves (Huang et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1, bias=False)
        self.one, self.two, self.three = (self._layer(n, 2, 3) for n in (3, 5, 3))
        self.transition = self._layer(7, 3, 1)
        self.norm, self.head = nn.BatchNorm2d(5), nn.Linear(5, CLASSES)

    @staticmethod
    def _layer(before: int, after: int, side: int) -> nn.Sequential:
        convolution = nn.Conv2d(before, after, side, padding=side // 2, bias=False)
        return nn.Sequential(nn.BatchNorm2d(before), nn.ReLU(), convolution)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.one(x)], 1)
        x = torch.cat([x, self.two(x)], 1)
        x = F.avg_pool2d(self.transition(x), 2)
        x = torch.cat([x, self.three(x)], 1)
        return self.head(F.relu(self.norm(x)).mean((2, 3)))  # type: ignore[no-any-return]


@network("DenseNet", "vision", "written out", "cross entropy")
def densenet() -> Net:
    return _images(DenseNet())


@network("MLP-Mixer", "vision", "timm", "cross entropy")
def mixer() -> Net:
    return _images(
        MlpMixer(
            num_classes=CLASSES,
            img_size=SIDE,
            in_chans=2,
            patch_size=4,
            num_blocks=1,
            embed_dim=4,
            mlp_ratio=(1.0, 1.5),
        )
    )


class UNet(nn.Module):
    """Two levels, two convolutions each with BatchNorm, a transposed convolution upwards (Ronneberger et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = _double(2, 2), _double(2, 3), _double(4, 2)
        self.up = nn.ConvTranspose2d(3, 2, 2, stride=2)
        self.head = nn.Conv2d(2, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.first(x)
        coarse = self.second(F.max_pool2d(fine, 2))
        return self.head(self.last(torch.cat([fine, self.up(coarse)], 1)))  # type: ignore[no-any-return]


def _double(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


@network("U-Net", "vision", "written out", "cross entropy of every pixel")
def unet() -> Net:
    return supervised(
        UNet().train(), F.cross_entropy, torch.randn(4, 2, 4, 4), torch.randint(CLASSES, (4, 4, 4))
    )


class Capsules(nn.Module):
    """Primary capsules, two rounds of routing by agreement, squash (Sabour et al. 2017)."""

    def __init__(self, before: int = 3, after: int = CLASSES, width: int = 2, out: int = 2) -> None:
        super().__init__()
        self.primary = nn.Linear(6, before * width)
        self.weight = nn.Parameter(torch.randn(before, after, out, width) * 0.5)

    def forward(self, x: Tensor) -> Tensor:
        u = _squash(self.primary(x).unflatten(1, (self.weight.shape[0], -1)))
        votes = torch.einsum("ijok,bik->bijo", self.weight, u)
        routing = torch.zeros_like(votes[..., 0])
        for _ in range(2):
            v = _squash(torch.einsum("bij,bijo->bjo", routing.softmax(2), votes))
            routing = routing + torch.einsum("bijo,bjo->bij", votes, v)
        return v.norm(dim=-1)


def _squash(s: Tensor) -> Tensor:
    square = s.square().sum(-1, keepdim=True)
    return s * (square / (1 + square) / (square + 1e-12).sqrt())


def _margin(lengths: Tensor, y: Tensor) -> Tensor:
    hot = F.one_hot(y, lengths.shape[1]).to(lengths.dtype)
    there, other = F.relu(0.9 - lengths).square(), F.relu(lengths - 0.1).square()
    return (hot * there + 0.5 * (1 - hot) * other).sum(1).mean()


@network("Capsule network", "vision", "written out", "margin")
def capsules() -> Net:
    return supervised(Capsules(), _margin, torch.randn(B, 6), torch.randint(CLASSES, (B,)))
