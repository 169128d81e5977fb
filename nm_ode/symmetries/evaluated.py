"""The loss of the example, before anything is made of it: what cannot be evaluated is said in one sentence."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nm_ode.arguments import dtype_name, first_line
from nm_ode.loss.bindings import parameter_of_others
from nm_ode.loss.explain import without_float64
from nm_ode.loss.guards import no_scalar
from nm_ode.loss.objective import Objective
from nm_ode.symmetries.batches import Batch, on_cpu, tensors_of
from nm_ode.symmetries.errors import SymmetryError
from nm_ode.symmetries.loss_module import LossModule


def loss_at_example(
    model: nn.Module, objective: Objective, batch: Batch, *, instead_of: tuple[nn.Module, Objective] | None
) -> None:
    """The loss of a copy can be evaluated at the example, and is that of the model as it was given.

    Args:
        model, objective, batch: in the dtype in which symmetries are verified.
        instead_of: model and objective as they were given, in their own dtype; None where that is the same.

    Raises:
        SymmetryError: there is no finite scalar, or the model does something else in its own dtype.
    """
    loss = _evaluated(model, objective, batch)
    if instead_of is None:
        return
    dtypes = {p.dtype for p in instead_of[0].parameters() if p.is_floating_point()}
    if len(dtypes) == 1 and dtypes != {torch.float64}:
        dtype = dtypes.pop()
        own = _in_dtype(*instead_of, batch, dtype)
        far = 10 * math.sqrt(torch.finfo(dtype).eps)
        other = own is not None and not abs(own - loss) <= far * max(abs(own), abs(loss))
        if other and loss == _evaluated(model, objective, batch, seed=1):  # not by what is drawn in it
            raise SymmetryError(
                f"the loss is {own:.6g} in {dtype_name(dtype)}, in which the model is, and {loss:.6g} "
                "in float64, in which symmetries are verified: does the model ask for dtypes?"
            )


def _in_dtype(model: nn.Module, objective: Objective, batch: Batch, dtype: torch.dtype) -> float | None:
    try:
        return _evaluated(model, objective, on_cpu(batch, dtype))
    except SymmetryError:
        return None


def _evaluated(model: nn.Module, objective: Objective, batch: Batch, seed: int = 0) -> float:
    try:
        loss = LossModule(model, objective, batch).evaluated(tensors_of(batch), seed)
    except SymmetryError:
        raise
    except Exception as error:
        remedy = without_float64(str(error))
        raise SymmetryError(
            f"the loss of the example cannot be evaluated ({type(error).__name__}: {first_line(error)})"
            + f"; {remedy}" * bool(remedy)
        ) from error
    other = parameter_of_others(loss, model.parameters()) if isinstance(loss, Tensor) else None
    if other is not None:
        raise SymmetryError(
            f"the loss reads a trainable parameter, of shape {tuple(other.shape)}, by another way than through the "
            "model whose output it is given: let the model return what the loss needs, or its own loss "
            "(nm_ode.own_loss)"
        )
    loss = loss.detach() if isinstance(loss, Tensor) else loss
    if not isinstance(loss, Tensor) or loss.ndim:
        raise SymmetryError(f"the loss {no_scalar(loss)}")
    if not math.isfinite(float(loss)):
        raise SymmetryError(
            f"the loss is {float(loss)} at the example, so that nothing can be verified: are the model's parameters "
            "and the data finite?"
        )
    return float(loss)
