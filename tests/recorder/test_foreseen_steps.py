"""Steps of torch's SGD that the recorder knows ahead: what it says of them is what a copy of the parameters shows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn import functional as F

from nm_ode import Charges, Observer, Recorder, Statistics, Symmetry, Variable, find_symmetries, run_info
from nm_ode.passes import Pass
from nm_ode.passes.compiler import compiler

STEPS = 5
SGD = torch.optim.SGD
OF_TORCH: Any = import_module("torch.optim.sgd")
Change = Callable[[int, Any, torch.optim.Optimizer], object]

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C compiler")


class Update(Observer):
    """Reads the update itself, so that it is measured."""

    update_variables = {"change": Variable((), "‖Δθ‖")}  # noqa: RUF012

    def observe_update(self, view: Any) -> dict[str, Any]:
        return {"change": torch.linalg.vector_norm(view.update.double())}


def network(dtype: torch.dtype) -> nn.Module:
    """Of a million parameters, in sizes that fill no vector register."""
    torch.manual_seed(0)
    layers = [nn.Linear(17, 1003), nn.ReLU(), nn.Linear(1003, 1001), nn.ReLU(), nn.Linear(1001, 3)]
    return nn.Sequential(*layers).to(dtype)


@cache
def symmetries() -> list[Symmetry]:
    return list(find_symmetries(network(torch.float32), torch.randn(3, 17)))


def nothing(step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    pass


def trained(
    *observe: Observer,
    dtype: torch.dtype = torch.float32,
    change: Change = nothing,
    change_after: Change = nothing,
    record: bool = True,
    set_to_none: bool = True,
    charges: bool = True,
    **options: Any,
) -> tuple[xr.Dataset | None, nn.Module]:
    model, draw = network(dtype), torch.Generator().manual_seed(1)
    optimizer = SGD(model.parameters(), **{"lr": 0.1, "momentum": 0.9, **options})
    of_symmetries = [Charges(symmetries())] if charges else []
    recorder = Recorder(model, optimizer, observe=[*of_symmetries, Statistics(), *observe])
    if record:
        recorder.__enter__()
    for step in range(STEPS):
        x = torch.randn(8, 17, dtype=dtype, generator=draw)
        y = torch.randint(3, (8,), generator=draw)
        optimizer.zero_grad(set_to_none=set_to_none)
        F.cross_entropy(model(x), y).backward()
        change(step, model, optimizer)
        optimizer.step()
        change_after(step, model, optimizer)
    if not record:
        return None, model
    recorder.__exit__(None, None, None)
    return recorder.run, model


def recorded(*observe: Observer, **options: Any) -> xr.Dataset:
    run, _ = trained(*observe, **options)
    assert run is not None
    return run


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Grows by one with each step whose sums are made before it, besides those that are looked at first."""
    made: list[bool] = []
    old = Pass.ahead

    def counted(self: Pass, *given: Any) -> Any:
        found = old(self, *given)
        made.append(found is not None)
        return found

    monkeypatch.setattr(Pass, "ahead", counted)
    return made


def require_same(one: xr.Dataset, other: xr.Dataset, tolerance: float = 3e-6) -> None:
    for name in set(one.data_vars) & set(other.data_vars):
        a, b = one[name].values, other[name].values
        if a.dtype.kind == "f" and a.size and name != "constraint_residual":
            scale = np.nanmax(np.abs(b), initial=0)
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale, err_msg=str(name))


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.float32, {}),
        (torch.float32, {"momentum": 0, "charges": False}),
        # Without charges, which take most of a compiler's time.
        (torch.float32, {"weight_decay": 0.01, "dampening": 0.3, "charges": False}),
        (torch.float64, {"weight_decay": 0.01, "nesterov": True, "charges": False}),
    ],
)
def test_what_is_foreseen_is_what_happens(
    dtype: torch.dtype, options: dict[str, Any], ahead: list[bool]
) -> None:
    foreseen = recorded(dtype=dtype, **options)
    # Torch makes the momentum in the first step.
    assert ahead == [True] * (STEPS if options.get("momentum") == 0 else STEPS - 1)
    measured = recorded(Update(), dtype=dtype, **options)
    assert len(ahead) < STEPS + 1
    require_same(foreseen, measured, 3e-6 if dtype == torch.float32 else 1e-13)
    np.testing.assert_allclose(foreseen["update_norm"], measured["change"], rtol=1e-5)
    assert not run_info(foreseen).beyond_laws


def test_roundings_of_the_parameters_are_in_the_update() -> None:
    """−lr·v is not zero, but no parameter moves."""
    foreseen = recorded(lr=1e-18)
    assert (foreseen["grad_norm"] > 0).all()
    assert not foreseen["update_norm"].any()


def test_parameters_are_as_without_a_recorder() -> None:
    _, watched = trained()
    _, alone = trained(record=False)
    assert all(map(torch.equal, watched.parameters(), alone.parameters()))


def other_settings(step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0].update(lr=0.1 / (1 + step), momentum=0.9 - 0.1 * step)


def no_gradient(step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    if step in (0, 3):
        model[0].weight.grad = None


def strange_gradient(step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    weight = model[2].weight
    weight.grad = weight.grad.t().contiguous().t()


def loaded(step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    if step == 3:
        optimizer.load_state_dict(optimizer.state_dict())


def clamped(step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    if step >= 3:
        for parameter in model.parameters():
            parameter.data.clamp_(-0.03, 0.03)


def clamped_in_sight(step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    if step >= 3:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.clamp_(-0.03, 0.03)


def velocity_halved(step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    if step == 3:
        optimizer.state[model[2].weight]["momentum_buffer"].data.mul_(0.5)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"change": other_settings}, ""),
        ({"change": no_gradient}, "took no part"),
        ({"change": strange_gradient}, ""),
        ({"change": loaded}, "loaded"),
        ({"change_after": clamped}, "written to"),
        # Gradients are copied there, once for each step.
        ({"change_after": clamped, "set_to_none": False}, "written to"),
        ({"change_after": clamped_in_sight}, "written to"),
        ({"change_after": velocity_halved}, "written to"),
        ({"maximize": True}, ""),
        ({"foreach": True}, ""),
        ({"fused": True}, ""),
    ],
)
def test_whatever_a_loop_does_beside(changes: dict[str, Any], why: str) -> None:
    foreseen = recorded(**changes)
    require_same(foreseen, recorded(Update(), **changes))
    if why:
        assert why in str(run_info(foreseen).beyond_laws)


def halved(model: Any) -> None:
    model[2].weight.data.mul_(0.5)


def test_hooks_of_somebody_else_are_heeded(ahead: list[bool]) -> None:
    def with_hook(step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
        if step == 3:
            optimizer.register_step_post_hook(lambda *_: halved(model))

    foreseen = recorded(change=with_hook)
    assert len(ahead) == 2  # steps 1 and 2
    require_same(foreseen, recorded(Update(), change=with_hook))


@pytest.mark.parametrize("from_step", [0, 3])
def test_another_arithmetic_is_found_out(monkeypatch: pytest.MonkeyPatch, from_step: int) -> None:
    """Somebody has put their own in the place of torch's."""

    def change(step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
        if step == from_step:
            theirs = OF_TORCH.sgd

            def other(parameters: list[Any], *given: Any, **named: Any) -> None:
                theirs(parameters, *given, **named)
                parameters[0].data[0, 0] += 1.0

            monkeypatch.setattr(OF_TORCH, "sgd", other)

    foreseen = recorded(change=change)
    monkeypatch.undo()
    measured = recorded(Update(), change=change)
    wrong = ~np.isclose(foreseen["update_norm"], measured["update_norm"], rtol=1e-4)
    # Of a step that was relied on it is known one step later, and said.
    assert np.flatnonzero(wrong).tolist() == ([3] if from_step else [])
    assert ("written to in step 3" in str(run_info(foreseen).beyond_laws)) == bool(from_step)


def test_a_write_within_a_step_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
        if step == 3:
            theirs = OF_TORCH.sgd

            def other(parameters: list[Any], *given: Any, **named: Any) -> None:
                theirs(parameters, *given, **named)
                parameters[0][0, 0] += 1.0

            monkeypatch.setattr(OF_TORCH, "sgd", torch.no_grad()(other))

    with pytest.raises(ValueError, match="within step 3"):
        recorded(change=change)


def test_a_run_that_diverges_is_not_said_to_be_written_to() -> None:
    with np.errstate(all="ignore"):
        run = recorded(lr=1e30)
    assert not np.isfinite(run["update_norm"][-1])
    assert not run_info(run).beyond_laws
