"""The recorder in transformers' Trainer."""

from __future__ import annotations

import importlib
from typing import Any

from nm_ode.recorder import Recorder

_transformers: Any = importlib.import_module("transformers")


class RecorderCallback(_transformers.TrainerCallback):  # type: ignore[misc]
    """Records a Trainer's training; each step's loss is that of `Trainer.training_step`, which it is given for.

        callback = RecorderCallback(trainer, observe=[nm_ode.Charges(symmetries)])
        trainer.add_callback(callback)
        trainer.train()
        run = callback.recorder.run

    Args:
        trainer: whose training it is.
        options: of `nm_ode.Recorder`, all but model and optimizer.

    Attributes:
        recorder: there is one once training has begun.
    """

    recorder: Recorder

    def __init__(self, trainer: Any, *args: Any, **options: Any) -> None:
        self._trainer, self._args, self._options = trainer, args, options

    def on_train_begin(self, args: Any, state: Any, control: Any, **of_trainer: Any) -> None:
        """Begin to record."""
        trainer = self._trainer
        self.recorder = Recorder(trainer.model_wrapped, of_trainer["optimizer"], *self._args, **self._options)
        self.recorder.__enter__()
        training_step = trainer.training_step

        def observed(*args: Any, **kwargs: Any) -> Any:
            loss = training_step(*args, **kwargs)
            self.recorder.loss(loss, add=True)  # it is divided by the number of those that are accumulated
            return loss

        trainer.training_step = observed

    def on_train_end(self, args: Any, state: Any, control: Any, **of_trainer: Any) -> None:
        """The run is whole."""
        self.recorder.__exit__(None, None, None)
        del self._trainer.training_step
