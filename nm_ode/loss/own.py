"""Models that return their own loss, as those of language libraries do, and losses with parameters of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from nm_ode.loss.calling import call
from nm_ode.loss.guards import ProblemError


def own_loss(model: Any, batch: Any) -> Tensor:
    """The loss that a model returns of a batch: an objective.

    The model is called as `model(**batch)`, `model(*batch)` or `model(batch)`, whichever its forward takes. What it
    returns is the loss itself, has it as `.loss` or `["loss"]`, or as the first part of a tuple.

    Args:
        model: any module.
        batch: its inputs and targets.

    Returns:
        A scalar.

    Raises:
        ProblemError: there is no loss in it.

    Example:
        >>> from torch import nn, ones
        >>> import nm_ode
        >>> class WithTargets(nn.Linear):
        ...     def forward(self, x, y):
        ...         return {"loss": (super().forward(x) - y).square().mean()}
        >>> problem = nm_ode.Problem.from_objective(WithTargets(3, 1), nm_ode.own_loss, (ones(8, 3), ones(8, 1)))
        >>> problem.grad(problem.theta0).shape
        torch.Size([4])
    """
    made = call(model, batch)
    loss = loss_in(made)
    if loss is None:
        raise ProblemError(
            f"the model returns {_described(made)}, in which there is no loss (a scalar, `.loss`, ['loss'] or the "
            "first part of a tuple): give it its targets in the batch (a model of transformers takes `labels`), or "
            "Problem.from_objective with an objective of your own"
        )
    return loss


def loss_in(made: Any) -> Tensor | None:
    """The loss in what a model returns; None if there is none."""
    if isinstance(made, Tensor):
        return made if made.ndim == 0 else None
    if isinstance(made, Mapping):
        found = made.get("loss")
    elif hasattr(made, "loss"):
        found = made.loss
    elif isinstance(made, tuple | list) and made:
        found = made[0] if isinstance(made[0], Tensor) and made[0].ndim == 0 else None
    else:
        found = None
    return found if isinstance(found, Tensor) else None


class WithLoss(nn.Module):
    """A model and its loss as one module, which returns the loss: where the loss has parameters that are trained.

    Args:
        model: is called with the inputs as `own_loss` does.
        loss: a module, `loss(model(x), y) -> scalar`.

    Example:
        >>> from torch import nn, ones
        >>> import nm_ode
        >>> class Scaled(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.width = nn.Parameter(ones(()))
        ...     def forward(self, output, target):
        ...         return ((output - target) / self.width).square().mean() + self.width.log()
        >>> model = nm_ode.WithLoss(nn.Linear(3, 1), Scaled())
        >>> nm_ode.Problem(model, nm_ode.own_loss, (ones(8, 3), ones(8, 1))).layout.names
        ('model.weight', 'model.bias', 'loss.width')
    """

    def __init__(self, model: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, inputs: Any, targets: Any) -> Tensor:
        """The loss, a scalar."""
        found: Tensor = self.loss(call(self.model, inputs), targets)
        return found


def _described(made: Any) -> str:
    if isinstance(made, Tensor):
        return f"a tensor of shape {tuple(made.shape)}"
    if isinstance(made, Mapping):
        return f"{type(made).__name__} with {', '.join(map(repr, made)) or 'nothing'}"
    return type(made).__name__
