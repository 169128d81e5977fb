"""`nm-ode report` of a sweep: its page, those of its members, other formats."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import xarray as xr

from nm_ode.cli.console import out
from nm_ode.results import open_store
from nm_ode.results.study import Failure, StudyStore
from nm_ode.studies import load_sweep, run_case
from tests.reporting.pages import Outline
from tests.studies.conftest import TINY

SWEEP = """
[sweep]
"optimizer.lr" = [0.1, 0.05, 0.025]
constraint = "lr * steps = 0.5"
"""


@pytest.fixture(scope="module")
def computed(tmp_path_factory) -> Path:
    """A study of which two members are whole and one failed."""
    folder = tmp_path_factory.mktemp("sweep")
    path = folder / "tiny.toml"
    path.write_text(TINY + SWEEP)
    sweep = load_sweep(path)
    store = StudyStore.at(folder / "results", sweep.record.name)
    store.begin(sweep.record)
    for member in sweep.members[:2]:
        done = run_case(member.case, path, folder / "apart" / member.name)
        working = store.working(member.name)
        working.parent.mkdir(parents=True)
        done.store.rename(working)
        store.commit(member.name)
    store.fail(
        sweep.members[2].name, Failure("memory", "there was [red]not[/red] enough memory", "2026-01-01")
    )
    return folder / "results" / sweep.record.name


def test_the_page_links_the_members_pages(computed: Path, call) -> None:
    result = call("report", computed)
    assert result.exit_code == 0
    for text in ("2 whole, 1 failed", "lr=0.05", "[red]not[/red] enough", "gradient"):
        assert text in result.stdout
    links = Outline((computed / "report.html").read_text()).links
    assert sorted(set(links)) == ["members/lr%3D0.05.html", "members/lr%3D0.1.html"]
    pages = sorted((computed / "members").iterdir())
    assert [page.name for page in pages] == ["lr=0.05.html", "lr=0.1.html"]
    assert "Distance between the flows" in pages[0].read_text()


@pytest.mark.parametrize("width", [40, 120])
def test_members_that_do_not_fit_are_printed_as_their_spread(
    computed: Path, call, monkeypatch, width: int
) -> None:
    monkeypatch.setattr(out, "width", width)
    printed = call("report", computed, "--no-pages").stdout.splitlines()
    starts = {line.split()[0] for line in printed if line}
    assert ("member" in starts) == (width == 120)
    assert ("smallest" in "".join(printed)) == (width == 40)
    assert "…" not in "".join(printed)


def test_a_members_page_is_drawn_again_only_for_other_results(computed: Path, call) -> None:
    call("report", computed)
    pages = sorted((computed / "members").iterdir())
    old, other = pages[0].read_text(), pages[1].read_text()
    pages[0].write_text(old.replace("Distance", "Drawn before: distance"))
    pages[1].write_text(other.rpartition("<!--")[0] + "<!-- of other results -->\n")
    assert call("report", computed / "study.zarr").exit_code == 0
    assert "Drawn before" in pages[0].read_text()
    assert pages[1].read_text() == other


def test_of_a_member_alone(computed: Path, call) -> None:
    """Its page is the one that the study's links to, and nothing is written among the results."""
    page = computed / "members" / "lr=0.05.html"
    page.unlink(missing_ok=True)
    result = call("report", computed / "study.zarr" / "lr=0.05")
    assert result.exit_code == 0
    assert "gradient" in result.stdout
    assert "Distance between the flows" in page.read_text()
    assert not list((computed / "study.zarr").rglob("*.html"))


def test_without_pages_of_members(computed: Path, call) -> None:
    for page in (computed / "members").glob("*.html"):
        page.unlink()
    assert call("report", computed, "--no-pages").exit_code == 0
    assert not list((computed / "members").glob("*.html"))
    assert not Outline((computed / "report.html").read_text()).links


def test_other_formats(computed: Path, call, tmp_path: Path) -> None:
    csv, netcdf = tmp_path / "study.csv", tmp_path / "study.nc"
    result = call("report", computed, "--csv", csv, "--netcdf", netcdf, "--no-pages")
    assert result.exit_code == 0
    frame = pd.read_csv(csv, index_col="member")
    assert frame["state"].to_dict() == {"lr=0.1": "whole", "lr=0.05": "whole", "lr=0.025": "failed"}
    assert frame["training.steps"].tolist() == [5, 10, 20]
    with xr.open_dataset(netcdf) as read:
        assert read["error"].sizes["lr"] == 3
        assert float(read["observed_order"].sel(flow="gradient")) == pytest.approx(1, abs=0.1)


def test_a_file_that_cannot_be_written_does_not_stand_in_the_way(
    computed: Path, call, tmp_path: Path
) -> None:
    result = call("report", computed, "--csv", tmp_path / "no folder" / "a.csv", "--no-pages")
    assert result.exit_code == 1
    assert "a.csv cannot be written" in result.stderr
    assert "report.html" in result.stdout


def test_options_of_a_sweep_are_for_sweeps(computed: Path, call, tmp_path: Path) -> None:
    member = next((computed / "study.zarr").glob("lr=0.1"))
    result = call("report", member, "--csv", tmp_path / "a.csv")
    assert result.exit_code == 2
    assert "--csv" in result.stderr


def test_what_is_no_study_is_a_mistake(call, tmp_path: Path) -> None:
    (tmp_path / "study.zarr").mkdir()
    result = call("report", tmp_path)
    assert result.exit_code == 2
    assert "not a study" in result.stderr


def test_the_memory_of_one_process_is_not_for_several(computed: Path, call) -> None:
    result = call("run", computed.parents[1] / "tiny.toml", "--out", "memory://lost", "--workers", "2")
    assert result.exit_code == 2
    assert "--workers 0" in result.stderr


def test_a_case_alone_goes_to_no_url(call, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alone.toml").write_text(TINY)
    result = call("run", "alone.toml", "--out", "memory://lost")
    assert result.exit_code == 2
    assert "not to a URL" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["alone.toml"]


def test_groups_come_in_the_order_in_which_they_were_written(computed: Path) -> None:
    store = computed / "study.zarr" / "lr=0.1"
    orders = {tuple(node.path for node in open_store(store).subtree) for _ in range(12)}
    assert len(orders) == 1
    flows = [path for path in next(iter(orders)) if path.startswith("/flows/")]
    assert flows == ["/flows/gradient", "/flows/modified_2_hessian"]
