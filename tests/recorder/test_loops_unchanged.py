"""A recorded loop takes the same steps as an unrecorded one, bit for bit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode

from .witness import Seen

STEPS = 50

Prepare = Callable[[nn.Module], nn.Module]


def network() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64, 5),
    )


SGD: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}

LOOPS: dict[str, tuple[Prepare, type[torch.optim.Optimizer], dict[str, Any], set[str]]] = {
    "eager": (lambda m: m, torch.optim.SGD, SGD, set()),
    "nesterov, foreach": (lambda m: m, torch.optim.SGD, {**SGD, "nesterov": True, "foreach": True}, set()),
    "fused, scaled": (lambda m: m, torch.optim.AdamW, {"lr": 0.01, "fused": True}, {"scaler"}),
    "accumulated, clipped, scheduled": (
        lambda m: m,
        torch.optim.Adam,
        {"lr": 0.01},
        {"accumulate", "schedule"},
    ),
    "channels last, autocast": (
        lambda m: m.to(memory_format=torch.channels_last),
        torch.optim.SGD,
        SGD,
        {"autocast", "scaler"},
    ),
    "bfloat16": (lambda m: m.bfloat16(), torch.optim.SGD, SGD, set()),
    "closure": (lambda m: m, torch.optim.LBFGS, {"lr": 0.1, "max_iter": 3, "history_size": 4}, {"closure"}),
}


def trained(
    prepare: Prepare, kind: Any, options: dict[str, Any], ways: set[str], *, record: bool
) -> tuple[list[Tensor], int]:
    """Parameters and buffers after STEPS steps, with random numbers drawn in each; and how many were recorded."""
    model = prepare(network())
    dtype = next(model.parameters()).dtype
    optimizer = kind(model.parameters(), **options)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS) if "schedule" in ways else None
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled="scaler" in ways)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled="autocast" in ways)
    scores = nm_ode.Scores({"score": lambda m: m(torch.randn(9, 2, 4, 4).to(dtype)).float().mean()}, every=7)
    generator = torch.Generator().manual_seed(1)
    probe = torch.randn(4, 2, 4, 4, generator=generator).to(dtype), torch.arange(4)
    hessian = nm_ode.Hessian(loss_fn=F.cross_entropy, batch=probe, every=20, top=1, trace=6, most=12)
    observe = [Seen(), scores, hessian]
    recorder = nm_ode.Recorder(model, optimizer, observe=observe, save_every=10) if record else None

    def backward() -> Tensor:
        x = torch.randn(6, 2, 4, 4).to(dtype)
        with autocast:
            loss = F.cross_entropy(model(x), torch.randint(5, (6,)))
        scaler.scale(loss).backward()
        if recorder is not None and "closure" not in ways:
            recorder.loss(loss)
        return loss

    def closure() -> Tensor:
        optimizer.zero_grad()
        return backward()

    torch.manual_seed(11)
    with recorder or contextlib.nullcontext():
        for _ in range(STEPS):
            if "closure" in ways:
                optimizer.step(closure)
                continue
            optimizer.zero_grad()
            for _ in range(3 if "accumulate" in ways else 1):
                backward()
            if "accumulate" in ways:
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
            if scheduler is not None:
                scheduler.step()
    state = [*model.state_dict().values(), torch.get_rng_state()]
    state += [
        kept for p in model.parameters() for kept in optimizer.state[p].values() if isinstance(kept, Tensor)
    ]
    return state, 0 if recorder is None else recorder.steps


@pytest.mark.parametrize("name", LOOPS)
def test_the_same_bits(name: str) -> None:
    prepare, kind, options, ways = LOOPS[name]
    recorded, steps = trained(prepare, kind, options, ways, record=True)
    plain, _ = trained(prepare, kind, options, ways, record=False)
    assert steps == STEPS
    assert len(recorded) == len(plain)
    assert all(torch.equal(one, other) for one, other in zip(recorded, plain, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eager", "accumulated, clipped, scheduled"])
@pytest.mark.filterwarnings("ignore")  # of torch's compiler
def test_the_same_bits_compiled(name: str) -> None:
    _, kind, options, ways = LOOPS[name]
    states = []
    for record in (True, False):
        torch._dynamo.reset()
        states.append(trained(torch.compile, kind, options, ways, record=record))
    assert states[0][1] == STEPS
    assert all(torch.equal(one, other) for one, other in zip(states[0][0], states[1][0], strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler
def test_a_compiled_step_is_seen_each_time() -> None:
    torch._dynamo.reset()
    runs = []
    for compiled in (True, False):
        torch.manual_seed(1)
        model = nn.Linear(4, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        step = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
        with nm_ode.Recorder(model, optimizer, observe=[Seen()]) as recorder:
            for _ in range(4):
                optimizer.zero_grad()
                loss = model(torch.randn(5, 4)).square().mean()
                loss.backward()
                recorder.loss(loss)
                step()
        runs.append(recorder.run)
    assert runs[0].equals(runs[1])
    assert runs[0].sizes["step"] == 4


@pytest.mark.filterwarnings("ignore")  # of torch's compiler
def test_names_are_those_of_the_model_itself() -> None:
    model = nn.Linear(4, 3)
    compiled = torch.compile(model, backend="eager")
    optimizer = torch.optim.SGD(compiled.parameters(), lr=0.1)
    with nm_ode.Recorder(compiled, optimizer) as recorder:
        pass
    assert nm_ode.run_info(recorder.run).layout.names == ("weight", "bias")
