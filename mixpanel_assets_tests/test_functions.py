"""`fetch_profiles` and `fetch_events` as a script or a notebook calls them, against the sandbox.

Each test names the guard that it was seen red without.
"""

import asyncio
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

import mixpanel_assets
from mixpanel_assets import (
    BatchProgress,
    FetchResult,
    ParallelFetchResult,
    ParallelProfileFetchResult,
    ProfileBatchProgress,
    fetch_events,
    fetch_profiles,
)
from mixpanel_assets.errors import (
    AuthenticationError,
    Cancelled,
    ConfigurationError,
    IncompleteSyncError,
    MissingCredentialsError,
    MixpanelError,
    WarehouseError,
)
from mixpanel_assets.runs.instances import open_instance
from mixpanel_assets.runs.status import status
from mixpanel_assets.runs.syncs import FewerWorkersWarning, stream_named, workers_for
from mixpanel_assets.sandbox import Fault, Population, Sandbox
from mixpanel_assets.stopping import stop_requested
from mixpanel_assets.streams.events import chunking as event_sync

# Dagster's own code calls it while it sets up a resource.
pytestmark = [pytest.mark.process, pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")]

PROFILES, PAGES = 115, 12
DAYS = ("2026-01-01", "2026-01-04")


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Twelve pages of profiles and 20 events a day; the Dagster home is where nobody has been."""
    with Sandbox(Population(profiles=PROFILES, seed=11, events_per_day=20), page_size=10) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        for name in ("MP_DUCKDB_PATH", "MP_EVENTS_START_DATE", "MP_TIMEZONE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
        yield sandbox


def table(home: Path, query: str) -> list[Any]:
    with duckdb.connect(str(home / "mixpanel_data.duckdb")) as connection:
        return connection.execute(query).fetchall()


def stored_profiles(home: Path) -> dict[str, str]:
    return dict(table(home, "select distinct_id, properties::varchar from mixpanel.profiles"))


@pytest.mark.usefixtures("sandbox")
def test_a_parallel_sync_stores_everything_and_tells_of_each_page_once(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red without the metadata of page 0's output (no update for it)."""
    updates: list[ProfileBatchProgress] = []
    result = fetch_profiles(parallel=True, on_batch_complete=updates.append)
    assert isinstance(result, ParallelProfileFetchResult)
    assert (result.total_rows, result.successful_pages, result.failed_pages) == (PROFILES, PAGES, 0)
    assert not result.has_failures
    assert stored_profiles(tmp_path / "home") == dict(sandbox.population.profiles())
    assert sorted(update.page_index for update in updates) == list(range(PAGES))
    assert {update.total_pages for update in updates} == {PAGES}
    assert sum(update.rows for update in updates) == PROFILES
    assert all(update.success and update.error is None for update in updates)
    assert json.loads(json.dumps(result.to_dict()))["failed_page_indices"] == []
    assert sandbox.journal.max_in_flight("engage") <= 5


def test_a_result_leads_to_what_was_stored_and_the_next_sync_is_not_in_its_way(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red without the file's name before the schema's (here they are one), and, with DuckDB 1.4, when nobody keeps the
    connection; red when a relation that is kept stops the next sync, or keeps the file when it is gone."""
    path = tmp_path / "mixpanel.duckdb"
    monkeypatch.setenv("MP_DUCKDB_PATH", str(path))
    profiles = fetch_profiles(parallel=True)
    assert (profiles.database, profiles.table) == (str(path), "mixpanel.profiles")
    relation = profiles.relation()
    assert relation.aggregate("count(*)").fetchall() == [(PROFILES,)]
    events = fetch_events(*DAYS)
    stored = events.relation()
    assert stored.aggregate("count(*)").fetchall() == [(80,)]
    assert relation.aggregate("count(*)").fetchall() == [(PROFILES,)]
    del stored
    del relation
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("select count(*) from mixpanel.mixpanel.events").fetchall() == [(80,)]


def test_a_sequential_sync_gives_the_identical_table_one_request_after_the_other(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """Red when `parallel` does not reach the run's max_concurrent."""
    sandbox.latency = 0.1
    fetch_profiles(parallel=True)
    query = "select distinct_id, properties::varchar, last_seen from mixpanel.profiles"
    parallel = table(tmp_path / "home", query)
    assert sandbox.journal.max_in_flight("engage") > 1
    sandbox.clear()
    result = fetch_profiles()
    assert isinstance(result, FetchResult)
    assert (result.table, result.rows, result.type, result.date_range) == (
        "mixpanel.profiles",
        PROFILES,
        "profiles",
        None,
    )
    assert table(tmp_path / "home", query) == parallel
    assert sandbox.journal.max_in_flight("engage") == 1


def test_progress_comes_while_the_sync_runs_and_not_at_its_end(sandbox: Sandbox) -> None:
    """Red when events are read after the run. When page k is told of, few later requests can have ended."""
    sandbox.latency = 0.1
    ended: list[int] = []
    fetch_profiles(
        parallel=True, max_workers=2, on_batch_complete=lambda _: ended.append(len(sandbox.journal.requests))
    )
    assert len(ended) == PAGES
    assert ended[0] <= 1 + 4
    assert ended[PAGES // 2] < PAGES


def test_failed_pages_are_told_listed_and_fetched_again_alone(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red without the error in a page's metadata, and without `retry_failed_pages` in the config."""
    sandbox.faults += [Fault("engage", "status:403", page=page, times=1) for page in (3, 7)]
    updates: list[ProfileBatchProgress] = []
    result = fetch_profiles(parallel=True, on_batch_complete=updates.append)
    assert isinstance(result, ParallelProfileFetchResult)
    assert result.has_failures
    assert result.failed_page_indices == (3, 7)
    assert (result.successful_pages, result.failed_pages, result.total_rows) == (10, 2, PROFILES - 20)
    failed = [update for update in updates if not update.success]
    assert sorted(update.page_index for update in failed) == [3, 7]
    assert all(update.rows == 0 and "403" in (update.error or "") for update in failed)
    assert len(stored_profiles(tmp_path / "home")) == PROFILES - 20
    sandbox.journal.clear()
    again = fetch_profiles(parallel=True, retry_failed_pages=True)
    assert isinstance(again, ParallelProfileFetchResult)
    assert not again.has_failures
    assert sorted(request.page or 0 for request in sandbox.journal.requests) == [3, 7]
    assert stored_profiles(tmp_path / "home") == dict(sandbox.population.profiles())


def test_a_sequential_sync_with_failures_says_so_since_its_result_cannot(sandbox: Sandbox) -> None:
    """Red without the raise: the result would look like a success."""
    sandbox.faults.append(Fault("engage", "status:403", page=4, times=1))
    with pytest.raises(IncompleteSyncError, match="1 of 12 pages are missing: 4") as incomplete:
        fetch_profiles()
    assert isinstance(incomplete.value.result, FetchResult)
    assert incomplete.value.result.rows == PROFILES - 10
    assert incomplete.value.result.has_failures
    assert incomplete.value.result.to_dict()["has_failures"] is True
    assert fetch_profiles().to_dict()["has_failures"] is False


def test_a_callback_that_raises_is_reported_and_harms_nothing(
    sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Red without the except in `_Callback.finished`."""

    def broken(_: ProfileBatchProgress) -> None:
        raise ValueError("a bar without a glass")

    with caplog.at_level(logging.ERROR, logger="mixpanel_assets"):
        result = fetch_profiles(parallel=True, on_batch_complete=broken)
    assert isinstance(result, ParallelProfileFetchResult)
    assert result.total_rows == PROFILES
    assert "on_batch_complete raised" in caplog.text
    assert "a bar without a glass" in caplog.text


def test_more_workers_than_mixpanel_answers_are_capped_with_a_warning(sandbox: Sandbox) -> None:
    """Red without the `min` in `workers_for`; the executor's own guard of the pool is tested elsewhere."""
    sandbox.latency = 0.3
    with pytest.warns(FewerWorkersWarning, match="20 workers wished for; no more than 5 pages"):
        result = fetch_profiles(parallel=True, max_workers=20)
    assert isinstance(result, ParallelProfileFetchResult)
    assert result.total_rows == PROFILES
    assert sandbox.journal.max_in_flight("engage") == 5
    with pytest.warns(FewerWorkersWarning):
        assert workers_for(stream_named("profiles"), 6) == 5
    assert [workers_for(stream_named("profiles"), wished) for wished in (None, 1, 5)] == [5, 1, 5]


@pytest.mark.usefixtures("sandbox")
def test_it_works_in_a_thread_that_is_not_the_main_one() -> None:
    """As in a notebook's or a web server's worker: no signal handler can be set there. Red when run.py sets one."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(fetch_profiles(parallel=True)))
    thread.start()
    thread.join(60)
    assert [result.total_rows for result in results] == [PROFILES]


@pytest.mark.usefixtures("sandbox")
def test_the_run_is_recorded_with_its_steps_in_the_instance_of_the_home(tmp_path: Path) -> None:
    """Red when the functions use an instance of their own."""
    fetch_profiles(parallel=True)
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        [run] = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.SUCCESS
        assert run.asset_selection == {dg.AssetKey(["mixpanel", "profiles"])}
        steps = {event.step_key for event in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_SUCCESS)}
    assert "mixpanel__profiles.fetch_page[p00011]" in steps
    assert len([step for step in steps if step and "fetch_page" in step]) == PAGES - 1


def test_without_a_home_one_is_made_in_the_current_folder(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red without `prepare_home`: Dagster refuses a folder that is not there."""
    monkeypatch.delenv("DAGSTER_HOME")
    monkeypatch.chdir(tmp_path)
    fetch_profiles(parallel=True)
    assert (tmp_path / "dagster_home" / "dagster.yaml").is_file()
    assert len(stored_profiles(tmp_path / "dagster_home")) == PROFILES


def test_a_given_instance_is_used(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when `instance` is not handed on. An ephemeral one has no pools: the limit of 5 holds nevertheless."""
    sandbox.latency = 0.02
    with dg.DagsterInstance.ephemeral() as instance:
        fetch_profiles(parallel=True, instance=instance)
        assert len(instance.get_runs()) == 1
    assert sandbox.journal.max_in_flight("engage") <= 5
    assert not (tmp_path / "home" / "history").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"page_size": 0}, "page_size must be"),
        ({"output_properties": "$email"}, "output_properties must be a list"),
        ({"on_quota": "beg"}, "on_quota must be stop or wait"),
        ({"parallel": True, "max_workers": 0}, "0 workers cannot fetch anything"),
        ({"include_all_users": True}, "cohort"),
        ({"max_removed_fraction": 2.0}, "max_removed_fraction must be between 0 and 1"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_sent(
    sandbox: Sandbox, tmp_path: Path, arguments: dict[str, Any], words: str
) -> None:
    """Red without the check in `checked_config` and `workers_for`: a run would start."""
    with pytest.raises(ConfigurationError, match=words) as refused:
        fetch_profiles(**arguments)
    assert "\n" not in str(refused.value)
    assert sandbox.journal.requests == []
    assert not (tmp_path / "home").exists(), "no run was started for it"


def test_refused_credentials_and_missing_ones_have_their_own_errors(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red without the kind in a step's failure: all would be MixpanelAssetsError."""
    monkeypatch.setenv("MP_SECRET", "hunter2-is-wrong")
    with pytest.raises(AuthenticationError) as refused:
        fetch_profiles(parallel=True)
    assert "hunter2" not in str(refused.value)
    with pytest.raises(AuthenticationError):
        fetch_events(*DAYS, parallel=True)
    monkeypatch.delenv("MP_SECRET")
    with pytest.raises(MissingCredentialsError, match="MP_SECRET not set"):
        fetch_profiles()


def test_events_are_stored_and_each_chunk_is_told_of_once(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red without the metadata of a chunk's output."""
    updates: list[BatchProgress] = []
    result = fetch_events(*DAYS, parallel=True, chunk_days=1, on_batch_complete=updates.append)
    assert isinstance(result, ParallelFetchResult)
    assert (result.successful_batches, result.failed_batches, result.failed_date_ranges) == (4, 0, ())
    assert table(tmp_path / "home", "select count(*) from mixpanel.events") == [(result.total_rows,)]
    assert result.total_rows == 80
    assert sorted((update.batch_index, update.from_date, update.to_date) for update in updates) == [
        (index, f"2026-01-0{index + 1}", f"2026-01-0{index + 1}") for index in range(4)
    ]
    assert {(update.total_batches, update.rows, update.success) for update in updates} == {(4, 20, True)}
    assert sandbox.journal.count(endpoint="export") == 4
    # Red with the rows that the days hold.
    some = fetch_events(*DAYS, parallel=True, events=["Search"])
    assert isinstance(some, ParallelFetchResult)
    assert [(some.total_rows,)] == table(
        tmp_path / "home", "select count(*) from mixpanel.events where event_name = 'Search'"
    )


def test_sequential_events_give_the_same_rows(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when `parallel` does not reach the run's max_concurrent."""
    sandbox.latency = 0.05
    result = fetch_events(*DAYS, chunk_days=1)
    assert isinstance(result, FetchResult)
    assert (result.rows, result.type, result.date_range) == (80, "events", DAYS)
    assert sandbox.journal.max_in_flight("export") == 1
    assert table(tmp_path / "home", "select count(*) from mixpanel.events") == [(80,)]


def test_failed_days_are_listed_and_fetched_again_alone(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when run.py looks for materializations among the events handed on: those of a failing step are not."""
    sandbox.faults.append(Fault("export", "status:403", from_date="2026-01-03", times=1))
    result = fetch_events(*DAYS, parallel=True, chunk_days=1)
    assert isinstance(result, ParallelFetchResult)
    assert result.failed_date_ranges == (("2026-01-03", "2026-01-03"),)
    assert (result.successful_batches, result.failed_batches, result.total_rows) == (3, 1, 60)
    assert result.to_dict()["failed_date_ranges"] == [["2026-01-03", "2026-01-03"]]
    assert result.to_dict()["has_failures"] is True
    sandbox.journal.clear()
    again = fetch_events(*DAYS, parallel=True, chunk_days=1, retry_failed_ranges=True)
    assert isinstance(again, ParallelFetchResult)
    assert not again.has_failures
    assert [request.from_date for request in sandbox.journal.requests] == ["2026-01-03"]
    assert table(tmp_path / "home", "select count(*) from mixpanel.events") == [(80,)]


def test_events_that_cannot_be_stored_are_an_error_that_says_where_they_lie(sandbox: Sandbox) -> None:
    """Red without the check; and if one that only warns, here of old days, counts as a problem."""
    sandbox.population.add_events(DAYS[0], [("Search", {"distinct_id": "timeless"})])
    words = "^1 rows that came cannot be stored and lie in mixpanel.rejected_rows, with the reason$"
    with pytest.raises(IncompleteSyncError, match=words) as incomplete:
        fetch_events(*DAYS, parallel=True)
    assert isinstance(incomplete.value.result, ParallelFetchResult)
    assert incomplete.value.result.total_rows == 80


def test_when_no_chunk_comes_nothing_is_stored(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when a run that stored nothing gives a result."""
    sandbox.faults.append(Fault("export", "status:403", times=None))
    with pytest.raises(MixpanelError, match="no chunk of 4 came, nothing was stored"):
        fetch_events(*DAYS, parallel=True, chunk_days=1)


@pytest.mark.parametrize(
    ("days", "arguments", "words"),
    [
        (("2026-01-02", "2026-01-01"), {}, "2026-01-02"),
        (("2026-01-01", "soon"), {}, "soon"),
        (("2026-01-01", "2999-01-01"), {}, "2999-01-01 is in the future"),
        (("2020-01-01", "2026-01-01"), {}, "before the first partition: set MP_EVENTS_START_DATE"),
        (DAYS, {"chunk_days": 0}, "chunk_days"),
        (DAYS, {"chunk_days": 101}, "chunk_days"),
        (DAYS, {"events": []}, "events must name"),
        (DAYS, {"events": "Signup"}, "events must be a list"),
    ],
)
def test_bad_ranges_are_refused_before_anything_is_sent(
    sandbox: Sandbox, tmp_path: Path, days: tuple[str, str], arguments: dict[str, Any], words: str
) -> None:
    """Red without the checks in `event_days` and `checked_config`: a run would start."""
    with pytest.raises(ConfigurationError, match=words):
        fetch_events(*days, **arguments)
    assert sandbox.journal.requests == []
    assert not (tmp_path / "home").exists(), "no run was started for it"


def test_importing_the_package_imports_nothing_heavy() -> None:
    """Red when a public name is imported at once."""
    code = (
        "import sys, mixpanel_assets, mixpanel_assets.cli.main\n"
        "print([name for name in ('dagster', 'duckdb', 'requests', 'rich.console') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_public_names_are_there_and_no_others() -> None:
    """Red when a name of `__all__` cannot be fetched."""
    assert {name for name in mixpanel_assets.__all__ if getattr(mixpanel_assets, name) is None} == set()
    assert set(mixpanel_assets.__all__) <= set(dir(mixpanel_assets))
    with pytest.raises(AttributeError, match="no attribute 'fetch_funnels'"):
        _ = mixpanel_assets.fetch_funnels


def test_event_workers_are_ten_and_may_be_twenty() -> None:
    assert [workers_for(stream_named("events"), wished) for wished in (None, 1, 20)] == [10, 1, 20]
    with pytest.warns(FewerWorkersWarning, match="no more than 20 exports"):
        assert workers_for(stream_named("events"), 21) == 20


@pytest.mark.parametrize(("before", "after"), [(None, 12), (10, 12), (15, 15), (3, 3)])
def test_more_workers_raise_the_usual_limit_and_leave_one_that_a_person_lowered(
    sandbox: Sandbox, tmp_path: Path, before: int | None, after: int
) -> None:
    """Red when any smaller limit is raised: a person's 3 was 12 from then on, for all runs."""
    (tmp_path / "instance").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "instance")) as instance:
        if before:
            instance.event_log_storage.set_concurrency_slots("mixpanel_export", before)
        fetch_events(*DAYS, parallel=True, max_workers=12, instance=instance)
        limits = {row.name: row.limit for row in instance.event_log_storage.get_pool_limits()}
    assert limits["mixpanel_export"] == after


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_who_cancels_after_the_days_are_stored_is_told_so(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when only a materialization counts as stored: "the table is as it was", and it was not."""

    def cancel(results: Any) -> list[str]:
        os.kill(os.getpid(), signal.SIGINT)
        stop_requested().wait(60)
        raise RuntimeError("ended before it could tell")

    monkeypatch.setattr(event_sync, "stored_days", cancel)
    with pytest.raises(Cancelled, match="after it had stored what came"):
        fetch_events(*DAYS)
    assert table(tmp_path / "home", "select count(*) from mixpanel.events") == [(80,)]


def test_a_table_that_cannot_be_written_is_one_line_of_its_own_kind(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when the error's class is not looked for below Dagster's: MixpanelAssetsError, with a stack trace in it."""
    (tmp_path / "home").mkdir()
    with duckdb.connect(str(tmp_path / "home" / "mixpanel_data.duckdb")) as connection:
        connection.execute("create schema mixpanel; create table mixpanel.profiles (mine integer)")
    with pytest.raises(WarehouseError, match=r"^DuckDB refused \(.* is as it was\): [^\n]*$") as caught:
        fetch_profiles()
    assert "Stack Trace" not in str(caught.value)
    with open_instance() as instance:
        assert status(instance, print)["profiles"]["last_run_error"] == str(caught.value)


def test_dates_may_be_dates_and_a_loop_may_run(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red without `str` (a date is not a date), and without the filter: Dagster warns of a coroutine of its own."""

    async def in_a_notebook() -> None:
        fetch_events(date.fromisoformat(DAYS[0]), date.fromisoformat(DAYS[1]))

    asyncio.run(in_a_notebook())
    gc.collect()
    assert table(tmp_path / "home", "select count(*) from mixpanel.events") == [(80,)]


def test_ids_choose_profiles_and_remove_none_that_another_sync_brought(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when distinct_ids are not sent, and when they are no filter: all others would be removed."""
    ids = [key for key, _ in sandbox.population.profiles()]
    fetch_profiles(parallel=True)
    fetch_profiles(parallel=True, distinct_ids=ids[:2])
    assert json.loads(sandbox.journal.requests[-1].params["distinct_ids"]) == ids[:2]
    assert set(stored_profiles(tmp_path / "home")) == set(ids)


def test_behaviors_choose_profiles_over_all_pages(sandbox: Sandbox) -> None:
    """Red without as_of_timestamp in the form of each page: the sandbox, as Mixpanel, serves the first one only."""
    behaviors = [{"window": "2d", "name": "any", "event_selectors": [{"event": "Signup"}, {"event": "Search"}]}]
    at = int(time.time())
    chosen = fetch_profiles(
        parallel=True, where='(behaviors["any"] >= 0)', behaviors=behaviors, as_of_timestamp=at, page_size=10
    )
    assert isinstance(chosen, ParallelProfileFetchResult)
    assert (chosen.failed_pages, chosen.successful_pages > 1) == (0, True)
    assert {request.params["as_of_timestamp"] for request in sandbox.journal.requests} == {str(at)}
