"""The `[model]` table: one class a network, each knows how to build it and what data it takes."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError
from torch import nn

from nm_ode.data import Image
from nm_ode.models import ACTIVATIONS, cnn, mlp, resnet18, vgg, vit
from nm_ode.registry import did_you_mean
from nm_ode.studies.tables import Table


def _known_activation(value: str) -> str:
    if value not in ACTIVATIONS:
        raise PydanticCustomError("unknown_name", "{hint}", {"hint": did_you_mean(value, ACTIVATIONS)})
    return value


Width: TypeAlias = Annotated[int, Field(ge=1)]
Activation: TypeAlias = Annotated[str, AfterValidator(_known_activation)]


class FlatModel(Table):
    """A network whose samples are vectors; it says how many inputs and outputs it has."""

    takes_images: ClassVar[bool] = False


class ImageModel(Table):
    """A network whose samples are images: it takes their size and channels from the data."""

    takes_images: ClassVar[bool] = True
    classes: Annotated[int, Field(ge=1)]

    def output(self) -> tuple[str, int]:
        """The key that says the number of outputs, and its value."""
        return "model.classes", self.classes


class MlpModel(FlatModel):
    """Linear layers with an activation between, and a normalisation before it if wanted."""

    name: Literal["mlp"]
    widths: Annotated[list[Width], Field(min_length=2)]
    activation: Activation = "tanh"
    norm: Literal["none", "batch", "layer"] = "none"
    bias: bool = True

    def input(self) -> tuple[str, int]:
        """The key that says the number of inputs, and its value."""
        return "model.widths[0]", self.widths[0]

    def output(self) -> tuple[str, int]:
        """The key that says the number of outputs, and its value."""
        return "model.widths[-1]", self.widths[-1]

    def build(self, seed: int) -> nn.Module:
        """The network in float64."""
        return mlp(self.widths, self.activation, bias=self.bias, norm=self.norm, seed=seed)


class LinearModel(FlatModel):
    """One linear layer: linear or logistic regression."""

    name: Literal["linear"]
    inputs: Annotated[int, Field(ge=1)]
    outputs: Annotated[int, Field(ge=1)]
    bias: bool = True

    def input(self) -> tuple[str, int]:
        """The key that says the number of inputs, and its value."""
        return "model.inputs", self.inputs

    def output(self) -> tuple[str, int]:
        """The key that says the number of outputs, and its value."""
        return "model.outputs", self.outputs

    def build(self, seed: int) -> nn.Module:
        """The network in float64."""
        return mlp((self.inputs, self.outputs), bias=self.bias, seed=seed)


class CnnModel(ImageModel):
    """3×3 convolutions with a pooling after each, then one Linear layer."""

    name: Literal["cnn"]
    widths: Annotated[list[Width], Field(min_length=1, default_factory=lambda: [8, 16])]
    activation: Activation = "relu"
    batch_norm: bool = False

    def build(self, seed: int, image: Image) -> nn.Module:
        """The network in float64."""
        return cnn(
            self.widths,
            classes=self.classes,
            image=image.side,
            channels=image.channels,
            activation=self.activation,
            batch_norm=self.batch_norm,
            seed=seed,
        )


class VggModel(ImageModel):
    """VGG of a known depth, or of a plan of its own: channels, and "M" for a pooling."""

    name: Literal["vgg"]
    depth: Literal[11, 13, 16, 19] | None = None
    plan: list[int | Literal["M"]] | None = None
    hidden: Annotated[list[Width], Field(default_factory=lambda: [4096, 4096])]
    width: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    batch_norm: bool = False

    @field_validator("plan", mode="before")
    @classmethod
    def _channels_or_pooling(cls, plan: Any) -> Any:
        fits = isinstance(plan, list) and all(n == "M" or (type(n) is int and n >= 1) for n in plan)
        if plan is not None and not (fits and plan):
            raise PydanticCustomError("not_allowed", "a list of numbers of channels, with 'M' for a pooling")
        return plan

    @model_validator(mode="after")
    def _depth_or_plan(self) -> VggModel:
        if (self.depth is None) == (self.plan is None):
            raise PydanticCustomError("combination", "give depth or plan, one of the two")
        return self

    def build(self, seed: int, image: Image) -> nn.Module:
        """The network in float64."""
        return vgg(
            self.depth or 16,
            plan=self.plan,
            classes=self.classes,
            image=image.side,
            channels=image.channels,
            batch_norm=self.batch_norm,
            hidden=self.hidden,
            width=self.width,
            seed=seed,
        )


class ResNetModel(ImageModel):
    """ResNet-18."""

    name: Literal["resnet18"]
    norm: Literal["batch", "group"] = "batch"
    width: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    def build(self, seed: int, image: Image) -> nn.Module:
        """The network in float64."""
        return resnet18(
            classes=self.classes, channels=image.channels, norm=self.norm, width=self.width, seed=seed
        )


class VitModel(ImageModel):
    """A small vision transformer, pre-norm."""

    name: Literal["vit"]
    patch: Annotated[int, Field(ge=1)] = 2
    dim: Annotated[int, Field(ge=1)] = 32
    depth: Annotated[int, Field(ge=1)] = 2
    heads: Annotated[int, Field(ge=1)] = 4
    hidden: Annotated[int, Field(ge=1)] = 64
    norm: Literal["layer", "rms"] = "layer"
    mlp: Literal["mlp", "glu"] = "mlp"
    activation: Activation = "gelu"

    def build(self, seed: int, image: Image) -> nn.Module:
        """The network in float64."""
        return vit(
            image=image.side,
            channels=image.channels,
            seed=seed,
            **self.model_dump(exclude={"name"}),
        )


ModelTable: TypeAlias = Annotated[
    MlpModel | LinearModel | CnnModel | VggModel | ResNetModel | VitModel, Field(discriminator="name")
]
