"""What is installed of Julia is read, never guessed; nothing is started, and nothing downloads but when asked to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bridges import EngineError, get_engine
from bridges.julia.installing import (
    DECLARED,
    declared,
    install,
    installation,
    needed,
    optional,
    package_statuses,
    require_stochastic,
    worker_environment,
)
from bridges.julia.methods import METHODS, PACKAGES
from bridges.julia.project import SEEN, read_project
from tests.bridges.fake_julia import (
    FakeJulia,
    executable,
    keep_from_the_user_s_project,
    without_julia,
    write_project,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch) -> None:
    keep_from_the_user_s_project(monkeypatch, tmp_path)


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Path:
    """A Julia that is a script, and a project with every package that is needed."""
    folder = tmp_path / "project"
    folder.mkdir()
    write_project(folder)
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", str(FakeJulia(tmp_path).path))
    monkeypatch.setenv("PYTHON_JULIACALL_PROJECT", str(folder))
    return folder


def test_all_is_there(project: Path) -> None:
    found = installation()
    assert found.ready
    assert found.project == project
    assert found.missing == ()
    get_engine("diffeq").require_ready()


def test_missing_packages_are_named(project: Path) -> None:
    write_project(project, without=("LinearSolve", "ADTypes"))
    found = installation()
    assert found.missing == ("LinearSolve", "ADTypes")
    with pytest.raises(EngineError, match=r"lacks LinearSolve, ADTypes; run `nm-ode bridge install`"):
        get_engine("diffeq").require_ready()


@pytest.mark.parametrize("name", ["Project.toml", "Manifest.toml"])
def test_a_package_is_there_if_project_and_manifest_have_it(project: Path, name: str) -> None:
    """A dependency of a dependency cannot be imported; one that is not resolved is not installed."""
    before = (project / name).read_text()
    write_project(project, without=("ADTypes",))
    less = (project / name).read_text()
    assert less != before
    write_project(project)
    (project / name).write_text(less)
    assert installation().missing == ("ADTypes",)


def test_without_pythoncall_no_worker_can_start(project: Path) -> None:
    write_project(project, without=("PythonCall",))
    assert installation().missing == ("PythonCall",)


def test_a_pythoncall_of_another_juliacall_is_named(project: Path) -> None:
    write_project(project, versions={"PythonCall": "0.9.1"})
    assert "needs PythonCall" in installation().lacks
    assert "0.9.1" in installation().lacks


def test_solvers_that_may_find_products_by_themselves_are_refused(project: Path) -> None:
    write_project(project, versions={"OrdinaryDiffEq": "6.103.0"})
    assert "OrdinaryDiffEq 7 is needed" in installation().lacks
    write_project(project, versions={"OrdinaryDiffEq": "7.0.0"})
    assert installation().ready


@pytest.mark.parametrize("name", ["Project.toml", "Manifest.toml"])
def test_a_project_that_cannot_be_read_is_named(project: Path, name: str) -> None:
    (project / name).write_text("[[deps")
    assert str(project / name) in installation().lacks


def test_julia_s_own_names_of_the_files_come_first(project: Path) -> None:
    (project / "JuliaManifest.toml").write_text('manifest_format = "2.0"')
    assert set(installation().missing) == set(needed()) - set(optional())
    (project / "JuliaManifest.toml").unlink()
    (project / "JuliaProject.toml").write_text("[deps]")
    assert set(installation().missing) == set(needed()) - set(optional())


def test_a_manifest_may_lie_elsewhere(project: Path) -> None:
    (project / "Manifest.toml").rename(project.parent / "Other.toml")
    text = (project / "Project.toml").read_text()
    (project / "Project.toml").write_text('manifest = "../Other.toml"\n' + text)
    assert installation().ready


def test_a_project_without_what_only_stochastic_flows_need_is_ready(project: Path) -> None:
    require_stochastic()
    write_project(project, without=("StochasticDiffEq",))
    assert installation().ready
    assert installation().without == ("StochasticDiffEq",)
    get_engine("diffeq").require_ready()
    with pytest.raises(EngineError, match=r"StochasticDiffEq .* run `nm-ode bridge install`"):
        require_stochastic()


def test_stochastic_paths_need_a_julia_as_well(project: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", "/nowhere/julia")
    with pytest.raises(EngineError, match=r"no Julia at /nowhere/julia; run `nm-ode bridge install`"):
        require_stochastic()


def test_a_julia_that_is_gone_is_named(project: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", "/nowhere/julia")
    assert installation().lacks == "there is no Julia at /nowhere/julia"


def test_one_of_the_two_variables_is_not_enough(project: Path, monkeypatch) -> None:
    monkeypatch.delenv("PYTHON_JULIACALL_PROJECT")
    assert "must be set together" in installation().lacks


def test_without_a_record_nothing_is_installed(tmp_path: Path, monkeypatch) -> None:
    from juliapkg.state import STATE

    for name in ("EXE", "PROJECT"):
        monkeypatch.delenv(f"PYTHON_JULIACALL_{name}", raising=False)
    monkeypatch.setitem(STATE, "meta", str(tmp_path / "meta.json"))
    assert not installation().ready
    (tmp_path / "meta.json").write_text("{ cut off")
    assert not installation().ready


def test_the_worker_has_our_julia_and_no_way_to_the_network(project: Path) -> None:
    environment = worker_environment()
    assert environment["PATH"].split(os.pathsep)[0] == str(project.parent / "bin")
    assert environment["PYTHON_JULIAPKG_OFFLINE"] == "yes"
    assert environment["JULIA_PKG_OFFLINE"] == "true"
    assert environment["JULIA_NUM_THREADS"] == "1"
    assert environment["PYTHON_JULIACALL_PROJECT"] == str(project)


def test_a_worker_finds_a_julia_that_was_named_by_a_link(project: Path, tmp_path: Path, monkeypatch) -> None:
    """diffeqpy looks for one called "julia", and would download it."""
    (tmp_path / "links").mkdir()
    link = tmp_path / "links/julia-1.10"
    link.symlink_to(project.parent / "bin/julia")
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", str(link))
    environment = worker_environment()
    assert environment["PYTHON_JULIACALL_EXE"] == str(link)
    assert str(project.parent / "bin") in environment["PATH"].split(os.pathsep)


def test_every_package_that_a_method_needs_is_declared() -> None:
    assert set(PACKAGES) <= set(declared())
    assert {method.package for method in METHODS.values()} == set(PACKAGES)
    assert DECLARED.name == "juliapkg.json"
    assert DECLARED.parent.name == "bridges"


def test_the_declaration_is_one_that_juliapkg_takes() -> None:
    import json

    from juliapkg.compat import Compat
    from juliapkg.deps import PkgSpec

    text = json.loads(DECLARED.read_text())
    assert Compat.parse(text["julia"])
    for name, entry in text["packages"].items():
        PkgSpec(name, entry["uuid"], version=entry["version"])
        Compat.parse(entry["version"])


def test_users_stay_where_the_solvers_go_with_each_other() -> None:
    """OrdinaryDiffEq 7.2 needs LinearSolve 5 (docs/bridge.md rule 15); diffeqpy declares OrdinaryDiffEq too."""
    from juliapkg.compat import Compat
    from juliapkg.deps import find_requirements
    from semver import Version

    ours = {name: entry["version"] for name, entry in json.loads(DECLARED.read_text())["packages"].items()}
    merged = {package.name: package.version for package in find_requirements()[1]}
    for text in (ours["OrdinaryDiffEq"], merged["OrdinaryDiffEq"]):
        allowed = Compat.parse(text)
        assert all(Version.parse(version) in allowed for version in ("7.0.0", "7.1.9"))
        assert all(Version.parse(version) not in allowed for version in ("6.90.0", "7.2.0"))
    assert Version.parse("5.1.0") not in Compat.parse(ours["LinearSolve"])


def test_the_versions_that_were_seen_are_declared_pinned_and_in_the_docs() -> None:
    from juliapkg.compat import Compat
    from semver import Version

    ours = {name: entry["version"] for name, entry in json.loads(DECLARED.read_text())["packages"].items()}
    for name in set(ours) & set(SEEN):
        assert Version.parse(SEEN[name], optional_minor_and_patch=True) in Compat.parse(ours[name])
    assert f"juliacall=={SEEN['PythonCall']}\n" in (ROOT / "constraints.txt").read_text()
    docs = (ROOT / "docs/bridge.md").read_text()
    assert all(version in docs for version in SEEN.values())


def test_each_package_is_said_to_have_been_seen_running_or_not(project: Path) -> None:
    write_project(
        project,
        without=("StochasticDiffEq",),
        versions={
            "OrdinaryDiffEq": "7.0.0",
            "SciMLBase": "3.7.12",
            "LinearSolve": "3.7.5",
            "PythonCall": "0.9.3",
        },
    )
    packages = {package.name: package for package in package_statuses()}
    assert packages["julia"].version == "1.10.8"
    assert packages["SciMLBase"].version == "3.7.12"
    another = {name for name, package in packages.items() if package.another}
    assert another == {"LinearSolve", "PythonCall"}
    assert packages["StochasticDiffEq"].version == ""
    assert packages["StochasticDiffEq"].needed_by
    assert packages["ADTypes"].seen == ""


@pytest.mark.parametrize("offline", [False, True])
def test_an_installation_makes_the_project_and_tells_what_it_does(
    tmp_path: Path, monkeypatch, offline: bool
) -> None:
    julia, folder = FakeJulia(tmp_path, says="Resolving package versions..."), tmp_path / "new/project"
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", str(julia.path))
    monkeypatch.setenv("PYTHON_JULIACALL_PROJECT", str(folder))
    assert str(folder) in installation().lacks
    lines: list[str] = []
    install(offline=offline, on_line=lines.append)
    assert installation().ready
    assert read_project(folder).direct.items() >= needed().items()
    assert "Resolving package versions..." in lines
    (call,) = julia.calls
    assert call["project"] == str(folder)
    assert ("Pkg.offline(true)" in call["script"]) == offline
    assert (call["environment"].get("JULIA_PKG_OFFLINE") == "true") == offline


@pytest.mark.parametrize("offline", [False, True])
def test_what_is_installed_does_not_depend_on_the_working_directory(
    project: Path, tmp_path: Path, monkeypatch, offline: bool
) -> None:
    (tmp_path / "cwd/bridges").mkdir(parents=True)
    (tmp_path / "cwd/bridges/__init__.py").touch()
    (tmp_path / "cwd/bridges/juliapkg.json").write_text('{"julia": "1.4"}')
    monkeypatch.chdir(tmp_path / "cwd")
    (project / "Project.toml").unlink()
    install(offline=offline, on_line=lambda line: None)
    assert read_project(project).direct.items() >= needed().items()


@pytest.mark.parametrize("offline", [False, True])
def test_an_installation_that_fails_says_why(project: Path, tmp_path: Path, monkeypatch, offline) -> None:
    says = "  Resolving\nERROR: Unsatisfiable requirements for X:\n X log\nERROR: LoadError\n [3] top-level scope"
    FakeJulia(tmp_path, says=says, status=1)
    with pytest.raises(EngineError, match=r"did not work: .*Unsatisfiable requirements for X") as raised:
        install(offline=offline, on_line=lambda line: None)
    assert "\n" not in str(raised.value)
    assert "top-level" not in str(raised.value)


def test_an_installation_that_leaves_something_out_is_not_called_done(
    project: Path, tmp_path, monkeypatch
) -> None:
    write_project(project, without=("OrdinaryDiffEq",))
    monkeypatch.setattr(sys, "executable", str(executable(tmp_path / "python", "#!/bin/sh\nexit 0\n")))
    with pytest.raises(
        EngineError, match=r"the installation is not complete: the project .* lacks OrdinaryDiffEq"
    ):
        install(on_line=lambda line: None)


def test_where_to_install_must_be_clear_before_anything_starts(
    project: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", "/nowhere/julia")
    with pytest.raises(EngineError, match="there is no Julia at /nowhere/julia"):
        install(on_line=lambda line: None)
    monkeypatch.delenv("PYTHON_JULIACALL_EXE")
    with pytest.raises(EngineError, match="must be set together"):
        install(on_line=lambda line: None)


INSTALL_AND_TELL = """
import json, sys
from bridges.julia.installing import install, installation, worker_environment
install(offline=sys.argv[1] == "offline", on_line=lambda line: None)
found, worker = installation(), worker_environment()
print(json.dumps([str(found.julia), str(found.project)]))
print(json.dumps([worker[f"PYTHON_JULIACALL_{name}"] for name in ("EXE", "PROJECT")]))
"""
HERE, ELSEWHERE = "{tmp}/here", "{tmp}/elsewhere"
JULIA, OTHER = "{tmp}/bin/julia", "{tmp}/other/bin/julia"


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize(
    ("variables", "flags"),
    [
        ({"PYTHON_JULIACALL_EXE": JULIA, "PYTHON_JULIACALL_PROJECT": HERE}, []),
        ({"PYTHON_JULIACALL_EXE": "bin/julia", "PYTHON_JULIACALL_PROJECT": "here"}, []),
        ({"PYTHON_JULIAPKG_EXE": JULIA, "PYTHON_JULIAPKG_PROJECT": HERE}, []),
        ({"PYTHON_JULIAPKG_PROJECT": HERE, "PATH": "{tmp}/bin"}, []),
        ({"PYTHON_JULIAPKG_PROJECT": ELSEWHERE, "PATH": "{tmp}/bin"}, [f"juliapkg-project={HERE}"]),
        ({"PYTHON_JULIAPKG_EXE": OTHER}, [f"juliapkg-project={HERE}", f"juliapkg-exe={JULIA}"]),
        ({}, [f"juliacall-project={HERE}", f"juliacall-exe={JULIA}"]),
        (
            {
                "PYTHON_JULIACALL_EXE": JULIA,
                "PYTHON_JULIACALL_PROJECT": HERE,
                "PYTHON_JULIAPKG_EXE": OTHER,
                "PYTHON_JULIAPKG_PROJECT": ELSEWHERE,
            },
            [],
        ),
    ],
)
def test_installation_status_and_worker_mean_the_same_julia_and_project(
    tmp_path: Path, mode: str, variables: dict[str, str], flags: list[str]
) -> None:
    julia, other = FakeJulia(tmp_path), FakeJulia(tmp_path / "other")
    variables = {name: value.format(tmp=tmp_path) for name, value in variables.items()}
    flags = [part for flag in flags for part in ("-X", flag.format(tmp=tmp_path))]
    done = subprocess.run(
        [sys.executable, *flags, "-c", INSTALL_AND_TELL, mode],
        env=without_julia(tmp_path / "elsewhere") | {"PYTHONPATH": str(ROOT)} | variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = [str(julia.path), str(tmp_path / "here")]
    assert [json.loads(line) for line in done.stdout.splitlines()] == [expected, expected]
    assert [call["project"] for call in julia.calls] == [expected[1]]
    assert other.calls == []


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"PYTHON_JULIAPKG_PROJECT": "here"}, "PYTHON_JULIAPKG_PROJECT must be an absolute path"),
        ({"PYTHON_JULIAPKG_OFFLINE": "perhaps"}, "PYTHON_JULIAPKG_OFFLINE"),
    ],
)
def test_what_juliapkg_refuses_is_said(tmp_path: Path, variables: dict[str, str], names: str) -> None:
    code = "from bridges.julia.installing import installation; print(installation().lacks)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=without_julia(tmp_path / "elsewhere") | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert names in done.stdout
