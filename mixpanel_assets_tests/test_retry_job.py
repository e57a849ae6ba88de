"""`retry_failed_profile_pages`: afterwards the table is as if nothing had failed."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mixpanel_assets import settings
from mixpanel_assets.sandbox import Population, Sandbox
from mixpanel_assets_tests.pipeline import Pipeline
from mixpanel_assets_tests.streams.profiles.test_acceptance import (
    GONE,
    engage,
    make_instance,
    make_pipelines,
    merged,
    seed,
)

# Dagster's own use of its own deprecated name.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

WHERE = 'properties["plan"] != "none"'  # true of everyone
FAULTS = (engage("status:500", 2), engage("status:403", 3))

instance = pytest.fixture(make_instance, scope="module")
pipelines = pytest.fixture(make_pipelines)


def test_fetches_only_what_failed_under_the_same_session(pipelines: Any) -> None:
    pipeline = pipelines(55, faults=FAULTS)
    old = seed(pipeline)
    partial = pipeline.sync()
    assert partial.failed_pages == [2, 3]
    assert GONE in old
    pipeline.sandbox.faults = []
    pipeline.sandbox.journal.clear()
    outcome = pipeline.retry()
    assert outcome.success, outcome.words
    assert outcome.failed_pages == []
    assert pipeline.table() == pipeline.truth()  # GONE is gone: the snapshot is complete now
    asked = pipeline.sandbox.journal.requests
    assert sorted(request.page or 0 for request in asked) == [2, 3]
    assert {request.session_id for request in asked} == {(partial.said or {})["session_id"]}


def test_can_be_repeated_until_all_is_there(pipelines: Any) -> None:
    pipeline = pipelines(55, faults=FAULTS)
    pipeline.sync()
    pipeline.sandbox.faults = [engage("status:500", 3)]
    again = pipeline.retry()
    assert not again.success
    assert again.failed_pages == [3]
    pipeline.sandbox.faults = []
    assert pipeline.retry().success
    assert pipeline.table() == pipeline.truth()
    over = pipeline.retry()
    assert not over.success
    assert over.said is None
    assert "nothing to fetch again: the last sync of mixpanel/profiles has no failed pages" in over.words


def test_a_lost_session_is_said_and_starts_one_fresh_snapshot(pipelines: Any) -> None:
    pipeline = pipelines(55, faults=FAULTS)
    pipeline.sync(where=WHERE)
    pipeline.sandbox.faults = []
    pipeline.sandbox.expire_sessions()
    pipeline.sandbox.journal.clear()
    outcome = pipeline.retry()
    assert outcome.success, outcome.words
    assert "the session is lost: one fresh start from page 0" in outcome.words
    assert pipeline.table() == pipeline.truth()
    fresh = [request for request in pipeline.sandbox.journal.requests if request.page == 0]
    assert [request.params["where"] for request in fresh] == [WHERE]


def test_a_short_page_is_asked_for_once_and_its_fuller_answer_stays(pipelines: Any) -> None:
    """Red when what lies staged is taken for all: no request, and five profiles missing for good."""
    pipeline = pipelines(35, faults=[engage("short-page", 2), engage("short-page:1", 3)])
    old = seed(pipeline)
    assert pipeline.sync().failed_pages == [2, 3]
    pipeline.sandbox.faults = [engage("short-page:7", 2), engage("status:500", 3)]
    pipeline.sandbox.journal.clear()
    again = pipeline.retry(max_attempts=1)
    assert (again.failed_pages, (again.said or {})["missing_profiles"]) == ([2, 3], 6)
    assert sorted(request.page or 0 for request in pipeline.sandbox.journal.requests) == [2, 3]
    ids = list(pipeline.truth())
    assert pipeline.table() == merged(pipeline, old, {*ids[25:30], ids[34]})
    pipeline.sandbox.faults = []
    whole = pipeline.retry()
    assert whole.success, whole.words
    assert pipeline.table() == pipeline.truth()


def test_a_short_page_whose_session_is_lost_is_fetched_with_all(pipelines: Any) -> None:
    pipeline = pipelines(35, faults=[engage("short-page", 2)])
    pipeline.sync()
    pipeline.sandbox.faults = []
    pipeline.sandbox.expire_sessions()
    outcome = pipeline.retry()
    assert outcome.success, outcome.words
    assert "one fresh start from page 0" in outcome.words
    assert pipeline.table() == pipeline.truth()


def test_where_page_0_named_no_session_all_is_fetched_anew(pipelines: Any) -> None:
    pipeline = pipelines(35, faults=[engage("session:null", 0)])
    assert pipeline.sync().failed_pages == [1, 2, 3]
    pipeline.sandbox.faults = []
    pipeline.sandbox.journal.clear()
    outcome = pipeline.retry()
    assert outcome.success, outcome.words
    assert "page 0 of the last sync named no session: all pages are fetched anew" in outcome.words
    assert pipeline.table() == pipeline.truth()


def test_a_session_lost_twice_before_is_not_asked_again(pipelines: Any) -> None:
    pipeline = pipelines(35, faults=[engage("session-lost", 2)])
    assert 2 in pipeline.sync().failed_pages
    pipeline.sandbox.faults = []
    pipeline.sandbox.journal.clear()
    outcome = pipeline.retry()
    assert outcome.success, outcome.words
    assert pipeline.table() == pipeline.truth()
    assert [request.status for request in pipeline.sandbox.journal.requests] == [200] * 4


def test_without_its_staged_files_it_fetches_all_with_the_same_filters(pipelines: Any) -> None:
    pipeline = pipelines(55, faults=FAULTS)
    pipeline.sync(output_properties=["plan"])
    pipeline.sandbox.faults = []
    for file in pipeline.home.glob("staging/profiles/*/*"):
        file.unlink()
    outcome = pipeline.retry()
    assert outcome.success, outcome.words
    assert "the staged pages of the last sync are gone: all pages are fetched anew" in outcome.words
    table = pipeline.table()
    assert table is not None
    assert list(table) == list(pipeline.truth())
    assert all((value or "").startswith('{"plan":') for value in table.values())  # red when the filters are lost


def test_what_must_no_longer_be_kept_is_not_taken_up(pipelines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Red when the filter of the failed sync decides.
    pipeline = pipelines(55, faults=FAULTS)
    pipeline.sync(exclude_properties=["$name"])
    monkeypatch.setenv("MP_EXCLUDE_PROPERTIES", '["$email"]')
    again = pipeline.retry()
    assert "fewer properties may be kept than at the last sync: all its pages are fetched anew" in again.words
    assert again.failed_pages == [2, 3]
    staged = list(pipeline.home.glob("staging/profiles/*/page-*.jsonl"))
    assert len(staged) == 4
    assert not any(b"$email" in file.read_bytes() for file in staged)
    pipeline.sandbox.faults = []
    pipeline.sandbox.journal.clear()
    assert pipeline.retry().success
    assert sorted(request.page or 0 for request in pipeline.sandbox.journal.requests) == [2, 3]  # the same filter again
    table = pipeline.table()
    assert table is not None
    assert list(table) == list(pipeline.truth())
    kept = {name for text in table.values() for name in json.loads(text or "{}")}
    assert kept
    assert not kept & {"$name", "$email"}


def test_pages_of_another_project_are_not_joined_with_ours(pipelines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red without the source in the query: rows of both would be one table, and complete."""
    pipeline = pipelines(55, faults=FAULTS)
    pipeline.sync()
    stored = pipeline.table()
    pipeline.sandbox.faults = []
    pipeline.sandbox.journal.clear()
    was = settings.project().source(pipeline.sandbox.environment["MP_QUERY_URL"])
    monkeypatch.setenv("MP_PROJECT_ID", "43")
    outcome = pipeline.retry()
    assert not outcome.success
    assert f"the failed pages are of {was}, and the environment names project 43 at " in outcome.words
    assert list(pipeline.sandbox.journal.requests) == []
    assert pipeline.table() == stored
    monkeypatch.setenv("MP_PROJECT_ID", pipeline.sandbox.project_id)
    assert pipeline.retry().success
    assert pipeline.table() == pipeline.truth()


def test_a_staged_page_that_is_gone_or_cut_is_fetched_too(pipelines: Any) -> None:
    pipeline = pipelines(55, faults=FAULTS)
    pipeline.sync()
    pipeline.sandbox.faults = []
    pipeline.sandbox.journal.clear()
    (gone,) = pipeline.home.glob("staging/profiles/*/page-00001.json")
    gone.unlink()
    (cut,) = pipeline.home.glob("staging/profiles/*/page-00004.jsonl")
    cut.write_bytes(cut.read_bytes()[:-10])
    assert pipeline.retry().success
    assert pipeline.table() == pipeline.truth()
    assert sorted(request.page or 0 for request in pipeline.sandbox.journal.requests) == [1, 2, 3, 4]


def test_finds_the_pages_beyond_a_total_that_was_too_small(pipelines: Any) -> None:
    pipeline = pipelines(45, faults=[engage("total:15", 0)])
    assert pipeline.sync().failed_pages == [3]
    assert pipeline.retry().success
    assert pipeline.table() == pipeline.truth()


def test_before_any_sync_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "instance").mkdir()
    fresh = dg.DagsterInstance.local_temp(str(tmp_path / "instance"), overrides={"telemetry": {"enabled": False}})
    with fresh as instance, Sandbox(Population(5)) as sandbox:
        outcome = Pipeline.start(instance, sandbox, tmp_path, monkeypatch).retry()
        assert "no sync of mixpanel/profiles is on record" in outcome.words
        assert sandbox.journal.requests == []
