"""The error of nm_ode.charges."""

from __future__ import annotations

from nm_ode.errors import NmOdeError


class LawError(NmOdeError, ValueError):
    """This law does not describe this run.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> import nm_ode
        >>> from nm_ode.data import diabetes
        >>> from nm_ode.models import linear
        >>> problem = nm_ode.Problem(linear(10, 1), mse_loss, diabetes())
        >>> nm_ode.predict_charges(nm_ode.train(problem, nm_ode.SGD(lr=0.1), steps=3), "exact")
        Traceback (most recent call last):
            ...
        nm_ode.charges.errors.LawError: the run recorded no charges: train with observe=[Charges(symmetries)]
    """
