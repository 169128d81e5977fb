"""What was freed goes back to the system."""

from __future__ import annotations

import ctypes
import sys

from bridges.vectors import Vector

_LARGE = 2**20  # bytes of a state: with smaller ones nothing is to be gained


def let_go(state: Vector) -> None:
    """Give back what the C library keeps of freed memory, between two parts of a solve that take much of it.

    glibc keeps freed vectors of up to 32 MB in its heap; the next part's, of other sizes and in another order, do not
    fit into the holes, and the process would hold both. Elsewhere than under glibc it does nothing.

    Args:
        state: of the solve; nothing is done for a small one.
    """
    if sys.platform == "linux" and state.nbytes >= _LARGE:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
