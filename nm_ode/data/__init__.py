"""Data sets that need no download, and the batches drawn from them."""

from collections.abc import Callable

from nm_ode.data.batches import BatchSize, sample_batches
from nm_ode.data.sets import DataError, DataSet, Image, diabetes, digits, npz
from nm_ode.registry import Registry

DATA: Registry[Callable[..., DataSet]] = Registry(
    "data set", {"digits": digits, "diabetes": diabetes, "npz": npz}
)

__all__ = [
    "DATA",
    "BatchSize",
    "DataError",
    "DataSet",
    "Image",
    "diabetes",
    "digits",
    "npz",
    "sample_batches",
]
