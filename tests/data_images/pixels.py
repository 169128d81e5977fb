"""An image file's pixels, as one reads them by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image


def by_hand(path: Path) -> torch.Tensor:
    """uint8, shape (3, height, width)."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
