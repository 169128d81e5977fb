"""Data sets that need no download."""

from nm_ode.data.sets import DataError, DataSet, Image, diabetes, digits, npz

__all__ = ["DataError", "DataSet", "Image", "diabetes", "digits", "npz"]
