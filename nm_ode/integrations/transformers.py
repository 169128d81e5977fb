"""The recorder in transformers' Trainer."""

from __future__ import annotations

import importlib
from typing import Any

from nm_ode.recorder import Recorder

_transformers: Any = importlib.import_module("transformers")


class RecorderCallback(_transformers.TrainerCallback):  # type: ignore[misc]
    """Records a Trainer's training; each step's loss is that of `Trainer.training_step`, which it is given for.

    A training that ends in an exception calls no callback: what was recorded is in `recorder.run` all the same, and the
    recorder ends when the next training begins, or with `callback.end(error)`.

    Args:
        trainer: whose training it is.
        args, options: of `nm_ode.Recorder`, all but model and optimizer.

    Attributes:
        recorder: there is one once training has begun.

    Example:
        Not run by the tests, which have no transformers:

        >>> import nm_ode
        >>> from nm_ode.integrations.transformers import RecorderCallback  # doctest: +SKIP
        >>> callback = RecorderCallback(trainer, "run.zarr", observe=[nm_ode.Statistics()])  # doctest: +SKIP
        >>> trainer.add_callback(callback)  # doctest: +SKIP
        >>> _ = trainer.train()  # doctest: +SKIP
        >>> callback.recorder.run.loss.dims  # doctest: +SKIP
        ('step',)
    """

    recorder: Recorder

    def __init__(self, trainer: Any, *args: Any, **options: Any) -> None:
        self._trainer, self._args, self._options = trainer, args, options
        self._at_work = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **of_trainer: Any) -> None:
        """Begin to record."""
        self.end(RuntimeError("the training before ended in an exception"))
        trainer = self._trainer
        self.recorder = Recorder(trainer.model_wrapped, of_trainer["optimizer"], *self._args, **self._options)
        self.recorder.__enter__()
        training_step = trainer.training_step

        def observed(*args: Any, **kwargs: Any) -> Any:
            loss = training_step(*args, **kwargs)
            self.recorder.loss(loss, add=True)  # it is divided by the number of those that are accumulated
            return loss

        trainer.training_step = observed
        self._at_work = True

    def on_train_end(self, args: Any, state: Any, control: Any, **of_trainer: Any) -> None:
        """The run is whole."""
        self.end()

    def end(self, error: BaseException | None = None) -> None:
        """End the recorder, if there is one at work; with the error that ended the training."""
        if self._at_work:
            self._at_work = False
            del self._trainer.training_step
            self.recorder.__exit__(None if error is None else type(error), error, None)
