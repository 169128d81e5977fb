"""The callback of transformers' Trainer records what a plain loop with a Recorder does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode

from ..recorder.witness import Seen
from .plain import assert_alike, batches, data, network, recorded_by_hand

transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="accelerate is not installed, which transformers' Trainer needs")

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        out = self.network(x)
        return {"loss": F.mse_loss(out, labels), "logits": out}


def trainer_of(folder: Path, accumulate: int, clip: float) -> Any:
    options = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        num_train_epochs=1,
        learning_rate=0.01,
        weight_decay=0.1,
        gradient_accumulation_steps=accumulate,
        max_grad_norm=clip,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        train_sampling_strategy="sequential",
    )
    samples = [{"x": x, "labels": y} for x, y in data()]
    return transformers.Trainer(model=Network(), args=options, train_dataset=samples)


@pytest.mark.parametrize(("accumulate", "clip"), [(1, 0.0), (5, 0.01)])
def test_the_run_is_that_of_a_plain_loop(tmp_path: Path, accumulate: int, clip: float) -> None:
    from nm_ode.integrations.transformers import RecorderCallback

    trainer, unrecorded = (trainer_of(tmp_path, accumulate, clip) for _ in range(2))
    callback = RecorderCallback(trainer, observe=[Seen()], save_every=2)
    trainer.add_callback(callback)
    trainer.train()
    unrecorded.train()
    assert all(
        torch.equal(p, q)
        for p, q in zip(trainer.model.parameters(), unrecorded.model.parameters(), strict=True)
    )
    assert "training_step" not in vars(trainer)

    twin = trainer_of(tmp_path, accumulate, clip)
    twin.create_optimizer_and_scheduler(num_training_steps=5 // accumulate)
    by_hand = recorded_by_hand(
        twin.model,
        twin.optimizer,
        lambda batch: twin.model(*batch)["loss"],
        batches(4),
        accumulate,
        clip,
        twin.lr_scheduler,
    )
    run = callback.recorder.run
    assert run.sizes["step"] == 5 // accumulate
    assert_alike(run, by_hand)


def test_a_training_that_failed_costs_the_next_nothing(tmp_path: Path) -> None:
    from nm_ode.integrations.transformers import RecorderCallback

    class Fails(transformers.TrainerCallback):
        times = 1

        def on_step_begin(self, args: Any, state: Any, control: Any, **of_trainer: Any) -> None:
            if state.global_step == 2 and self.times:
                self.times -= 1
                raise ZeroDivisionError

    trainer = trainer_of(tmp_path, 1, 0.0)
    callback = RecorderCallback(trainer, observe=[Seen()])
    trainer.add_callback(callback)
    trainer.add_callback(Fails())
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    first = callback.recorder
    assert first.run.sizes["step"] == 2
    trainer.train()
    assert callback.recorder is not first
    assert callback.recorder.run.sizes["step"] == 5
    assert first.run.sizes["step"] == 2
    assert "ended" in nm_ode.run_info(first.run).message
    assert "training_step" not in vars(trainer)
