"""Do a case's model, data and loss go together? Each mistake is named with its key."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from nm_ode.data import DataError, DataSet
from nm_ode.studies.entries import CodeTable, ModelTable
from nm_ode.studies.errors import CaseError
from nm_ode.studies.losses import LOSSES
from nm_ode.studies.schema import Case


def in_the_models_shape(case: Case, path: Path, data: Any) -> Any:
    """The data; as images for a network of images, and images as vectors for one of vectors.

    Raises:
        CaseError: they are no images, or have another size than the model takes.
    """
    if not isinstance(case.model, ModelTable):
        return data
    network, whose = case.model.network, of_what(case)
    if network.takes_images:
        if not isinstance(data, DataSet):
            raise CaseError(
                f"{path}: model.name: {case.model.name!r} takes images (x, y), and {whose} gives "
                f"{type(data).__name__}: build the model in Python too"
            )
        try:
            return data.as_images()
        except DataError as error:
            raise CaseError(f"{path}: data: {error}") from None
    if isinstance(data, DataSet) and network.inputs is not None:
        given, features = case.model.size(network.inputs), math.prod(data.x.shape[1:])
        are_images = data.image is not None
        if given != features or (data.x.ndim != 2 and not are_images):
            raise CaseError(
                f"{path}: model.{network.inputs}: {given} was given; {whose} has inputs of shape "
                f"{tuple(data.x.shape[1:])}, so it must be {features}"
            )
        return data.as_vectors() if are_images else data
    return data


def require_targets_fit(case: Case, path: Path, data: Any) -> None:
    """Raises CaseError unless loss, targets and the model's outputs go together."""
    if case.loss is None or not isinstance(data, DataSet):
        return
    whose, targets = of_what(case), LOSSES[case.loss].targets
    if targets == "own":
        return
    others = " or ".join(repr(name) for name, loss in LOSSES.items() if loss.targets not in (targets, "own"))
    if data.is_classification != (targets == "classes"):
        has = "classes" if data.is_classification else "values, not classes"
        raise CaseError(f"{path}: loss: {case.loss!r} was given; {whose} has {has}: use {others}")
    place = case.model.network.outputs if isinstance(case.model, ModelTable) else None
    if not isinstance(case.model, ModelTable) or place is None:
        return
    outputs, key = case.model.size(place), f"model.{place}"
    if targets == "values":
        if tuple(data.y.shape[1:]) != (outputs,):
            raise CaseError(
                f"{path}: {key}: {outputs} was given; {whose} has targets of shape {tuple(data.y.shape[1:])}"
            )
        return
    low, high = int(data.y.min()), int(data.y.max())
    if data.y.ndim != 1 or low < 0 or high >= outputs:
        raise CaseError(
            f"{path}: {key}: {outputs} was given; the labels of {whose} run from {low} to {high}, and must lie in "
            f"0 … {outputs - 1}: give {key} = {high + 1}, or correct the labels"
        )


def of_what(case: Case) -> str:
    """The data, for a sentence."""
    return case.data.python if isinstance(case.data, CodeTable) else f"data {case.data.name!r}"
