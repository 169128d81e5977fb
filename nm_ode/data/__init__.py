"""Data sets that need no download, and the batches drawn from them."""

from nm_ode.data.batches import BatchSize, sample_batches
from nm_ode.data.sets import DataError, DataSet, Image, diabetes, digits, npz

__all__ = ["BatchSize", "DataError", "DataSet", "Image", "diabetes", "digits", "npz", "sample_batches"]
