"""The recorder in a Lightning Trainer."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from nm_ode.errors import ArgumentError
from nm_ode.recorder import Recorder

_NAMES = ("lightning.pytorch", "pytorch_lightning")
_lightning: Any = importlib.import_module(
    next((name for name in _NAMES if name in sys.modules), "lightning.pytorch")
)


class RecorderCallback(_lightning.Callback):  # type: ignore[misc]
    """Records the training of a module with one optimiser.

    Names of parameters are those of the LightningModule: find symmetries of it, not of a part.

    Args:
        args, options: of `nm_ode.Recorder`, all but model and optimizer.

    Attributes:
        recorder: there is one once training has begun.

    Example:
        Not run by the tests, which have no Lightning:

        >>> import lightning  # doctest: +SKIP
        >>> import nm_ode
        >>> from nm_ode.integrations.lightning import RecorderCallback  # doctest: +SKIP
        >>> callback = RecorderCallback("run.zarr", observe=[nm_ode.Statistics()])  # doctest: +SKIP
        >>> lightning.Trainer(callbacks=[callback]).fit(module, loader)  # doctest: +SKIP
        >>> callback.recorder.run.loss.dims  # doctest: +SKIP
        ('step',)
    """

    recorder: Recorder

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__()
        self._args, self._options = args, options

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to record.

        Raises:
            ArgumentError: the module has several optimisers.
        """
        if len(trainer.optimizers) != 1:
            raise ArgumentError(
                f"the callback records one optimiser, and this module has {len(trainer.optimizers)}: make a Recorder "
                "for each in the module itself"
            )
        self.recorder = Recorder(trainer.model, trainer.optimizers[0], *self._args, **self._options)
        self.recorder.__enter__()

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """The loss of a batch, which Lightning has divided by the number of those that it accumulates."""
        self.recorder.loss(loss, add=True)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The run is whole."""
        self.recorder.__exit__(None, None, None)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """The run ends where it is."""
        if hasattr(self, "recorder"):
            self.recorder.__exit__(type(exception), exception, exception.__traceback__)
