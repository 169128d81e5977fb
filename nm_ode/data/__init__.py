"""Data sets that need no download, sources of samples, and the batches drawn from them."""

from __future__ import annotations

from collections.abc import Callable

from nm_ode.data.base import DataError, DataSet, Image
from nm_ode.data.batches import BatchSize, sample_batches
from nm_ode.data.diabetes import diabetes
from nm_ode.data.digits import digits
from nm_ode.data.indices import Samples
from nm_ode.data.npz import npz, npz_source
from nm_ode.data.preparation import Augmentation, Preparation, PreparedSource
from nm_ode.data.sources import ArraySource, DatasetSource, Source, TensorSource, source_of
from nm_ode.registry import Registry

DATA: Registry[Callable[..., DataSet]] = Registry(
    "data set",
    {
        "digits": "nm_ode.data.digits:digits",
        "diabetes": "nm_ode.data.diabetes:diabetes",
        "npz": "nm_ode.data.npz:npz",
        "tiny_imagenet": "nm_ode.data.images.tiny_imagenet:tiny_imagenet",
        "image_folder": "nm_ode.data.images.image_folder:image_folder",
        "cifar10": "nm_ode.data.images.cifar:cifar10",
        "cifar100": "nm_ode.data.images.cifar:cifar100",
        "mnist": "nm_ode.data.images.mnist:mnist",
    },
)
"""Data sets by name: functions of keyword arguments, of which all take `samples`, the number of first samples.

Example:
    >>> from nm_ode.data import DATA
    >>> sorted(DATA)
    ['cifar10', 'cifar100', 'diabetes', 'digits', 'image_folder', 'mnist', 'npz', 'tiny_imagenet']
    >>> tuple(DATA["diabetes"](samples=5).x.shape)
    (5, 10)
"""

__all__ = [
    "DATA",
    "ArraySource",
    "Augmentation",
    "BatchSize",
    "DataError",
    "DataSet",
    "DatasetSource",
    "Image",
    "Preparation",
    "PreparedSource",
    "Samples",
    "Source",
    "TensorSource",
    "diabetes",
    "digits",
    "npz",
    "npz_source",
    "sample_batches",
    "source_of",
]
