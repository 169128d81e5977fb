"""scikit-learn's diabetes (Efron et al. 2004)."""

from __future__ import annotations

import torch

from nm_ode.data.base import DataSet


def diabetes(samples: int | None = None) -> DataSet:
    """scikit-learn's diabetes, inputs and target standardised: x (n, 10), y (n, 1).

    Args:
        samples: how many of the first; all 442 if None.

    Returns:
        A `DataSet`, both in float64.

    Raises:
        DataError: fewer than one, or more than there are.

    Example:
        >>> from nm_ode.data import diabetes
        >>> data = diabetes()
        >>> tuple(data.x.shape), tuple(data.y.shape), round(float(data.y.std(correction=0)), 6)
        ((442, 10), (442, 1), 1.0)
    """
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True, scaled=False)
    x, y = ((part - part.mean(axis=0)) / part.std(axis=0) for part in (x, y[:, None]))
    return DataSet(torch.from_numpy(x), torch.from_numpy(y)).first(samples, "diabetes")
