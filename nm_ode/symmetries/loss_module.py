"""objective(model, batch) as a module of the batch's tensors: to be evaluated, and to be traced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nm_ode.loss.objective import Objective
from nm_ode.symmetries.batches import Batch, with_tensors
from nm_ode.symmetries.read_buffers import ReadBuffers
from nm_ode.symmetries.written_out import InFloat64, WrittenOut


class LossModule(nn.Module):
    """objective(model, batch) as a module whose inputs are the batch's tensors."""

    def __init__(self, model: nn.Module, objective: Objective, batch: Batch) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self._like = batch

    def forward(self, *tensors: Tensor) -> Tensor:
        with InFloat64():
            return self.objective(self.model, with_tensors(self._like, tensors))

    def evaluated(self, tensors: Sequence[Tensor], seed: int = 0) -> Any:
        """What it gives of a batch; its buffers and the caller's random numbers stay as they are."""
        buffers = {name: buffer.clone() for name, buffer in self.named_buffers()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return functional_call(self, buffers, tuple(tensors))


class ForGraph(LossModule):
    """The same, without what asks for the values of tensors, where that can be.

    Args:
        reads: what is computed of buffers alone is a constant.

    Attributes:
        read: names of the buffers whose values were read.
    """

    def __init__(self, model: nn.Module, objective: Objective, batch: Batch, *, reads: bool = False) -> None:
        super().__init__(model, objective, batch)
        self.read: set[str] = set()
        buffers = self.named_buffers(remove_duplicate=False) if reads else ()
        self._values = {name: buffer.detach().clone() for name, buffer in buffers}  # not while it is traced

    @property
    def has_values(self) -> bool:
        """Are there buffers to be read?"""
        return bool(self._values)

    def forward(self, *tensors: Tensor) -> Tensor:
        with WrittenOut():
            if not self._values:
                return super().forward(*tensors)
            reader = ReadBuffers(dict(self.named_buffers(remove_duplicate=False)), self._values)
            with reader:
                loss = super().forward(*tensors)
            reader.finish()
            self.read |= reader.read
            return loss
