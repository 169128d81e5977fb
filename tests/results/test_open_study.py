"""A study as one tree: each member's numbers in its place, read when used, and nothing where there is no member."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import nm_ode
from nm_ode.results import StoreError, open_store
from nm_ode.results.study import Axis, Place, StudyRecord, StudyStore, study_tree_info
from tests.results.studies import FAILURE, member_dataset, record, work

MISSING, FAILED = "lr=0.05,seed=1", "lr=0.05,seed=2"


def committed(store: StudyStore, place: Place, **groups: xr.Dataset) -> None:
    work(store, place, **groups)
    store.commit(place.name)


def ragged(place: Place) -> dict[str, xr.Dataset]:
    """A run with the same final time at each lr, whose other seeds have other layers; and a flow beside it."""
    lr, seed = place.values["optimizer.lr"], place.values["seed"]
    steps = round(0.8 / lr)
    generator = np.random.default_rng([round(1000 * lr), seed])
    layers = [["in", "out"], ["in", "middle", "out"], ["out"]][seed]
    times = lr * np.arange(steps)
    save = np.arange(0, steps + 1, steps // 4)
    run = xr.Dataset(
        {
            "loss": ("step", generator.random(steps)),
            "lr": ("step", np.full(steps, lr)),
            "hits": ("step", np.arange(steps)),
            "limit": 2 / lr,
            "layer_norm": (("step", "layer"), generator.random((steps, len(layers)))),
            "full_loss": ("saved_step", generator.random(5)),
            "theta": (("saved_step", "param"), generator.random((5, 3 + seed))),
        },
        coords={
            "step": np.arange(steps),
            "time": ("step", times),
            "layer": np.array(layers, dtype=object),
            "saved_step": save,
            "saved_time": ("saved_step", lr * save),
        },
        attrs={"status": "success", "lr_text": f"lr = {lr}", "depth": len(layers)},
    )
    flow = xr.Dataset(
        {"loss": ("time", generator.random(3))}, {"time": [0.0, lr, 0.8]}, {"status": "success"}
    )
    groups = {"discrete": run, "flows__gradient": flow}
    if seed == 2:  # whose layers are not the first of all
        groups["discrete__curvature"] = run[["layer_norm"]].isel(step=[0, 3]).rename(step="curvature_step")
    return groups


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyStore:
    """Four of six members are whole, one has failed, and one is not there."""
    store = StudyStore.at(tmp_path_factory.mktemp("study"), "sweep_x")
    store.begin(record())
    for place in record().members:
        if place.name not in (MISSING, FAILED):
            committed(store, place, **ragged(place))
    store.fail(FAILED, FAILURE)
    store.write_reduction(
        "convergence", xr.Dataset({"order": (("lr", "flow"), [[1.0], [2.0]])}, {"lr": [0.05, 0.1]})
    )
    return store


@pytest.fixture(scope="module")
def tree(study: StudyStore) -> xr.DataTree:
    return nm_ode.open_study(study.place(""))


def whole() -> list[Place]:
    return [place for place in record().members if place.name not in (MISSING, FAILED)]


def test_the_root_says_who_is_there_and_why_others_are_not(tree: xr.DataTree) -> None:
    assert tree["whole"].values.tolist() == [[True, True, True], [True, False, False]]
    assert tree["status"].sel(lr=0.05).values.tolist() == ["complete", "missing", FAILURE.kind]
    assert tree["failure"].sel(lr=0.05, seed=2).item() == FAILURE.sentence
    assert tree["member"].sel(lr=0.1, seed=1).item() == "lr=0.1,seed=1"
    assert tree["parameters"].sel(lr=0.1).values.tolist() == [3, 3, 3]
    assert np.isnan(tree["parameters"].sel(lr=0.05, seed=1))
    info = study_tree_info(tree)
    assert (info.axes, info.members, info.whole_members) == (("lr", "seed"), 6, 4)
    assert info.case["sweep"] == record().case["sweep"]
    assert all({"long_name", "units"} <= set(found.attrs) for found in tree.dataset.variables.values())


def test_each_member_has_its_numbers_in_its_place_by_label_or_position(
    study: StudyStore, tree: xr.DataTree
) -> None:
    for place in whole():
        own, at = (
            open_store(study.place(place.name))["discrete"],
            dict(zip(("lr", "seed"), place.index, strict=True)),
        )
        for name in ("loss", "hits", "limit", "layer_norm", "full_loss", "lr"):
            found = tree["discrete"].dataset["lr_of_step" if name == "lr" else name].isel(at)
            expected = own[name].astype(float)
            there = found.sel({dim: own[dim] for dim in expected.dims})
            np.testing.assert_array_equal(there.values, expected.values)
            assert int(found.notnull().sum()) == expected.size  # and nothing else
        theta = tree["discrete/theta"].isel(at).dropna("saved_step", how="all").dropna("param", how="all")
        np.testing.assert_array_equal(theta.values, own["theta"].values)
    gone = tree["discrete"].to_dataset().sel(lr=0.05, seed=[1, 2])
    assert all(gone[name].isnull().all() for name in ("loss", "hits", "layer_norm", "theta", "time"))


def test_a_group_in_a_group_that_few_members_have_lies_as_the_one_above(
    study: StudyStore, tree: xr.DataTree
) -> None:
    found = tree["discrete/curvature/layer_norm"]
    own = open_store(study.place("lr=0.1,seed=2"))["discrete/curvature/layer_norm"]
    np.testing.assert_array_equal(found.sel(lr=0.1, seed=2, layer="out"), own.sel(layer="out"))
    assert int(found.notnull().sum()) == own.size


def test_what_was_done_to_align_members_is_said(tree: xr.DataTree) -> None:
    run = tree["discrete"].dataset
    assert run["layer"].values.tolist() == ["in", "out", "middle"]
    assert run["saved_step"].values.tolist() == [0, 2, 4, 6, 8, 12, 16]
    assert run["loss"].attrs["alignment"] == "step: shorter members end with NaN"
    assert "saved_step: by label" in run["full_loss"].attrs["alignment"]
    assert "param: by position" in run["theta"].attrs["alignment"]
    assert "floats" in run["hits"].attrs["holes"]
    assert "holes" not in run["loss"].attrs


def test_times_that_differ_are_a_coordinate_along_the_axes(tree: xr.DataTree) -> None:
    flow = tree["flows/gradient"].dataset
    assert flow["loss"].dims == ("lr", "seed", "sample")
    assert flow["time"].sel(lr=0.1, seed=2).values.tolist() == [0, 0.1, 0.8]
    assert flow["time"].sel(lr=0.05, seed=0).values.tolist() == [0, 0.05, 0.8]
    assert "time" in flow.coords
    run = tree["discrete"].dataset
    np.testing.assert_array_equal(run["time"].sel(lr=0.1, seed=0)[:8], 0.1 * np.arange(8))


def test_runs_of_different_lr_at_the_flow_times_that_they_share(study: StudyStore) -> None:
    found = nm_ode.open_study(study.place(""), align="time")
    run = found["discrete"].dataset
    np.testing.assert_allclose(run["time"], 0.1 * np.arange(8), atol=1e-12)
    np.testing.assert_allclose(run["saved_time"], [0, 0.2, 0.4, 0.6, 0.8], atol=1e-12)
    for place in whole():
        own = open_store(study.place(place.name))["discrete"].to_dataset()
        every = round(0.1 / place.values["optimizer.lr"])
        at = dict(zip(("lr", "seed"), place.index, strict=True))
        np.testing.assert_array_equal(run["loss"].isel(at), own["loss"][::every])
        np.testing.assert_array_equal(run["step"].isel(at), own["step"][::every])
        np.testing.assert_array_equal(run["full_loss"].isel(at), own["full_loss"])
    assert "share" in run["loss"].attrs["alignment"]
    steps = found["discrete/step"]
    assert ("holes" in steps.attrs) is bool(found["discrete/step"].isnull().any())
    flow = found["flows/gradient"].dataset
    assert flow["time"].values.tolist() == [0, 0.8]
    np.testing.assert_array_equal(
        flow["loss"].sel(lr=0.05, seed=0),
        open_store(study.place("lr=0.05,seed=0"))["flows/gradient/loss"].values[[0, 2]],
    )


def test_a_run_that_ended_early_leaves_the_others_their_times(tmp_path: Path) -> None:
    store = StudyStore.at(tmp_path, "sweep_x")
    store.begin(record())
    for place in record().members[:3]:
        run = ragged(place)["discrete"]
        committed(store, place, discrete=run.isel(step=slice(3)) if place.values["seed"] == 1 else run)
    run = nm_ode.open_study(tmp_path / "sweep_x", align="time")["discrete"].dataset
    assert run.sizes["time"] == 8
    assert run["loss"].sel(lr=0.1, seed=1).notnull().values.tolist() == [True] * 3 + [False] * 5
    assert run["loss"].sel(lr=0.1, seed=2).notnull().all()
    full = StudyStore.at(tmp_path / "full", "sweep_x")
    full.begin(record(lrs=(0.1, 0.05), seeds=(0,)))
    for place in record(seeds=(0,)).members:
        committed(full, place, discrete=ragged(place)["discrete"])
    hits = nm_ode.open_study(tmp_path / "full/sweep_x", align="time")["discrete/hits"]
    assert hits.dtype == np.int64  # nothing is missing
    assert hits.isel(time=-1).values.tolist() == [[7], [14]]


def test_flows_that_gave_up_early_leave_the_others_their_times(tmp_path: Path) -> None:
    """And times that differ by roundings are the same."""
    store = StudyStore.at(tmp_path, "sweep_x")
    store.begin(record())
    times = np.linspace(0, 0.8, 5)
    for place, n in zip(record().members, (5, 3, 0, 5), strict=False):
        found = times * (1 + 1e-15) if place.values["optimizer.lr"] == 0.05 else times
        flow = xr.Dataset({"loss": ("time", np.arange(5.0))}, {"time": found}, {"status": "success"})
        committed(store, place, flows__gradient=flow.isel(time=slice(n)))
    for align in (None, "time"):
        flow = nm_ode.open_study(tmp_path / "sweep_x", align=align)["flows/gradient"].dataset
        np.testing.assert_allclose(flow["time"], times, rtol=1e-12)
        assert flow["loss"].notnull().sum("time").values.tolist() == [[5, 3, 0], [5, 0, 0]]
        np.testing.assert_array_equal(flow["loss"].sel(lr=0.1, seed=1)[:3], [0, 1, 2])


def test_what_groups_say_of_themselves_is_an_attribute_or_a_variable(tree: xr.DataTree) -> None:
    run = tree["discrete"].dataset
    assert run.attrs["status"] == "success"
    assert run["lr_text"].sel(lr=0.05).values.tolist() == ["lr = 0.05", "", ""]
    assert run["depth"].sel(lr=0.1).values.tolist() == [2, 3, 1]


def test_a_reduction_lies_on_the_axes_as_the_members_do(tree: xr.DataTree) -> None:
    assert tree["convergence/order"].sel(lr=0.1).item() == 2.0
    assert tree["convergence"].dataset["lr"].values.tolist() == [0.1, 0.05]


def test_any_selection_gives_what_it_gives_of_the_loaded_tree(tree: xr.DataTree) -> None:
    lazy, loaded = tree["discrete/layer_norm"], tree["discrete/layer_norm"].copy(deep=True).load()
    for key in (
        (0, 1, 2, 0),
        (slice(None), -1, slice(1, 9, 3), [2, 0]),
        ([1, 0, 1], [0, 2], slice(None, None, -2), slice(0, 2)),
        (slice(1, 1), slice(None), 3, slice(None)),
        (slice(None), slice(2, None), [15, 0, -2], 1),
    ):
        xr.testing.assert_identical(lazy[key].load(), loaded[key])
    seeds = xr.DataArray([0, 2], dims="pair")
    pairs = {"lr": xr.DataArray([0.1, 0.05], dims="pair"), "seed": seeds}
    xr.testing.assert_identical(lazy.sel(pairs).load(), loaded.sel(pairs))


def test_it_can_be_chunked_as_it_was_written_and_sent_to_other_processes(
    study: StudyStore, tree: xr.DataTree
) -> None:
    loss = tree["discrete/loss"]
    assert loss.encoding["preferred_chunks"] == {"lr": 1, "seed": 1, "step": 8}
    chunked = nm_ode.open_study(study.place(""))["discrete/loss"].chunk(loss.encoding["preferred_chunks"])
    assert chunked.chunks == ((1, 1), (1, 1, 1), (8, 8))
    np.testing.assert_array_equal(chunked.mean("seed").values, loss.mean("seed").values)
    again = pickle.loads(pickle.dumps(nm_ode.open_study(study.place(""))["discrete/loss"]))
    np.testing.assert_array_equal(again.values, loss.values)


def test_damage_is_found_when_it_is_read_and_named_by_member_and_file(tmp_path: Path) -> None:
    store = StudyStore.at(tmp_path, "sweep_x")
    store.begin(record())
    for place in record().members[:3]:
        committed(store, place)
    one, other, third = (Path(store.place(place.name)) for place in record().members[:3])
    chunk = one / "discrete/energy/c/0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    (other / "discrete/theta/c/0/0").unlink()
    tree = nm_ode.open_study(tmp_path / "sweep_x")
    assert tree["discrete/energy"].sel(lr=0.1, seed=1).notnull().all()
    with pytest.raises(
        StoreError, match=rf"{one.name} is damaged: discrete/energy/c/0 is not what was written"
    ):
        tree["discrete/energy"].load()
    with pytest.raises(StoreError, match=rf"{other.name} is damaged: discrete/theta/c/0/0 is missing"):
        tree["discrete/theta"].isel(param=0).load()
    root = third / "zarr.json"
    root.write_bytes(root.read_bytes().replace(b"complete", b"complexe", 1))
    tree = nm_ode.open_study(tmp_path / "sweep_x")
    assert tree["status"].sel(lr=0.1).values.tolist() == ["complete", "complete", "damaged"]
    assert f"{third.name} is damaged: zarr.json" in tree["failure"].sel(lr=0.1, seed=2).item()
    assert tree["discrete/loss"].sel(lr=0.1, seed=2).isnull().all()
    label = one / "discrete/layer/c/0"
    label.write_bytes(b"")
    with pytest.raises(StoreError, match=rf"{one.name} is damaged: discrete/layer/c/0"):
        nm_ode.open_study(tmp_path / "sweep_x")


def test_keys_that_vary_together_or_are_computed_are_coordinates(tmp_path: Path) -> None:
    models = ({"name": "mlp", "widths": [3]}, {"name": "linear"})
    base = record()
    study = StudyRecord(
        base.name,
        "",
        base.case,
        "",
        "",
        (
            Axis("widths", {"model": models, "training.batch_size": (4, 8)}),
            Axis("lr", {"optimizer.lr": (0.1, 0.05)}),
        ),
        tuple(
            Place(f"widths={i},lr={lr}", (i, j), {"optimizer.lr": lr, "training.steps": round(8 / lr)})
            for i in range(2)
            for j, lr in enumerate((0.1, 0.05))
        ),
    )
    store = StudyStore.at(tmp_path, "sweep_x")
    store.begin(study)
    tree = nm_ode.open_study(tmp_path / "sweep_x/study.zarr")
    assert tree["widths"].values.tolist()[1] == '{"name": "linear"}'
    assert tree["training.batch_size"].dims == ("widths",)
    assert tree["training.steps"].dims == ("lr",)
    assert tree["training.steps"].values.tolist() == [80, 160]
    assert not tree["whole"].any()
    assert (tree["status"] == "missing").all()


def test_a_study_without_axes_is_one_member(tmp_path: Path) -> None:
    alone = replace(record(), axes=(), members=(Place("all", (), record().members[0].values),))
    store = StudyStore.at(tmp_path, "sweep_x")
    store.begin(alone)
    committed(store, alone.members[0])
    tree = nm_ode.open_study(tmp_path / "sweep_x")
    np.testing.assert_array_equal(
        tree["discrete/loss"].values, member_dataset(alone.members[0])["loss"].values
    )


@pytest.mark.parametrize("kind", ["nothing", "folder", "member"])
def test_what_is_no_study_is_refused(study: StudyStore, tmp_path: Path, kind: str) -> None:
    path = {"nothing": tmp_path / "x", "folder": tmp_path, "member": Path(study.place(whole()[0].name))}[kind]
    with pytest.raises(StoreError, match="is not a study of nm_ode"):
        nm_ode.open_study(path)
    with pytest.raises(nm_ode.ArgumentError, match="align"):
        nm_ode.open_study(study.place(""), align="place")  # type: ignore[arg-type]
