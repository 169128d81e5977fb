"""Studies in memory, behind file:// and on an S3 server: the same as on the disk; who had a lease, and lost it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr

from nm_ode.results import StoreError, open_store, open_study
from nm_ode.results.remote import RemoteFolder, folder_at
from nm_ode.results.store import WriteError
from nm_ode.results.study import Busy, StudyStore, leases
from nm_ode.results.study.root import read_study_root
from tests.results.studies import FAILURE, identity, member_dataset, record, work

PLACE, OTHER = record().members[:2]


@dataclass
class Server:
    """An S3 server on this machine; what it stores is gone when it stops."""

    url: str
    stop: Callable[[], None]


def _serve(patch: pytest.MonkeyPatch, bucket: str) -> Server:
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "nobody")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    patch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(bucket)
    return Server(f"s3://{bucket}/results", server.stop)


@pytest.fixture(scope="module")
def s3() -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server = _serve(patch, "bucket")
        yield server
        server.stop()
        fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(params=["memory", "file", "s3"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A URL that nobody else uses."""
    match request.param:
        case "memory":
            return f"memory://{tmp_path.name}/results"
        case "file":
            return f"file://{tmp_path}/results"
        case _:
            return f"{request.getfixturevalue('s3').url}/{tmp_path.name}"


@pytest.fixture
def store(out: str, tmp_path: Path) -> StudyStore:
    found = StudyStore.at(out, "sweep_x", tmp_path / "scratch")
    assert found.begin(record()) == []
    return found


def test_a_study_elsewhere_is_as_one_on_the_disk(store: StudyStore) -> None:
    store.fail(PLACE.name, FAILURE)
    assert store.failures() == {PLACE.name: FAILURE}
    with store.claim(PLACE.name):
        work(store, PLACE)
        assert not store.is_whole(PLACE.name, identity(PLACE))
        store.commit(PLACE.name)
    assert store.is_whole(PLACE.name, identity(PLACE))
    assert not store.is_whole(OTHER.name, identity(OTHER))
    assert store.failures() == {}
    assert not (store.unfinished / PLACE.name).exists()
    xr.testing.assert_identical(
        open_store(store.place(PLACE.name))["discrete"].to_dataset().load(), member_dataset(PLACE)
    )
    with store.claim(OTHER.name):
        work(store, OTHER)
        store.commit(OTHER.name)
    tree = open_study(store.place(""))
    assert tree["whole"].values.tolist() == [[True, True, False], [False, False, False]]
    for i, place in enumerate((PLACE, OTHER)):
        np.testing.assert_array_equal(
            tree["discrete/energy"].isel(lr=0, seed=i), member_dataset(place)["energy"]
        )
    (sentence,) = store.begin(record(seeds=(1, 2)))
    assert PLACE.name in sentence
    with pytest.raises(StoreError, match=r"another case.*training\.steps"):
        store.begin(record(steps=9))
    store.write_reduction("convergence", xr.Dataset({"order": ("flow", [1.0])}))
    store.write_reduction("convergence", xr.Dataset({"order": ("flow", [2.0])}))
    assert set(read_study_root(store.study).digests) == {"convergence"}
    assert store.write_file("report.html", b"<html>").endswith("sweep_x/report.html")
    assert store.folder.read("report.html") == b"<html>"


def test_damage_elsewhere_is_named(store: StudyStore) -> None:
    work(store, PLACE)
    store.commit(PLACE.name)
    folder = store.study.below(PLACE.name)
    content = folder.read("discrete/loss/c/0")
    folder.write("discrete/loss/c/0", content[:-1] + b"x")
    with pytest.raises(StoreError, match=f"{PLACE.name} is damaged: discrete/loss/c/0"):
        open_store(store.place(PLACE.name))
    folder.remove("discrete/loss/c/0")
    with pytest.raises(StoreError, match=f"{PLACE.name} is damaged: discrete/loss/c/0 is missing"):
        open_store(store.place(PLACE.name))


def test_a_connection_that_is_lost_in_an_upload_costs_nothing(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = StudyStore.at(f"{s3.url}/{tmp_path.name}", "sweep_x", tmp_path / "scratch")
    store.begin(record())
    working = work(store, PLACE)
    uploads = []

    def cut(number: int) -> None:
        filesystem = store.study._filesystem  # type: ignore[attr-defined]
        real = filesystem._put_file

        async def lost(local: str, remote: str, **options: object) -> object:
            uploads.append(remote)
            if len(uploads) > number:
                raise ConnectionResetError("Connection reset by peer")
            return await real(local, remote, **options)

        monkeypatch.setattr(filesystem, "_put_file", lost)

    cut(3)
    with pytest.raises(WriteError, match=r"Connection reset.*same command"):
        store.commit(PLACE.name)
    assert len(uploads) > 3
    monkeypatch.undo()
    assert not store.is_whole(PLACE.name, identity(PLACE))
    assert working.exists()
    assert store.is_ready(PLACE.name, identity(PLACE))
    store.study.write(f"{PLACE.name}/of/an/earlier/attempt", b"")
    store.commit(PLACE.name)
    assert store.is_whole(PLACE.name, identity(PLACE))
    assert store.study.names(PLACE.name) == ["discrete", "zarr.json"]
    assert open_store(store.place(PLACE.name)).load()


def test_a_server_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server = _serve(patch, "gone")
        store = StudyStore.at(server.url, "sweep_x", tmp_path / "scratch")
        store.begin(record())
        working = work(store, PLACE)
        patch.setattr(leases, "SECONDS", 0.1)
        filesystem = store.study._filesystem  # type: ignore[attr-defined]
        put, uploads = filesystem._put_file, []

        async def stopped(local: str, remote: str, **options: object) -> object:
            uploads.append(remote)
            if len(uploads) == 4:
                server.stop()
            return await put(local, remote, **options)

        with store.claim(PLACE.name):
            patch.setattr(filesystem, "_put_file", stopped)
            with pytest.raises(WriteError, match="what was complete is kept"):
                store.commit(PLACE.name)
        assert len(uploads) > 3
        assert store.is_ready(PLACE.name, identity(PLACE))
        assert working.exists()
        for action in (
            lambda: store.begin(record()),
            lambda: store.is_whole(PLACE.name, identity(PLACE)),
            store.failures,
            lambda: open_store(store.place(PLACE.name)),
        ):
            with pytest.raises(StoreError, match="s3://gone/results/sweep_x") as caught:
                action()
            assert "\n" not in str(caught.value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(params=["memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> RemoteFolder:
    at = "memory://" if request.param == "memory" else f"{request.getfixturevalue('s3').url}/"
    found = folder_at(f"{at}{tmp_path.name}/claims")
    assert isinstance(found, RemoteFolder)
    return found


def test_a_lease_is_for_one_and_ends_with_it(folder: RemoteFolder) -> None:
    with leases.leased(folder, "m") as lease:
        lease.require()
        with pytest.raises(Busy, match="by process"), leases.leased(folder, "m"):
            pass
        with leases.leased(folder, "other"):
            pass
    assert folder.names("m") == []
    with leases.leased(folder, "m"):
        pass


def test_a_lease_that_nobody_renews_is_taken_over_and_its_owner_finds_out(folder: RemoteFolder) -> None:
    with leases.leased(folder, "m") as asleep:
        _age(folder, asleep, by=89)
        with pytest.raises(Busy), leases.leased(folder, "m"):
            pass
        _age(folder, asleep, by=91)
        with leases.leased(folder, "m") as awake:
            awake.require()
            with pytest.raises(StoreError, match="taken over"):
                asleep.require()
            with pytest.raises(StoreError, match="taken over"):
                asleep.renew()
            asleep.release()
            awake.require()
        assert folder.names("m") == []


def _age(folder: RemoteFolder, lease: leases.Lease, by: float) -> None:
    said = {**lease.said, "renewed": time.time() - by}
    folder.write(f"m/{lease.number}", json.dumps(said).encode())


def test_a_lease_of_a_process_of_this_machine_that_has_ended_is_free_at_once(folder: RemoteFolder) -> None:
    with leases.leased(folder, "m") as lease:
        if "pid" not in lease.said:
            pytest.skip("this system does not say which process is which")
        lease.said.update(started="1")  # the number was given to another process since
        lease.renew()
        with leases.leased(folder, "m"):
            pass


def test_a_lease_is_renewed_while_it_is_held(folder: RemoteFolder) -> None:
    with leases.leased(folder, "m", seconds=0.3) as lease:
        first = folder.read("m/1")
        for _ in range(100):
            time.sleep(0.05)
            if folder.read("m/1") != first:
                break
        else:
            pytest.fail("it is not renewed")
        lease.require()


def test_of_many_that_want_a_stale_lease_one_gets_it(folder: RemoteFolder) -> None:
    for _ in range(2):
        folder.remove("m")
        folder.write("m/1", json.dumps({"who": "x", "since": "y", "renewed": 0, "seconds": 90}).encode())
        start, holders, most = threading.Barrier(6), [], []

        def compete(start: threading.Barrier = start, holders: list = holders, most: list = most) -> None:
            start.wait()
            try:
                with leases.leased(folder, "m") as lease:
                    lease.require()
                    holders.append(lease)
                    most.append(len(holders))
                    time.sleep(0.05)
                    lease.require()
                    holders.remove(lease)
            except Busy:
                pass

        threads = [threading.Thread(target=compete) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most
        assert max(most) == 1


def test_places_that_are_none_are_named() -> None:
    with pytest.raises(StoreError, match="nowhere://x is no place"):
        folder_at("nowhere://x")


def test_what_others_committed_is_not_committed_again_after_a_lost_lease(tmp_path: Path) -> None:
    store = StudyStore.at(f"memory://{tmp_path.name}", "sweep_x", tmp_path / "scratch")
    store.begin(record())
    working = work(store, PLACE)
    with store.claim(PLACE.name):
        store.folder.write(f"claims/{PLACE.name}/2", b"{}")
        with pytest.raises(StoreError, match="taken over"):
            store.commit(PLACE.name)
    assert working.exists()
    assert not store.is_whole(PLACE.name, identity(PLACE))
