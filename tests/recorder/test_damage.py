"""Files of a recorded run that are cut off or changed: found, said, and the rest opens."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import nm_ode
from nm_ode.results.stream import arrays
from tests.recorder.loops import recorded

STEPS, CHUNK = 45, 8


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recorded") / "run.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "CHUNK_ROWS", CHUNK)
        recorded(path, STEPS)
    return path


@pytest.fixture(scope="module")
def whole(store: Path) -> xr.Dataset:
    return nm_ode.open_run(store).load()


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "copy.zarr"))


def beginning(whole: xr.Dataset, path: Path) -> int:
    """How many steps are there; what is there must be right."""
    run = nm_ode.open_run(path).load()
    for name, values in run.variables.items():
        expected = whole[name].values
        np.testing.assert_array_equal(
            values.values, expected[: len(values)] if values.ndim else expected, err_msg=str(name)
        )
    info = nm_ode.run_info(run)
    if info.status == "success":
        assert run.sizes == whole.sizes
    else:
        assert str(info.grid.steps) in info.message
    return info.grid.steps


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1))
def test_a_journal_that_was_cut_off(
    store: Path, whole: xr.Dataset, tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    path = Path(shutil.copytree(store, tmp_path_factory.mktemp("cut") / "run.zarr"))
    journal = path / "journal.jsonl"
    content = journal.read_bytes()
    journal.write_bytes(content[: int(share * len(content))])
    try:
        there = beginning(whole, path)
    except nm_ode.StoreError:
        assert share < 0.5
    else:
        assert there <= STEPS


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_byte_of_any_file_that_is_changed(
    store: Path, whole: xr.Dataset, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Never another number: what is read is what was written, or a StoreError."""
    path = Path(shutil.copytree(store, tmp_path_factory.mktemp("changed") / "run.zarr"))
    file = data.draw(
        st.sampled_from(sorted(one for one in path.rglob("*") if one.is_file() and one.stat().st_size))
    )
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    named = True
    try:
        beginning(whole, path)
    except nm_ode.StoreError as error:
        named = file.name in str(error)
    assert named


@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_last_chunk_that_is_torn_is_found(whole: xr.Dataset, copy: Path, how: str) -> None:
    last = copy / "charge_driver" / "c" / "4" / "0"
    last.write_bytes(last.read_bytes()[:-1]) if how == "cut" else last.unlink()
    assert beginning(whole, copy) == 4 * CHUNK
    info = nm_ode.run_info(nm_ode.open_run(copy))
    assert "charge_driver/c/4/0" in info.message


def test_a_chunk_in_the_middle_is_found_when_it_is_read(copy: Path) -> None:
    (copy / "charge" / "c" / "1" / "0").unlink()
    run = nm_ode.open_run(copy)
    assert float(run["loss"][-1]) > 0
    with pytest.raises(nm_ode.StoreError, match="charge/c/1/0 is missing"):
        run["charge"].load()


def test_a_tail_that_is_gone_costs_one_chunk(whole: xr.Dataset, copy: Path) -> None:
    (copy / "tail.bin").unlink()
    assert beginning(whole, copy) == STEPS // CHUNK * CHUNK


def test_what_others_put_there_is_not_read(whole: xr.Dataset, copy: Path) -> None:
    shutil.copytree(copy / "loss", copy / "other")
    shutil.copy(copy / "loss/c/0", copy / "loss/c/9")
    assert beginning(whole, copy) == STEPS
    assert "other" not in nm_ode.open_run(copy)


def test_what_is_no_recorded_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.zarr", Path(__file__)):
        with pytest.raises(nm_ode.StoreError, match="no recorded run"):
            nm_ode.open_run(path)


@pytest.mark.parametrize("with_tail", [True, False])
@pytest.mark.parametrize("place", [0, 40, 70])
def test_a_first_line_of_the_journal_that_was_changed(copy: Path, place: int, with_tail: bool) -> None:
    """It is damage, and not a recording that never began."""
    journal = copy / "journal.jsonl"
    content = bytearray(journal.read_bytes())
    content[place] ^= 1
    journal.write_bytes(content)
    if not with_tail:
        (copy / "tail.bin").unlink()
    with pytest.raises(nm_ode.StoreError, match=r"damaged.*journal\.jsonl"):
        nm_ode.open_run(copy)
