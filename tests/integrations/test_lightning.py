"""The callback of Lightning records what a plain loop with a Recorder does."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import nm_ode

from ..recorder.witness import Seen
from .plain import assert_alike, batches, data, network, recorded_by_hand

lightning: Any = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # of Lightning: loaders without workers, no GPU, and the like


class Module(lightning.LightningModule):
    optimizers_made = 1

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def training_step(self, batch: Any, number: int) -> Tensor:
        x, y = batch
        return F.mse_loss(self.network(x), y)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return [optimizer], [
            {
                "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2),
                "interval": "step",
            }
        ]


def trainer_of(*callbacks: Any, **options: Any) -> Any:
    return lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
    )


@pytest.mark.parametrize(
    ("accumulate", "clip", "precision"),
    [(1, 0.0, "32-true"), (2, 0.01, "32-true"), (2, 0.0, "32-true"), (1, 0.1, "bf16-mixed")],
)
def test_the_run_is_that_of_a_plain_loop(accumulate: int, clip: float, precision: str) -> None:
    from nm_ode.integrations.lightning import RecorderCallback

    options = {
        "accumulate_grad_batches": accumulate,
        "gradient_clip_val": clip or None,
        "precision": precision,
    }
    loader = torch.utils.data.DataLoader(data(), batch_size=4)
    callback = RecorderCallback(observe=[Seen()], save_every=2)
    module, unrecorded = Module(), Module()
    trainer_of(callback, **options).fit(module, loader)
    trainer_of(**options).fit(unrecorded, loader)
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), unrecorded.parameters(), strict=True))

    twin = Module()
    (optimizer,), (scheduler,) = twin.configure_optimizers()

    def loss_of(batch: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != "32-true"):
            return twin.training_step(batch, 0)

    by_hand = recorded_by_hand(twin, optimizer, loss_of, batches(4), accumulate, clip, scheduler["scheduler"])
    run = callback.recorder.run
    assert run.sizes["step"] == -(-5 // accumulate)
    assert run.layer.values.tolist() == ["network.0", "network.2"]
    assert_alike(run, by_hand)


def test_an_exception_leaves_what_was_recorded() -> None:
    from nm_ode.integrations.lightning import RecorderCallback

    class Broken(Module):
        def training_step(self, batch: Any, number: int) -> Tensor:
            if number == 2:
                raise ZeroDivisionError
            return super().training_step(batch, number)

    callback = RecorderCallback(observe=[Seen()])
    with warnings.catch_warnings(), pytest.raises(ZeroDivisionError):
        trainer_of(callback).fit(Broken(), torch.utils.data.DataLoader(data(), batch_size=4))
    assert callback.recorder.run.sizes["step"] == 2
    assert "ZeroDivisionError" in nm_ode.run_info(callback.recorder.run).message


def test_several_optimisers_are_refused() -> None:
    from nm_ode.integrations.lightning import RecorderCallback

    class Two(Module):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.network[0], self.network[2])]

    with pytest.raises(nm_ode.ArgumentError, match="one optimiser"):
        trainer_of(RecorderCallback()).fit(Two(), torch.utils.data.DataLoader(data(), batch_size=4))
