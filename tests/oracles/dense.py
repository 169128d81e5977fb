"""Loss, gradient and Hessian by torch.func on a dictionary of parameters, with no flat buffer anywhere."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from nm_ode import Problem


def dense_loss(model: nn.Module, loss_fn, x: Tensor, y: Tensor):
    """theta -> loss, theta being the trainable parameters end to end in the model's order."""
    trainable = [(name, p.shape, p.numel()) for name, p in model.named_parameters() if p.requires_grad]

    def loss(theta: Tensor) -> Tensor:
        parameters, start = {}, 0
        for name, shape, size in trainable:
            parameters[name] = theta[start : start + size].reshape(shape)
            start += size
        return loss_fn(functional_call(model, parameters, (x,), tie_weights=True), y)

    return loss


def flat_parameters(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters() if p.requires_grad]).clone()


def dense_gradient(loss, theta: Tensor) -> Tensor:
    leaf = theta.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf)[0]


def dense_hessian(loss, theta: Tensor, *, reverse_over_reverse: bool = False) -> Tensor:
    """By torch.func.hessian (forward over reverse), or by reverse mode twice.

    Forward over reverse is wrong for LayerNorm in torch 2.13: not even symmetric (by 7 % on this suite's
    network), and off from finite differences by as much, where reverse mode twice agrees with them.
    """
    if reverse_over_reverse:
        return torch.autograd.functional.hessian(loss, theta)
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*")  # torch.func's own use of it
        return torch.func.hessian(loss)(theta)


def regularised(problem: Problem, weight_decay: float):
    """theta -> L(theta) + λ/2 ‖theta‖², on the problem's own data."""
    loss = dense_loss(problem.model, problem.loss_fn, problem.x, problem.y)
    return lambda theta: loss(theta) + weight_decay / 2 * theta @ theta
