"""Staging in a bucket is as in a folder: the same tests for both; and what a bucket alone has."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mixpanel_assets.cli.main import run
from mixpanel_assets.errors import ConfigurationError, WarehouseError
from mixpanel_assets.sandbox import Fault, Population, Sandbox
from mixpanel_assets.storage import staging as staging_module
from mixpanel_assets.storage.object_staging import ObjectStaging
from mixpanel_assets.storage.staging import LocalStaging, Staging
from mixpanel_assets.storage.staging_places import staging_at
from mixpanel_assets_tests.buckets import BUCKET, Buckets, buckets


@pytest.fixture(scope="module")
def s3() -> Iterator[Buckets]:
    with buckets() as running:
        yield running


@pytest.fixture
def variables(s3: Buckets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {**s3.environment, "DAGSTER_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, variables: None) -> Staging:
    url = f"s3://{BUCKET}/{tmp_path.name}" if request.param == "bucket" else f"file://{tmp_path}/a%20folder"
    return staging_at("MP_STAGING_URL", url)


def test_files_are_whole_listed_moved_and_deleted(place: Staging, tmp_path: Path) -> None:
    place.prepare("events")
    place.put("events/run/b", iter([b"in ", b"parts"]))
    place.put("events/run/a", b"")
    made = place.working_folder("events/run") / "made.partial"
    made.write_bytes(b"file")
    place.put_file("events/run/c", made)
    assert not made.exists()
    assert [place.get(f"events/run/{name}") for name in "abcd"] == [b"", b"in parts", b"file", None]
    assert [place.size(f"events/run/{name}") for name in "abcd"] == [0, 8, 4, None]
    assert place.names("events/run") == ["a", "b", "c"]
    assert place.names("events/ru") == []
    place.move("events/run/c", "events/other/c")
    with pytest.raises(FileNotFoundError):
        place.move("events/run/c", "events/other/d")
    place.delete(["events/run/a", "events/run/none"])
    place.claim("profiles/s", "run-1")
    assert place.claimants("profiles/s") == {"run-1"}
    now = time.time()
    assert {folder.key: now - 60 < folder.touched_at < now + 60 for folder in place.folders()} == {
        "events/run": True,
        "events/other": True,
        "profiles/s": True,
    }
    with place.local(["events/other/c", "events/run/b"]) as here:
        assert here.path("events/other/c").read_bytes() == b"file"
        assert here.path("events/run/b").stat().st_mode & 0o077 == 0
    place.delete_folder("events/run")
    assert place.names("events/run") == []


def test_a_failure_amid_the_parts_leaves_no_file(place: Staging) -> None:
    def broken() -> Iterator[bytes]:
        yield b"some"
        raise OSError(28, "No space left on device")

    with pytest.raises(WarehouseError, match=r"cannot stage in .*: No space left on device"):
        place.put("events/run/a", broken())
    assert place.get("events/run/a") is None
    assert place.names("events/run") == []


def test_one_of_many_takes_a_file(place: Staging) -> None:
    """Red without the object that only one can make: several delete what they found there."""
    together = threading.Barrier(8)

    def take(number: int) -> int:
        together.wait()
        return sum(place.take(f"events/run/{name}") for name in range(5))

    for name in range(5):
        place.put(f"events/run/{name}", b"x")
    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(take, range(8))) == 5
    assert place.names("events/run") == []


def test_old_folders_are_swept(place: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put("profiles/s/a", b"x")
    assert [folder.key for folder in place.sweep()] == ["profiles/s"]
    monkeypatch.setattr(staging_module, "KEEP_SECONDS", -60)
    assert place.sweep() == []
    assert place.folders() == []


def test_a_project_has_a_folder_of_its_own(variables: None, tmp_path: Path) -> None:
    own = staging_at("x", f"s3://{BUCKET}/{tmp_path.name}/", "projects/eu")
    own.put("profiles/s/a", b"x")
    assert staging_at("x", f"s3://{BUCKET}/{tmp_path.name}").folders() == []
    assert [folder.key for folder in own.folders()] == ["profiles/s"]


def test_pages_of_one_machine_are_loaded_by_another(
    variables: None, s3: Buckets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two homes without a common folder. Red when a page is looked for in the folder of the home: all are asked for
    anew. What is stored is staged no more, and no handle of a run that succeeded."""
    monkeypatch.setenv("MP_STAGING_URL", f"s3://{BUCKET}/{tmp_path.name}")
    monkeypatch.setenv("MP_DATABASE", str(tmp_path / "x.duckdb"))
    with Sandbox(Population(profiles=45, seed=2, events_per_day=10), page_size=10) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        sandbox.faults = [Fault("engage", "status:403", page=2, times=None)]
        assert run(["fetch", "profiles", "--parallel"]) == 1
        assert len([key for key in s3.keys(f"{tmp_path.name}/profiles") if key.endswith(".jsonl")]) == 4
        assert not list((tmp_path / "home").rglob("*.jsonl"))
        sandbox.faults = []
        sandbox.journal.clear()
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "another"))
        capfd.readouterr()
        assert run(["retry", "profiles"]) == 0
        assert json.loads(capfd.readouterr().out)["total_rows"] == 45
        assert [request.page for request in sandbox.journal.requests] == [2]
        assert run(["fetch", "events", "--from", "2026-01-01", "--to", "2026-01-02", "--parallel"]) == 0
    # The handles of the run that failed wait for the next of its home.
    left = {tuple(key.split("/")[1:3]) for key in s3.keys(f"{tmp_path.name}/")}
    assert [stream for stream, _ in left] == ["handles"], left
    files = [file for home in ("home", "another") for file in (tmp_path / home).rglob("*") if file.is_file()]
    assert not [file for file in files if "working" in file.parts]


class TestRefused:
    """In one line, before anything is asked for, and without a secret."""

    def refusal(self, url: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with pytest.raises((WarehouseError, ConfigurationError)) as error:
            staging_at("MP_STAGING_URL", url).prepare("profiles")
        message = str(error.value)
        assert "\n" not in message
        assert variables.get("AWS_SECRET_ACCESS_KEY", "geheim") not in message
        return message

    def test_a_bucket_without_the_right_to_delete(
        self, s3: Buckets, variables: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with s3.guarded("s3:PutObject", "s3:GetObject", "s3:ListBucket") as account:
            said = self.refusal(f"s3://{BUCKET}/no-delete", account, monkeypatch)
            assert f"cannot stage in s3://{BUCKET}/no-delete: it does not let this account delete" in said
            wrong = {**account, "AWS_SECRET_ACCESS_KEY": "geheim" * 4}
            said = self.refusal(f"s3://{BUCKET}/wrong-secret", wrong, monkeypatch)
            assert "it does not let this account write; see to it, or set MP_STAGING_URL" in said

    def test_a_bucket_that_cannot_be_reached(
        self, s3: Buckets, variables: None, free_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        began = time.monotonic()
        closed = {**s3.environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port}"}
        said = self.refusal(f"s3://{BUCKET}/unreachable", closed, monkeypatch)
        assert said.startswith(f"cannot stage in s3://{BUCKET}/unreachable: ")
        assert "there is no such bucket" in self.refusal("s3://no-such-bucket/x", s3.environment, monkeypatch)
        assert time.monotonic() - began < 20

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("s3://key:geheim@bucket", "MP_STAGING_URL must not hold credentials"),
            ("az://bucket?sig=geheim", "MP_STAGING_URL must not hold credentials"),
            ("s3:///x", "MP_STAGING_URL names no bucket: write it as s3://BUCKET/FOLDER"),
            ("ftp://host", "MP_STAGING_URL begins with 'ftp:'"),
        ],
    )
    def test_what_is_no_place(self, url: str, says: str, variables: None, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.refusal(url, {}, monkeypatch).startswith(says)

    def test_a_sync_asks_nothing_before(
        self, variables: None, free_port: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Red without the look in the plan of events, which sends its first request from another step."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port}")
        monkeypatch.setenv("MP_STAGING_URL", f"s3://{BUCKET}/asks-nothing")
        with Sandbox(Population(profiles=5)) as sandbox:
            for name, value in sandbox.environment.items():
                monkeypatch.setenv(name, value)
            assert run(["fetch", "profiles", "--parallel"]) != 0
            assert run(["fetch", "events", "--from", "2026-01-01", "--to", "2026-01-01", "--parallel"]) != 0
            assert sandbox.journal.requests == []
        assert "its-secret" not in capfd.readouterr().err


def test_the_place_is_known_by_its_url(variables: None) -> None:
    """No secret in what may be logged."""
    place = staging_at("x", f"s3://{BUCKET}/known")
    assert isinstance(place, ObjectStaging)
    assert "its-secret" not in repr(place)
    assert isinstance(staging_at("x", "somewhere"), LocalStaging)
