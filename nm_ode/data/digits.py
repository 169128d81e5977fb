"""scikit-learn's digits (Alpaydin & Kaynak 1998, the test set)."""

from __future__ import annotations

import numpy as np
import torch

from nm_ode.data.base import DataSet, Image


def digits(samples: int | None = None) -> DataSet:
    """scikit-learn's 8×8 digits in the order of the file, pixels divided by 16: x (n, 64), y (n,).

    Args:
        samples: how many of the first; all 1797 if None.

    Returns:
        A `DataSet`, x in float64 and y in int64.

    Raises:
        DataError: fewer than one, or more than there are.

    Example:
        >>> from nm_ode.data import digits
        >>> data = digits(samples=100)
        >>> tuple(data.x.shape), tuple(data.y.shape), data.y[:10].tolist()
        ((100, 64), (100,), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    data = DataSet(torch.from_numpy(x / 16.0), torch.from_numpy(y.astype(np.int64)), Image(1, 8))
    return data.first(samples, "digits")
