"""Arguments of other types than documented, as scripts read them from files, the environment and tables."""

from collections.abc import Callable, Iterator
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from mixpanel_assets import fetch_events, fetch_list, fetch_profiles, settings
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.sandbox import Population, Sandbox

# Dagster's own code calls it while it sets up a resource.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

DAYS = ("2026-01-01", "2026-01-04")
NAN = float("nan")


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox(Population(profiles=25, events_per_day=5), page_size=10) as sandbox:
        for name, value in {**sandbox.environment, "DAGSTER_HOME": str(tmp_path / "home")}.items():
            monkeypatch.setenv(name, value)
        for name in ("MP_DUCKDB_PATH", "MP_EVENTS_START_DATE", "MP_TIMEZONE"):
            monkeypatch.delenv(name, raising=False)
        yield sandbox


def loose(function: Any) -> Any:
    """A function as it is called where nobody checks types."""
    return function


class Ten:
    """A number as NumPy has it."""

    def __index__(self) -> int:
        return 10

    def __repr__(self) -> str:
        return "Ten()"


@pytest.mark.parametrize("ten", ["10", " 10 ", "+10", 10.0, Ten()], ids=repr)
@pytest.mark.filterwarnings("ignore:10 workers wished for")
def test_what_can_only_mean_one_number_is_taken_for_it(sandbox: Sandbox, ten: Any) -> None:
    """Red without `_KINDS`: Dagster's DagsterInvalidConfigError, TypeError, or pydantic's ValidationError."""
    loose(fetch_profiles)(parallel="true", max_workers=ten, page_size=ten, max_removed_fraction="0.5")
    assert sandbox.journal.requests[0].params["page_size"] == "10"
    sandbox.journal.clear()
    rest: dict[str, Any] = {"chunk_days": ten, "max_workers": ten, "parallel": 1, "events": ("Search",)}
    fetch_events(date(2026, 1, 1), DAYS[1], **rest)
    assert [(each.from_date, each.to_date) for each in sandbox.journal.requests] == [DAYS]


@pytest.mark.parametrize("group", [-1405123841946871899, "-1405123841946871899", " -1405123841946871899"])
def test_a_group_may_be_given_as_a_number(sandbox: Sandbox, group: Any) -> None:
    fetch_list("groups", groups={"company": group})
    assert sandbox.journal.requests[0].params["data_group_id"] == "-1405123841946871899"


def test_a_cohort_may_be_given_as_text(sandbox: Sandbox) -> None:
    """The documented form of other clients; the client of one page takes it too."""
    loose(fetch_profiles)(cohort_id="1001", include_all_users="False", output_properties=iter(["plan"]))
    client = MixpanelClient(settings.project())
    loose(client.query_engage_page)("0", cohort_id="1001", output_properties=["plan"])
    client.close()
    for request in sandbox.journal.requests:
        assert (request.params["filter_by_cohort"], request.params["include_all_users"]) == ('{"id": 1001}', "false")
        assert request.params["output_properties"] == '["plan"]'


def test_a_day_may_be_a_datetime_at_midnight(sandbox: Sandbox) -> None:
    fetch_events(datetime(2026, 1, 1), " 2026-01-01 ")  # noqa: DTZ001 - a day has no time zone
    assert [(each.from_date, each.to_date) for each in sandbox.journal.requests] == [(DAYS[0], DAYS[0])]


PROFILES: list[dict[str, Any]] = [
    *({"page_size": value} for value in (7.5, True, "", "ten", "1e3", NAN, float("inf"), [10], (), b"10", "\u0661")),
    *({"cohort_id": value} for value in ("shop", 1.5, False, [1], "1 2")),
    *({"data_group_id": value} for value in (1.4e18, "", "shop", True, [1], "-5")),
    *({"max_removed_fraction": value} for value in ("half", "50%", "", True, NAN, "nan", [0.5], b"1")),
    *({"max_missing_fraction": value} for value in (2, "-1", "x")),
    *({"output_properties": value} for value in ("plan", [1], {"plan": 1}, 7, [["plan"]])),
    *({"where": value} for value in (7, ["x"], "", b"x")),
    *({"include_all_users": value, "cohort_id": 1} for value in ("maybe", 2, "", [True])),
    *({"retry_failed_pages": value} for value in ("perhaps", 3, "")),
    *({"on_quota": value} for value in (True, "later", "")),
    *({"max_workers": value, "parallel": True} for value in (2.5, "two", True, 0, "-1", [1])),
    {"parallel": "perhaps"},
    {"on_batch_complete": 7},
    {"instance": "home"},
]
EVENTS: list[dict[str, Any]] = [
    *({"chunk_days": value} for value in (7.5, "", "week", True, 0, "101", NAN, [7])),
    *({"events": value} for value in ("Search", [7], 7, b"x", [""])),
    *({"from_date": value} for value in (20260101, None, "", "1 Jan", ["2026-01-01"])),
    {"to_date": datetime(2026, 1, 4, tzinfo=timezone.utc)},
    {"to_date": datetime(2026, 1, 4, 12)},  # noqa: DTZ001
    {"retry_failed_ranges": "no way"},
    {"max_workers": "", "parallel": True},
    {"on_batch_complete": "print"},
]


@pytest.mark.parametrize(
    ("fetch", "given"),
    [*((fetch_profiles, given) for given in PROFILES), *((fetch_events, given) for given in EVENTS)],
    ids=lambda value: value.__name__ if callable(value) else repr(value),
)
def test_the_rest_is_refused_in_a_line_before_the_first_request(
    sandbox: Sandbox, fetch: Callable[..., Any], given: dict[str, Any]
) -> None:
    """Red without `_KINDS`, `_checked` or `arguments.day`."""
    days = {"from_date": DAYS[0], "to_date": DAYS[1]} if fetch is fetch_events else {}
    with pytest.raises(ConfigurationError) as refusal:
        fetch(**{**days, **given})
    assert "\n" not in str(refusal.value)
    assert any(name in str(refusal.value) for name in (next(iter(given)), "workers"))
    assert not sandbox.journal.requests
