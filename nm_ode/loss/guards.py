"""What is refused, and why: models and losses that are no deterministic, differentiable function of theta."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from nm_ode.errors import NmOdeError


class ProblemError(NmOdeError, ValueError):
    """Model, loss and data do not make a deterministic, differentiable function of theta."""


def require_model_and_loss(model: Any, loss: Any) -> None:
    """A module, and a function of what it gives."""
    if not isinstance(model, nn.Module):
        raise ProblemError(f"model must be a torch.nn.Module; {type(model).__name__} was given")
    if not callable(loss):
        raise ProblemError(
            f"the loss must be a function, such as torch.nn.functional.cross_entropy; {loss!r} was given"
        )


def require_dtype(dtype: Any) -> None:
    """float64 or float32."""
    if not isinstance(dtype, torch.dtype):
        raise ProblemError(f"dtype must be torch.float64 or torch.float32; {dtype!r} was given")
    if dtype not in (torch.float64, torch.float32):
        raise ProblemError(
            f"dtype {str(dtype).removeprefix('torch.')} is too coarse: its rounding hides the errors that "
            "are to be measured; use float64 (or float32)"
        )


def require_chunk_size(chunk_size: int | None, in_memory: bool) -> None:
    """At least 1, and given where the data are not in memory."""
    if chunk_size is not None and chunk_size < 1:
        raise ProblemError(f"chunk_size must be at least 1; {chunk_size} was given")
    if chunk_size is None and not in_memory:
        raise ProblemError(
            "data that are not in memory are read a chunk at a time: give chunk_size, the most samples in one "
            "forward pass (their number, for the whole in one)"
        )


def copied(model: nn.Module) -> nn.Module:
    """A copy of the model."""
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        raise ProblemError(
            f"the model cannot be copied ({error}): a module keeps a computed tensor as an attribute, as the "
            "old torch.nn.utils.weight_norm does; use torch.nn.utils.parametrizations instead"
        ) from error


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


def require_real_and_trainable(parameters: dict[str, nn.Parameter]) -> None:
    """At least one parameter, and none of them complex."""
    for name, parameter in parameters.items():
        if parameter.is_complex():
            raise ProblemError(f"parameter {name!r} is complex; write it as two real ones")
    if not any(parameter.numel() for parameter in parameters.values()):
        raise ProblemError("the model has no trainable parameter (requires_grad is False for all)")


def no_scalar(loss: Any) -> str:
    """What a function returns that should return a scalar."""
    if not isinstance(loss, Tensor):
        return f"returns {type(loss).__name__}; it must return a scalar tensor"
    return f"returns shape {tuple(loss.shape)}; it must return a scalar, as torch's losses do with reduction='mean'"


def refuse_randomness(model: nn.Module) -> None:
    """No active dropout."""
    for name, module in model.named_modules():
        if not module.training:
            continue
        is_dropout = isinstance(module, nn.modules.dropout._DropoutNd)
        rate = module.p if is_dropout else getattr(module, "dropout", 0.0)
        if isinstance(rate, float | int) and rate > 0:
            raise ProblemError(
                f"module {name!r} ({type(module).__name__}) drops units at random with probability {rate}: "
                "a flow needs a deterministic loss; call model.eval(), or set the probability to 0"
            )


def refuse_random_loss(loss: Callable[[], Tensor], dtype: torch.dtype) -> None:
    """Three evaluations of one loss agree."""
    losses = torch.stack([loss() for _ in range(3)])
    spread, scale = (losses - losses[0]).abs().max(), losses.abs().max()
    if spread > 1e3 * torch.finfo(dtype).eps * scale:
        raise ProblemError(
            f"the loss is random: the same theta and data gave {losses[0]:.6g} and {losses[1]:.6g}; "
            "a flow needs a deterministic loss (switch the noise off, or call model.eval())"
        )


def refuse_other_model(loss: Tensor, parameters: list[nn.Parameter]) -> None:
    """The loss depends on the model that the objective was given."""
    if loss.requires_grad:
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        if any(gradient is not None for gradient in found):
            return
    raise ProblemError(
        "the loss does not depend on the model's trainable parameters: evaluate the model that is passed to the "
        "objective (a copy), not the one that it was made from, and with gradients switched on"
    )


def refuse_renormalisation(model: nn.Module) -> None:
    """No embedding that rescales its weights."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
            raise ProblemError(
                f"module {name!r} ({type(module).__name__}) rescales its weights in the forward pass, so the loss "
                "is no function of theta; leave max_norm out"
            )


def refuse_batch_statistics(model: nn.Module, consequence: str, remedy: str) -> None:
    """No BatchNorm that couples the samples of a batch."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.training or module.running_mean is None
        ):
            raise ProblemError(
                f"module {name!r} ({type(module).__name__}) takes its statistics from the batch, so {consequence}; "
                f"{remedy}"
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
