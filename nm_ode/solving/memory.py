"""Is there memory for a solve? And what was freed goes back to the system."""

from __future__ import annotations

from torch import Tensor

from bridges import Engine
from bridges.vectors import Vector
from nm_ode.memory import available_on, require_memory, trim

_LARGE = 2**20  # bytes of a state: with smaller ones nothing is to be gained, and all have room

_FLOAT64 = 8


def require_room(engine: Engine, method: str, state: Tensor) -> None:
    """Refuse a solve whose method holds more vectors than there is memory for, where they will lie.

    Args:
        state: at the start, in the dtype that the field computes in.

    Raises:
        ArgumentError: with the methods that hold fewer.
    """
    used = engine.methods[method]
    if used.vectors is None or state.nbytes < _LARGE:
        return

    taken = {
        name: len(state) * (other.vectors[0] * _FLOAT64 + other.vectors[1] * state.itemsize)
        for name, other in engine.methods.items()
        if other.vectors is not None and other.step == used.step
    }
    fewer = [name for name in sorted(taken, key=taken.__getitem__) if taken[name] < taken[method]]
    remedy = f"take {' or '.join(fewer)}, with fewer" if fewer else "take a smaller network"
    free = available_on(state.device) if engine.capabilities.tensors else None
    require_memory(
        taken[method],
        f"{engine.name} {method}, with {sum(used.vectors)} vectors of {len(state):,} numbers,",
        remedy,
        free,
    )


def let_go(state: Vector) -> None:
    """Give back what the C library keeps of freed memory, between two parts of a solve that take much of it.

    glibc keeps freed vectors of up to 32 MB in its heap; the next part's, of other sizes and in another order, do not
    fit into the holes, and the process would hold both. Elsewhere than under glibc it does nothing.

    Args:
        state: of the solve; nothing is done for a small one.
    """
    if state.nbytes >= _LARGE:
        trim()
