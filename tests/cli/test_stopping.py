"""How the command ends before its end: signals, pipes, full disks, and names that are no plain text."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nm_ode.cli.stopping import _Signals
from tests.studies.conftest import TINY

pytestmark = pytest.mark.usefixtures("python_sigint")  # and so in the commands that are started

COMMAND = [sys.executable, "-c", "from nm_ode.cli import main; main()"]

# One flow without a check: what these tests see comes before it, or after.
ONE_FLOW = TINY.replace(', { kind = "modified", order = 2, form = "hessian" }', "") + "check = false\n"

SLOW = """
import os, signal, time


def build(seed):
    from nm_ode.models import mlp

    open("begun", "w").close()
    if {swallow}:
        try:
            time.sleep(60)
        except BaseException:
            pass
    else:
        time.sleep(60)
    return mlp([64, 4, 10], "tanh", seed=seed)
"""


def started(folder: Path, *arguments: str, **options) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        **options,
    )


@pytest.fixture
def slow(case: Path) -> Callable[..., Path]:
    """Writes a case whose model takes a minute to be made."""

    def write(*, swallow: bool = False) -> Path:
        (case.parent / "slow.py").write_text(SLOW.format(swallow=swallow))
        case.write_text(TINY.replace('name = "mlp"\nwidths = [64, 4, 10]', 'python = "slow.py:build"'))
        return case.parent

    return write


def when_begun(folder: Path, process: subprocess.Popen[str]) -> None:
    while not (folder / "begun").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def when_it_imports(library: str, process: subprocess.Popen[str]) -> None:
    maps = Path(f"/proc/{process.pid}/maps")
    if not maps.exists():
        time.sleep(0.8)  # by then it does
    while maps.exists() and library not in maps.read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "swallow", "code"),
    [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143)],
)
def test_a_signal_ends_the_command_with_a_sentence(slow, number: int, swallow: bool, code: int) -> None:
    """Also where a library takes the exception for one of its own."""
    folder = slow(swallow=swallow)
    process = started(folder, "run", "tiny.toml")
    when_begun(folder, process)
    process.send_signal(number)
    _, told = process.communicate(timeout=120)
    assert process.returncode == code, told
    assert "what was complete is kept" in told
    assert "Traceback" not in told


def test_ctrl_c_during_the_imports(case: Path) -> None:
    process = started(case.parent, "run", "tiny.toml")
    when_it_imports("libtorch", process)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert "interrupted" in told
    assert "Traceback" not in told


def test_what_comes_where_nothing_can_be_raised_is_not_lost(monkeypatch) -> None:
    handlers = _Signals()
    before = signal.getsignal(signal.SIGINT), sys.unraisablehook

    class Ends:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        handlers.install()
        Ends()
        with pytest.raises(KeyboardInterrupt):
            time.sleep(30)
    finally:
        signal.signal(signal.SIGINT, before[0])
        sys.unraisablehook = before[1]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.mark.parametrize("command", ["report", "symmetries", "cases"])
def test_every_command_that_is_interrupted_says_what_is_left(
    case: Path, call, monkeypatch, command: str
) -> None:
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    (case.parent / "tiny.zarr").mkdir()
    monkeypatch.setattr("nm_ode.results.open_store", interrupted)
    monkeypatch.setattr("nm_ode.studies.load_case", interrupted)
    arguments = {"report": ["tiny.zarr"], "symmetries": ["tiny.toml"], "cases": []}[command]
    result = call(command, *arguments)
    assert result.exit_code == 130
    assert "interrupted; " in result.stderr


def test_a_reader_that_goes_away_is_no_traceback(case: Path) -> None:
    with started(case.parent, "cases") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        told = process.stderr.read()
    assert process.returncode in (0, 1)
    assert "Traceback" not in told
    assert "ignored" not in told


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_what_cannot_be_printed_does_not_stop_the_run(case: Path) -> None:
    case.write_text(ONE_FLOW)
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [*COMMAND, "run", "tiny.toml"],
            cwd=case.parent,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "20"},
            check=False,
        )
    assert process.returncode == 1
    assert "cannot be written: No space left" in process.stderr
    assert "Traceback" not in process.stderr
    assert (case.parent / "results/tiny/report.html").exists()


def test_a_poor_environment_is_enough(case: Path) -> None:
    """No home, no terminal, ASCII alone, twenty columns, and a file name that is no Unicode."""
    case.write_text(ONE_FLOW)
    name = os.fsencode(case.parent) + b"/\xff.toml"
    os.rename(case, name)
    process = subprocess.run(
        [*COMMAND, "run", os.path.basename(name), "--out", "out[v1]"],
        cwd=case.parent,
        capture_output=True,
        text=True,
        env={
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PATH": os.environ["PATH"],
            "LC_ALL": "C",
            "PYTHONIOENCODING": "ascii",
            "COLUMNS": "20",
            "OMP_NUM_THREADS": "1",
        },
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "out[v1]/tiny/report.html" in process.stdout
    assert (case.parent / "out[v1]/tiny/report.html").exists()


def test_one_broken_file_does_not_hide_the_others(case: Path, call) -> None:
    folder = case.parent / "cases"
    folder.mkdir()
    case.rename(folder / "tiny.toml")
    (folder / "loop.toml").symlink_to("loop.toml")
    (folder / "folder.toml").mkdir()
    (folder / "bro[red]ken.toml").write_text("name = 3")
    (folder / "title.toml").write_text(
        TINY.replace('"tiny"', '"title"\ntitle = "[/red] [bold] :smile: $\\\\frac$"')
    )
    os.mkfifo(folder / "fifo.toml")
    result = call("cases")
    assert result.exit_code == 0
    for text in ("tiny", "loop", "folder", "bro[red]ken", "fifo", "[/red]", ":smile:", "digits_mlp"):
        assert text in result.stdout


def test_an_unreadable_folder_of_cases_is_named(case: Path, call, monkeypatch) -> None:
    def refused(folder: Path):
        raise OSError(13, "Permission denied")

    (case.parent / "cases").mkdir()
    monkeypatch.setattr(Path, "iterdir", refused)
    result = call("cases")
    assert result.exit_code == 0
    assert "cases cannot be read (Permission denied)" in result.stderr
    assert "digits_mlp" in result.stdout
