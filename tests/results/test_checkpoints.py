"""Checkpoint files: what is whole is found again, what is not is not used, and nothing else is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nm_ode import Checkpoint
from nm_ode.errors import ArgumentError
from nm_ode.results.checkpoints import CheckpointFile, as_checkpoint


class Counting:
    """A computation whose series has one row more at each step."""

    def __init__(self, path: Path, said: list[str], **belongs: object) -> None:
        self.rows, self.kept = np.empty((0, 2)), 0
        self.file = CheckpointFile(
            Checkpoint(path, every=0, say=said.append), "counting", belongs or {"n": 1}
        )
        self.step = 0
        for segment in self.file.segments():
            self.rows = np.concatenate([self.rows, segment.rows["row"]])
            self.step = segment.facts["step"]
            assert segment.state["size"].shape == ()
            np.testing.assert_array_equal(segment.state["state"], np.arange(self.step, dtype=np.float32))
        assert len(self.rows) == self.step
        self.kept = self.step

    def go(self, steps: int) -> None:
        for _ in range(steps):
            self.step += 1
            self.rows = np.concatenate([self.rows, [[self.step, -self.step]]])
            state = {"state": np.arange(self.step, dtype=np.float32), "size": np.array(True)}
            if self.file.save({"step": self.step}, state, self._since):
                self.kept = self.step

    def _since(self, all_of_them: bool) -> dict[str, np.ndarray]:
        return {"row": self.rows if all_of_them else self.rows[self.kept :], "none": np.empty((0, 3))}


@pytest.fixture
def said() -> list[str]:
    return []


def test_what_was_kept_is_found_and_gone_on_with(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "c"
    Counting(path, said).go(3)
    Counting(path, said).go(2)
    found = Counting(path, said)
    np.testing.assert_array_equal(found.rows, [[k, -k] for k in range(1, 6)])
    assert not said
    assert [file.name for file in tmp_path.iterdir()] == ["c"]


def test_a_file_that_is_cut_anywhere_gives_the_segments_before(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "c"
    ends, counting = [], Counting(path, said)
    for _ in range(3):
        counting.go(1)
        ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for size in {*range(0, len(whole), 23), *ends, *(end - 1 for end in ends)}:
        path.write_bytes(whole[:size])
        assert Counting(path, said).step == sum(end <= size for end in ends), size
    # What is torn is written over, not written behind.
    path.write_bytes(whole[: ends[1] + 10])
    Counting(path, said).go(2)
    assert Counting(path, said).step == 4


def test_a_changed_byte_ends_what_is_read(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "c"
    ends, counting = [], Counting(path, said)
    for _ in range(3):
        counting.go(1)
        ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for place in {*range(0, len(whole), 17), *ends[:-1], *(end - 1 for end in ends)}:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        assert Counting(path, said).step == sum(end <= place for end in ends), place
    assert said


def test_a_segment_of_another_file_is_none_of_this_one(tmp_path: Path, said: list[str]) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    Counting(one, said).go(1)
    first = one.stat().st_size
    Counting(one, said).go(1)
    Counting(other, said, n=1, m=[1.5, "x"]).go(2)
    other_first = tmp_path / "first"
    Counting(other_first, said, n=1, m=[1.5, "x"]).go(1)
    tail = other.read_bytes()[other_first.stat().st_size :]
    one.write_bytes(one.read_bytes()[:first] + tail)
    assert Counting(one, said).step == 1


def test_that_of_another_computation_is_not_used(tmp_path: Path, said: list[str]) -> None:
    Counting(tmp_path / "c", said, steps=5, lr=0.1).go(2)
    other = Counting(tmp_path / "c", said, steps=6, lr=0.1)
    assert other.step == 0
    assert "steps" in said[0]
    assert "lr" not in said[0]
    other.go(1)
    assert Counting(tmp_path / "c", said, steps=6, lr=0.1).step == 1


@pytest.mark.parametrize("content", [b"x", b"notes of mine\n" * 10, bytes(100)])
def test_a_file_that_is_none_of_ours_is_left_alone(tmp_path: Path, said: list[str], content: bytes) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)
    counting = Counting(path, said)
    assert not counting.file.due(ending=True)
    assert path.read_bytes() == content
    assert "no checkpoint" in said[0]


def test_old_states_do_not_fill_the_disk(tmp_path: Path, said: list[str]) -> None:
    file = CheckpointFile(Checkpoint(tmp_path / "c", 0, said.append), "large", {})
    list(file.segments())
    state = {"state": np.zeros(2**19)}  # 4 MB
    for step in range(20):
        assert file.save(
            {"step": step}, state, lambda all_of_them: {"row": np.zeros((20 if all_of_them else 1, 1))}
        )
    assert (tmp_path / "c").stat().st_size < 8 * 2**22
    *_, last = CheckpointFile(Checkpoint(tmp_path / "c", 0, said.append), "large", {}).segments()
    assert last.facts["step"] == 19
    assert len(list(tmp_path.iterdir())) == 1


def test_a_disk_that_does_not_take_it_costs_the_checkpoint_alone(tmp_path: Path, said: list[str]) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    counting = Counting(folder / "c", said)
    counting.go(1)
    (folder / "c").unlink()
    folder.rmdir()
    counting.go(1)
    assert "could not be written" in said[0]
    folder.mkdir()
    counting.go(1)
    assert Counting(folder / "c", said).step == 3


def test_saves_are_further_apart_where_writing_takes_long(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("nm_ode.results.checkpoints.time.monotonic", lambda: now[0])

    def rows(all_of_them: bool) -> dict[str, np.ndarray]:
        now[0] += 10.0  # so long it takes
        return {}

    file = CheckpointFile(Checkpoint(tmp_path / "c", every=30, say=said.append), "slow", {})
    now[0] = 29.0
    assert not file.due()
    assert file.due(ending=True)
    now[0] = 30.0
    assert file.due()
    file.save({}, {}, rows)
    now[0] += 499.0
    assert not file.due()
    now[0] += 1.0
    assert file.due()


def test_a_path_that_can_hold_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="folder"):
        Checkpoint(tmp_path)
    with pytest.raises(ArgumentError, match="folder"):
        Checkpoint(tmp_path / "nowhere" / "c")
    with pytest.raises(ArgumentError, match="every"):
        Checkpoint(tmp_path / "c", every=-1)
    with pytest.raises(ArgumentError, match="path"):
        Checkpoint(3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="every"):
        Checkpoint(tmp_path / "c", every="often")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="say"):
        Checkpoint(tmp_path / "c", say="aloud")  # type: ignore[arg-type]
    assert as_checkpoint(str(tmp_path / "c")) == Checkpoint(tmp_path / "c")
    with pytest.raises(ArgumentError, match="path"):
        as_checkpoint(3)  # type: ignore[arg-type]
