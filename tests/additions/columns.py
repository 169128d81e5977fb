"""A data set of one file: columns of a text file, the last of them the target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from nm_ode.data import DataError, DataSet


def columns(path: Path, delimiter: str = ",") -> DataSet:
    """Inputs and one value for each line.

    Raises:
        DataError: the file cannot be read as numbers.
    """
    try:
        numbers = torch.from_numpy(np.loadtxt(path, delimiter=delimiter, ndmin=2))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} has no columns of numbers ({error})") from None
    return DataSet(numbers[:, :-1], numbers[:, -1:])
