"""A run that is gone on with is the unbroken run."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nm_ode
from nm_ode.results.stream import arrays
from tests.recorder.loops import Loop, assert_same, recorded


class Drift(nm_ode.Observer):
    """‖θ_k − θ_{k−1}‖ from what it remembers."""

    variables: Mapping[str, nm_ode.Variable] = {"drift": nm_ode.Variable((), "distance from the step before")}

    def __init__(self) -> None:
        self.last = torch.zeros(0)

    def observe(self, view: nm_ode.View) -> Mapping[str, Any]:
        last, self.last = self.last, view.theta.clone()
        return {"drift": (view.theta - last).norm() if last.numel() else 0.0}


class Remembering(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.observers = [*self.observers, Drift()]


def saved(checkpoint: dict[str, Any]) -> bytes:
    """As `torch.save` writes it."""
    file = io.BytesIO()
    torch.save(checkpoint, file)
    return file.getvalue()


def loaded(file: bytes) -> dict[str, Any]:
    """As `torch.load` gives it by default, without pickles."""
    found: dict[str, Any] = torch.load(io.BytesIO(file), weights_only=True)
    return found


def ran(loop: Loop, until: int, store: Path | None, **options: Any) -> Any:
    with loop.recorder(store, **options) as recorder:
        while loop.done < until:
            loop.step(recorder)
    return recorder.run


@settings(max_examples=8, deadline=None)
@given(
    rows=st.sampled_from([4, 16, 1024]), kept=st.integers(0, 30), beyond=st.integers(0, 25), data=st.data()
)
def test_from_a_checkpoint_of_the_loop(
    tmp_path_factory: pytest.TempPathFactory, rows: int, kept: int, beyond: int, data: st.DataObject
) -> None:
    """Also where the run went on for a while after the checkpoint, and more than once."""
    steps = kept + beyond + data.draw(st.integers(0, 20), label="then")
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "CHUNK_ROWS", rows)
        unbroken = ran(Remembering(), steps, folder / "unbroken.zarr")
        loop = Remembering()
        with loop.recorder(folder / "run.zarr") as recorder:
            while loop.done < kept:
                loop.step(recorder)
            checkpoint = saved(loop.checkpoint(recorder))
            while loop.done < kept + beyond:
                loop.step(recorder)
        for until in (kept + beyond, steps):
            again, found = Remembering(), loaded(checkpoint)
            again.load(found)
            run = ran(again, until, folder / "run.zarr", resume=found["recorder"])
        assert_same(unbroken, run)
        assert run.attrs == unbroken.attrs
        assert nm_ode.run_info(run).grid.steps == steps


@pytest.mark.parametrize("what", ["charges", "sketch", "hessian", "noise", "statistics"])
def test_whatever_is_observed(tmp_path: Path, what: str) -> None:
    """Observers that sum over the steps between two records, or start from what they found before."""

    def made() -> Loop:
        loop = Loop()
        probe = {
            "loss_fn": torch.nn.functional.cross_entropy,
            "batch": (loop.x, loop.y),
            "every": nm_ode.Every(6),
        }
        symmetries = loop.observers[0].symmetries
        loop.observers = {
            "charges": [nm_ode.Charges(symmetries, every=6)],
            "sketch": [nm_ode.Sketch(m=64)],
            "hessian": [nm_ode.Hessian(**probe, top=2, density=2)],
            "noise": [nm_ode.Noise(**probe, parts=4)],
            "statistics": [nm_ode.Statistics()],
        }[what]
        return loop

    loop = made()
    with loop.recorder(tmp_path / "run.zarr") as recorder:
        while loop.done < 15:
            loop.step(recorder)
        checkpoint = saved(loop.checkpoint(recorder))
        while loop.done < 19:
            loop.step(recorder)
    again, found = made(), loaded(checkpoint)
    again.load(found)
    run = ran(again, 27, tmp_path / "run.zarr", resume=found["recorder"])
    assert_same(ran(made(), 27, None), run)
    if what == "charges":
        assert float(np.abs(nm_ode.predict_charges(run, "exact")["charge"] - run["charge"]).max()) < 1e-12


def test_from_where_it_was_closed(tmp_path: Path) -> None:
    loop = Remembering()
    ran(loop, 20, tmp_path / "run.zarr")
    run = ran(loop, 45, tmp_path / "run.zarr", resume=True)
    assert_same(ran(Remembering(), 45, None), run)


def test_other_parameters_are_refused(tmp_path: Path) -> None:
    loop = Loop()
    ran(loop, 20, tmp_path / "run.zarr")
    with pytest.raises(nm_ode.StoreError, match="parameters are not those after step 20"):
        ran(Loop(), 30, tmp_path / "run.zarr", resume=True)
    assert nm_ode.run_info(nm_ode.open_run(tmp_path / "run.zarr")).status == "success"


def test_steps_that_are_not_there_are_refused(tmp_path: Path) -> None:
    """A checkpoint of one attempt does not go with the store of another, shorter one."""
    long, short = Loop(), Loop()
    with long.recorder(tmp_path / "long.zarr") as recorder:
        while long.done < 20:
            long.step(recorder)
        checkpoint = long.checkpoint(recorder)
    ran(short, 15, tmp_path / "run.zarr")
    with pytest.raises(nm_ode.StoreError, match="first 15 steps"):
        ran(long, 30, tmp_path / "run.zarr", resume=checkpoint["recorder"])


def test_a_run_that_was_cut_off_says_how_to_go_on(tmp_path: Path) -> None:
    loop = Loop()

    def interrupted() -> None:
        with loop.recorder(tmp_path / "run.zarr") as recorder:
            while loop.done < 9:
                loop.step(recorder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    info = nm_ode.run_info(nm_ode.open_run(tmp_path / "run.zarr"))
    assert (info.status, info.grid.steps) == ("unfinished", 9)
    assert "KeyboardInterrupt" in info.message
    assert_same(recorded(None, 20), ran(loop, 20, tmp_path / "run.zarr", resume=True))


@pytest.mark.parametrize("change", ["observers", "save_every", "momentum", "model"])
def test_another_run_is_refused(tmp_path: Path, change: str) -> None:
    ran(Loop(), 20, tmp_path / "run.zarr")
    loop = Loop()
    options: dict[str, Any] = {}
    if change == "observers":
        loop.observers = []
    elif change == "momentum":
        loop.optimizer.param_groups[0]["momentum"] = 0.8
    elif change == "model":
        loop.model.append(torch.nn.Linear(3, 3).double())
        loop.optimizer.add_param_group({"params": loop.model[-1].parameters()})
    recorder = loop.recorder(tmp_path / "run.zarr", resume=True)
    if change == "save_every":
        recorder = nm_ode.Recorder(
            loop.model, loop.optimizer, tmp_path / "run.zarr", observe=loop.observers, resume=True, **options
        )
    with pytest.raises(nm_ode.StoreError, match="another run"), recorder:
        pass


def test_a_learning_rate_may_have_changed(tmp_path: Path) -> None:
    loop = Loop()
    ran(loop, 20, tmp_path / "run.zarr")
    loop.optimizer.param_groups[0]["lr"] = 0.01
    run = ran(loop, 30, tmp_path / "run.zarr", resume=True)
    np.testing.assert_array_equal(run["lr"], [0.05] * 20 + [0.01] * 10)
    once = Loop()
    with once.recorder(None) as recorder:
        while once.done < 30:
            if once.done == 20:
                once.optimizer.param_groups[0]["lr"] = 0.01
            once.step(recorder)
    assert_same(recorder.run, run)
    assert float(np.abs(nm_ode.predict_charges(run, "exact")["charge"] - run["charge"]).max()) < 1e-12


@pytest.mark.parametrize("resume", ["last", 1.5, 3, {"steps": 3}])
def test_what_names_no_place(tmp_path: Path, resume: Any) -> None:
    ran(Loop(), 3, tmp_path / "run.zarr")
    with pytest.raises(nm_ode.ArgumentError, match="resume"):
        ran(Loop(), 5, tmp_path / "run.zarr", resume=resume)


def test_there_must_be_a_run(tmp_path: Path) -> None:
    with pytest.raises(nm_ode.StoreError, match="no recorded run"):
        ran(Loop(), 5, tmp_path / "run.zarr", resume=True)
    with pytest.raises(nm_ode.ArgumentError, match="store"):
        ran(Loop(), 5, None, resume=True)
