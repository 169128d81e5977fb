"""Do model and loss compute with the parameters in theta, or with others, or with a second name for their memory?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from nm_ode.arguments import first_line
from nm_ode.loss.derivatives import nodes
from nm_ode.loss.explain import passes_through
from nm_ode.loss.guards import ProblemError
from nm_ode.loss.reachable import reachable


def require_own_parameters(loss: Tensor, parameters: list[nn.Parameter]) -> None:
    """The loss has a gradient, and depends on no parameter but those of the problem's copy of the model.

    Raises:
        ProblemError: it depends on none of `parameters`, on others besides, or its gradient cannot be computed.
    """
    found = _gradient(loss, parameters) if loss.requires_grad else ()
    if all(gradient is None for gradient in found):
        raise ProblemError(
            "the loss does not depend on the model's trainable parameters: evaluate the model that is passed to the "
            "objective (a copy), not the one that it was made from, and with gradients switched on"
        )
    other = parameter_of_others(loss, parameters)
    if other is not None:
        raise ProblemError(
            f"the loss depends on a trainable parameter, of shape {tuple(other.shape)}, that is not in theta: a "
            "problem copies its model, so evaluate the model that is passed to the objective "
            "(Problem.from_objective), not the one that it was made from"
        )


def parameter_of_others(loss: Tensor, parameters: Iterable[nn.Parameter]) -> nn.Parameter | None:
    """A trainable parameter in the loss's graph that is none of these."""
    ours = {id(parameter) for parameter in parameters}
    for node in nodes(loss) if loss.requires_grad else ():
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, nn.Parameter) and id(leaf) not in ours:
            return leaf
    return None


def require_no_second_names(model: nn.Module, loss: object) -> None:
    """No tensor that lies in a trainable parameter's memory: the copy of it would not follow theta.

    Raises:
        ProblemError: an attribute of a module, or what its code or the loss's reaches, is one.
    """
    memory = {
        _storage(parameter): name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.numel() and parameter.layout is torch.strided
    }
    for place, tensor in _tensors(model, loss):
        name = memory.get(_storage(tensor))
        if name is not None:
            raise ProblemError(
                f"{place!r} lies in the memory of parameter {name!r}, which moves with theta while a copy of the "
                "tensor would not: use the parameter itself where the tensor should follow it, a clone of it where "
                "it should not"
            )


def _gradient(loss: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
    try:
        return torch.autograd.grad(loss, parameters, allow_unused=True)
    except Exception as error:
        if passes_through(error):
            raise
        remedy = (
            "call torch.utils.checkpoint with use_reentrant=False"
            if "use_reentrant" in str(error)
            else "look at the backward passes of its custom functions and hooks"
        )
        raise ProblemError(
            f"the gradient of the loss could not be computed ({type(error).__name__}: {first_line(error)}); {remedy}"
        ) from error


def _tensors(model: nn.Module, loss: object) -> Iterator[tuple[str, Tensor]]:
    """All that modules hold directly, then what else is within reach, which has a limit."""
    direct = (
        (f"{name}.{key}".strip("."), value)
        for name, module in model.named_modules()
        for key, value in (*module.__dict__.items(), *module._buffers.items())
    )
    for place, thing in chain(direct, reachable([model, loss])):
        if isinstance(thing, Tensor) and not isinstance(thing, nn.Parameter) and thing.numel():
            yield place, thing


def _storage(tensor: Tensor) -> tuple[torch.device, int]:
    """Which memory it lies in; 0 for what has none."""
    try:
        return tensor.device, tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return tensor.device, id(tensor)
