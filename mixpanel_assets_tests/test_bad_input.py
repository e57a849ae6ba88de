"""What people get wrong: one line each that says what to do, at once; the stored table stays as it was."""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mixpanel_assets.sandbox import Population, Sandbox
from mixpanel_assets_tests.pipeline import Outcome, Pipeline

# Dagster's own use of its own deprecated name.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

Spoil = Callable[[pytest.MonkeyPatch, Path], None]


def env(name: str, value: str | None, without: str | None = None) -> Spoil:
    def spoil(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        for unset in filter(None, (without, None if value is not None else name)):
            monkeypatch.delenv(unset, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value.replace("HOME", str(home)))

    return spoil


def leave(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Nothing of the environment is wrong."""


def block_staging(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for path in (home / "staging" / "profiles").glob("*"):
        path.rmdir()
    (home / "staging" / "profiles").rmdir()
    (home / "staging" / "profiles").touch()


def write_notes(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    (home / "notes.txt").write_text("not a database\n" * 100)
    monkeypatch.setenv("MP_DUCKDB_PATH", str(home / "notes.txt"))


def make_pipe(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    os.mkfifo(home / "pipe")
    monkeypatch.setenv("MP_DUCKDB_PATH", str(home / "pipe"))


def nobody_listens(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MP_QUERY_URL", f"http://127.0.0.1:{probe.getsockname()[1]}/api/query")


@dataclass(frozen=True)
class Case:
    """`requests`: how many may reach the server."""

    name: str
    spoil: Spoil
    says: str
    config: dict[str, Any] = field(default_factory=dict)
    requests: int = 0


CASES = [
    Case("no secret", env("MP_SECRET", None), "MP_SECRET not set: export the service account's MP_USERNAME and"),
    Case("no user", env("MP_USERNAME", "  "), "MP_USERNAME not set"),
    Case("a name for a project", env("MP_PROJECT_ID", "shop"), "MP_PROJECT_ID must be the project's number"),
    Case("wrong secret", env("MP_SECRET", "wrong"), "refused the credentials (401): check MP_USER", requests=1),
    Case("another project", env("MP_PROJECT_ID", "99"), "profiles holds rows of project 1234567, and this sync is of"),
    Case("unknown region", env("MP_REGION", "mars", "MP_QUERY_URL"), "MP_REGION 'mars' is unknown: use one of us"),
    Case("no URL", env("MP_QUERY_URL", "mixpanel.com/api"), "MP_QUERY_URL is not an http(s) URL"),
    Case("credentials in a URL", env("MP_QUERY_URL", "http://a:b@localhost/"), "must not hold credentials: use MP_"),
    Case("a URL with a query", env("MP_QUERY_URL", "http://localhost/?a=b"), "leave out what begins with ? or #"),
    Case("a device", env("MP_DUCKDB_PATH", "/dev/zero"), "/dev/zero is a device: set MP_DUCKDB_PATH to a file"),
    Case("a pipe", make_pipe, "pipe is a pipe: set MP_DUCKDB_PATH to a file"),
    Case("a bucket", env("MP_DUCKDB_PATH", "s3://b/x.duckdb"), "begins with 's3:': set it to a file of this machine"),
    Case("nobody listens", nobody_listens, "Connection refused): check network, MP_REGION and MP_*_URL"),
    Case("no folder", env("MP_DUCKDB_PATH", "HOME/no/x.duckdb"), "does not exist: make it, or set MP_DUCKDB_PATH"),
    Case("no database", write_notes, "is not a DuckDB database: set MP_DUCKDB_PATH to another file"),
    Case("staging blocked", block_staging, "cannot stage in"),
    Case("bad where", leave, "check where: Unable to parse where", {"where": "plan = pro"}, requests=1),
    Case("empty where", leave, "where is empty: leave it out", {"where": " "}),
    Case("unknown cohort", leave, "check cohort_id: Unknown cohort", {"cohort_id": 77}, requests=1),
    Case("everyone of no cohort", leave, "only makes sense with cohort_id", {"include_all_users": True}),
    Case("a group of before", leave, "now, mixpanel/groups: mp fetch groups --group NAME=-5", {"data_group_id": "-5"}),
    Case("no property", leave, "output_properties must name at least one", {"output_properties": []}),
    Case("no page size", leave, "page_size must be 1 or more, not 0", {"page_size": 0}),
    Case("a fraction of 50", leave, "max_removed_fraction must be between 0 and 1", {"max_removed_fraction": 50.0}),
]  # fmt: skip


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Population(12), page_size=10) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    folder, telemetry = str(tmp_path_factory.mktemp("instance")), {"telemetry": {"enabled": False}}
    with dg.DagsterInstance.local_temp(folder, overrides=telemetry) as instance:
        yield instance


@pytest.fixture(scope="module")
def synced(instance: dg.DagsterInstance, sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose table was synced before anything went wrong."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert Pipeline.start(instance, sandbox, home, monkeypatch).sync().success
    return home


def check_refusal(outcome: Outcome, says: str) -> None:
    assert not outcome.success
    assert outcome.said is None
    assert outcome.reason is not None, outcome.words
    assert says in outcome.reason
    assert "\n" not in outcome.reason


if os.name == "nt":
    CASES = [case for case in CASES if case.name not in ("a device", "a pipe")]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_one_line_and_the_table_stays(
    instance: dg.DagsterInstance, sandbox: Sandbox, synced: Path, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    """Seen red: "bad where" and the like without query.check(), "no folder" and "no database" without check_ready,
    "staging blocked" without prepare (a request is sent), "wrong secret" without its line of http.py.
    """
    pipeline = Pipeline.start(instance, sandbox, synced, monkeypatch)
    before = pipeline.database.read_bytes()
    sandbox.clear()
    case.spoil(monkeypatch, synced)
    try:
        check_refusal(pipeline.sync(**case.config), case.says)
    finally:
        if (synced / "staging" / "profiles").is_file():
            (synced / "staging" / "profiles").unlink()
    assert len(sandbox.journal.requests) == case.requests
    assert pipeline.database.read_bytes() == before
