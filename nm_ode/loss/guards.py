"""What is refused, and why: models and losses that are no deterministic, differentiable function of theta."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from itertools import pairwise
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from nm_ode.arguments import all_finite, as_count, dtype_name, not_finite
from nm_ode.errors import NmOdeError
from nm_ode.loss.forward_passes import described
from nm_ode.required import as_flag

H = TypeVar("H", bound=Callable[..., None])


class ProblemError(NmOdeError, ValueError):
    """Model, loss and data do not make a deterministic, differentiable function of theta.

    Example:
        >>> from torch import nn, ones
        >>> import nm_ode
        >>> model = nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.5))
        >>> nm_ode.Problem(model, nn.functional.mse_loss, (ones(8, 3), ones(8, 1)))
        Traceback (most recent call last):
            ...
        nm_ode.loss.guards.ProblemError: module '1' (Dropout) drops units at random ...
    """


def require_model_and_loss(model: Any, loss: Any) -> None:
    """A module in Python, and a function of what it gives."""
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise ProblemError(f"model is the class {model.__name__}; give an instance, {model.__name__}(…)")
    if not isinstance(model, nn.Module):
        raise ProblemError(f"model must be a torch.nn.Module; {type(model).__name__} was given")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            what = f"module {name!r} is" if name else "the model is"
            raise ProblemError(
                f"{what} scripted or traced by torch.jit; give the module that it was made from"
            )
    if isinstance(loss, nn.Module) and any(
        isinstance(part, torch.jit.ScriptModule) for part in loss.modules()
    ):
        raise ProblemError(
            "the loss is scripted or traced by torch.jit; give the module that it was made from"
        )
    if isinstance(loss, type):
        raise ProblemError(f"the loss is the class {loss.__name__}; give an instance, {loss.__name__}(…)")
    if not callable(loss):
        raise ProblemError(
            f"the loss must be a function, such as torch.nn.functional.cross_entropy; {loss!r} was given"
        )


def require_chunk_size(chunk_size: Any, in_memory: bool, at_once: int | None = None) -> int | None:
    """At least 1, and given where the data are not in memory; `at_once` (of a DataLoader) if it is not."""
    chunk_size = at_once if chunk_size is None else chunk_size
    if chunk_size is not None:
        return as_count(chunk_size, "chunk_size", error=ProblemError)
    if not in_memory:
        raise ProblemError(
            "data that are not in memory are read a chunk at a time: give chunk_size, the most samples in one "
            "forward pass (their number, for the whole in one)"
        )
    return None


def require_ghosts(ghost_batches: Any, chunk_size: int | None) -> bool:
    """Given with a size alone."""
    ghosts = as_flag(ghost_batches, "ghost_batches")
    if ghosts and chunk_size is None:
        raise ProblemError("ghost_batches are of chunk_size samples: give that too")
    return ghosts


def require_initialised(model: nn.Module) -> None:
    """Every parameter has a shape."""
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ProblemError(f"parameter {name!r} has no shape yet: run the model once on an input first")


def require_separate(model: nn.Module) -> None:
    """No two parameters over the same memory: torch.optim would move it twice, a flat vector only once."""
    taken = sorted(
        (p.data_ptr(), p.data_ptr() + p.numel() * p.element_size(), name)
        for name, p in model.named_parameters()
        if p.numel()
    )
    for (_, end, name), (start, _, other) in pairwise(taken):
        if start < end:
            raise ProblemError(
                f"parameters {name!r} and {other!r} share memory but are two parameters: tie them by "
                "assigning the same nn.Parameter to both"
            )


def require_no_parameter_hooks(model: nn.Module) -> None:
    """No hook on a parameter, which the copy would not have: torch.optim would train by another gradient."""
    for name, parameter in model.named_parameters():
        if is_hooked(parameter):
            raise ProblemError(
                f"parameter {name!r} has a hook, which a copy of the model does not have: remove it, and do what it "
                "does in the forward pass, in the loss or in an optimiser of your own"
            )


def is_hooked(parameter: nn.Parameter) -> bool:
    """By `register_hook` or its kin, unless all that it does is to look."""
    hooks = [
        *(parameter._backward_hooks or {}).values(),
        *(getattr(parameter, "_post_accumulate_grad_hooks", None) or {}).values(),
    ]
    return not all(getattr(hook, "only_looks", False) for hook in hooks)


def only_looking(hook: H) -> H:
    """A hook that changes no gradient, such as a Recorder's: a copy of the model can do without."""

    @wraps(hook)
    def called(*args: Any) -> None:
        hook(*args)

    called.only_looks = True  # type: ignore[attr-defined]
    return cast(H, called)


def require_real_and_trainable(model: nn.Module) -> None:
    """At least one parameter to train, and none of those complex, without values or not finite.

    Looked at before they are converted to the problem's dtype, which takes the real part.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for name, parameter in trainable.items():
        if parameter.is_complex():
            raise ProblemError(
                f"parameter {name!r} is complex; write it as two real ones (torch.view_as_real)"
            )
        if parameter.is_meta or parameter.layout is not torch.strided:
            raise ProblemError(
                f"parameter {name!r} has no values (device 'meta'), or is sparse: make it a dense one"
            )
        if not all_finite(parameter.detach()):
            raise ProblemError(f"parameter {name!r} has {not_finite(parameter.detach())}")
    if not any(parameter.numel() for parameter in trainable.values()):
        raise ProblemError("the model has no trainable parameter (requires_grad is False for all)")


def no_scalar(loss: Any) -> str:
    """What a function returns that should return a scalar; "" if it is one."""
    if not isinstance(loss, Tensor):
        return f"returns {type(loss).__name__}; it must return a scalar tensor"
    if loss.ndim:
        return f"returns shape {tuple(loss.shape)}; it must return a scalar, as torch's losses do with reduction='mean'"
    if not loss.is_floating_point():
        return f"returns {dtype_name(loss.dtype)}; it must return a real floating-point scalar"
    return ""


def refuse_randomness(model: nn.Module) -> None:
    """No active dropout."""
    for name, module in model.named_modules():
        if not module.training:
            continue
        is_dropout = isinstance(module, nn.modules.dropout._DropoutNd)
        rate = module.p if is_dropout else getattr(module, "dropout", 0.0)
        if isinstance(rate, float | int) and rate > 0:
            raise ProblemError(
                f"{described(name, module)} drops units at random with probability {rate}: "
                "a flow needs a deterministic loss; call model.eval(), or set the probability to 0 "
                "(nm_ode.RandomProblem is trained with it)"
            )


def refuse_renormalisation(model: nn.Module) -> None:
    """No embedding that rescales its weights."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
            raise ProblemError(
                f"{described(name, module)} rescales its weights in the forward pass, so the loss "
                "is no function of theta; leave max_norm out"
            )


def refuse_batch_statistics(model: nn.Module, consequence: str, remedy: str) -> None:
    """No BatchNorm that couples the samples of a batch."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.training or module.running_mean is None
        ):
            raise ProblemError(
                f"{described(name, module)} takes its statistics from the batch, so {consequence}; {remedy}"
            )


def make_forward_pure(model: nn.Module) -> None:
    """Take out what a forward pass would write to the model.

    In train mode running statistics are written but not read: without them a forward pass is pure.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.training:
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            module.sparse = False
