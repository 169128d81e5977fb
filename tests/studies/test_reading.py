"""Case files as editors and disks leave them, and values that nothing takes: told before anything is computed."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from nm_ode.errors import NmOdeError
from nm_ode.memory import in_words, require_memory
from nm_ode.studies import CaseError, build_study, load_case
from tests.studies.conftest import TINY


@pytest.mark.parametrize(
    "content",
    [
        TINY.encode(),
        b"\xef\xbb\xbf" + TINY.encode(),
        TINY.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + TINY.replace("\n", "\r\n").replace(" = ", "\t=\t").encode(),
        TINY.replace("seed = 1", 'seed = 1\ntitle = "Größe, λ"').encode(),
    ],
    ids=["plain", "mark", "CRLF", "mark, CRLF and tabs", "letters beyond ASCII"],
)
def test_what_editors_write_loads(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "case.toml"
    path.write_bytes(content)
    case = load_case(path)
    assert case.name == "tiny"
    assert not build_study(case, path).text.startswith("\ufeff")


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (TINY.encode("utf-16"), "save as UTF-8"),
        (TINY.encode("utf-16-le"), "save as UTF-8"),
        (TINY.encode("utf-32"), "save as UTF-8"),
        (TINY.encode() + 'title = "Größe"'.encode("latin-1"), r"line 24, column 12.*save as UTF-8"),
        (TINY.encode() + b"a = \0", "not valid TOML.*line 24"),
        (TINY.encode() + b"rtol = 1e-5\n#", "not valid TOML.*line 24"),
        (TINY.encode() + b"a = " + b"[" * 3000, "not valid TOML"),
        (b"seed = " + b"1" * 5000, "cannot be read"),
        (b"", "name: is missing"),
    ],
)
def test_what_is_no_toml_is_named_with_its_place(tmp_path: Path, content: bytes, fragment: str) -> None:
    path = tmp_path / "case.toml"
    path.write_bytes(content)
    with pytest.raises(CaseError, match=fragment) as caught:
        load_case(path)
    assert "case.toml" in str(caught.value)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    os.mkfifo(tmp_path / "fifo.toml")
    for name, fragment in (
        (".", "is a folder"),
        ("fifo.toml", "no ordinary file"),
        ("loop.toml", "symbolic links"),
        ("gone.toml", "no case file"),
        ("x" * 300 + ".toml", "cannot be read"),
    ):
        with pytest.raises(CaseError, match=fragment):
            load_case(tmp_path / name)


@pytest.mark.parametrize(
    ("edit", "fragment"),
    [
        (("rtol = 1e-5", "rtol = 1e-15"), "solver.rtol"),
        (("rtol = 1e-5", "rtol = nan"), "solver.rtol"),
        (("seed = 1", 'seed = 1\ndtype = "float32"'), None),
        (("rtol = 1e-5", "atol = inf"), "solver.atol"),
        (("rtol = 1e-5", "max_seconds = inf"), "solver.max_seconds"),
        (("rtol = 1e-5", "max_step = nan"), "solver.max_step"),
        (("rtol = 1e-5", f"max_rhs = {10**30}"), "solver.max_rhs"),
        (("rtol = 1e-5", 'engine = "scipy"\nmethod = "Midpoint"\nstep = 1e-200'), "step"),
        (("seed = 1", f"seed = {2**63}"), "seed"),
        (("steps = 10", f"steps = {10**30}"), "training.steps"),
        (("[64, 4, 10]", f"[64, {10**12}, 10]"), r"model.widths\[1\]"),
        (("[64, 4, 10]", f"[64, {10**9}, {10**9}, 10]"), "model"),
        (("seed = 1", 'seed = 1\ndevice = "cuda:99"'), "device: 'cuda:99'"),
        (("seed = 1", 'seed = 1\ndevice = "tpu"'), "it must be 'cpu' or 'cuda'"),
        (('name = "tiny"', 'name = "Con.x"'), "device of Windows"),
        (('name = "tiny"', f'name = "{"x" * 101}"'), "name: .*at most 100"),
        (("lr = 0.1", "lr = 1e308"), "lr is 1e.308"),
        (("lr = 0.1", "lr = 1e-300"), "lr is 1e-300"),
    ],
)
def test_values_that_nothing_takes_are_refused_before_anything_is_computed(edited, edit, fragment) -> None:
    path = edited(edit)
    if fragment is None:
        build_study(load_case(path), path)
        return
    with pytest.raises(CaseError, match=fragment):
        build_study(load_case(path), path)


def test_a_schedule_that_leaves_the_positive_numbers_is_refused(edited) -> None:
    steep = 'lr = 0.1\nschedule = { name = "drop", at = [2, 4], factor = 1e-160 }'
    alone = (', { kind = "modified", order = 2, form = "hessian" }', "")
    path = edited(("lr = 0.1", steep), alone)
    with pytest.raises(CaseError, match=r"1e-161 in step 2"):
        build_study(load_case(path), path)


def test_a_tolerance_below_the_dtype_is_refused_by_the_file_alone(edited) -> None:
    with pytest.raises(CaseError, match="float32"):
        load_case(edited(("seed = 1", 'seed = 1\ndtype = "float32"'), ("rtol = 1e-5", "rtol = 1e-9")))


@pytest.mark.parametrize(
    ("edit", "key"),
    [
        (("steps = 10", f"steps = {10**11}"), "training.steps"),
        (("steps = 10", f"warm_steps = {10**11}\nsteps = 10"), "training.warm_steps"),
    ],
)
def test_a_run_that_no_memory_holds_is_refused_with_what_it_would_take(edited, edit, key: str) -> None:
    path = edited(edit)
    with pytest.raises(CaseError, match=rf"{key}: a run of {10**11} steps would take .*B of memory"):
        build_study(load_case(path), path)


def test_memory_is_asked_of_the_system() -> None:
    require_memory(1, "one byte", "")
    with pytest.raises(
        NmOdeError, match=r"all would take 1e\+03 TB|all would take .* of memory, and .* are free"
    ):
        require_memory(10**15, "all", "take less")


@pytest.mark.parametrize(
    ("size", "words"), [(5, "5 bytes"), (3_200_000_000, "3.2 GB"), (2 * 10**13, "20 TB"), (10**40, "10^")]
)
def test_bytes_in_words(size: int, words: str) -> None:
    assert in_words(size).startswith(words)


def test_in_words_is_right_to_a_factor_of_ten() -> None:
    for power in range(18, 60):
        exponent = int(in_words(10**power).partition("^")[2].partition(" ")[0])
        assert math.isclose(exponent, power - 9, abs_tol=1.5)
