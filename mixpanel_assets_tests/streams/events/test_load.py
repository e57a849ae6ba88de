"""Staged lines of events as rows of a real DuckDB file: keys, times, and rows that have no place."""

import datetime
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixpanel_assets.sandbox.hostile import MEMBERS
from mixpanel_assets.storage.duckdb_file import DuckDBFile
from mixpanel_assets.storage.staging import LocalStaging
from mixpanel_assets.streams.events import columns as event_columns
from mixpanel_assets.streams.events import load as events_table
from mixpanel_assets.streams.events import same_event, stored
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.events.staged import EventsFolder, RangeResult, StagedEvents
from mixpanel_assets.streams.events.stored import StoredDay

pytestmark = pytest.mark.unit

DAY, NEXT = "2026-01-01", "2026-01-02"
NOON = 1_767_268_800  # of DAY, in UTC


class Table:
    """Loads lines into a table, and looks at it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "staging"
        self.warehouse = DuckDBFile(folder / "warehouse.duckdb")
        self.loads = 0

    def load(
        self,
        *events: dict[str, Any] | str,
        days: tuple[str, str] = (DAY, DAY),
        names: tuple[str, ...] | None = None,
        where: str | None = None,
        hour: int | None = None,
    ) -> list[str]:
        """Publish events of a range: properties (of an event named "e") or whole lines; asked for an hour after the
        load before, or at an hour. Returns the days that were left."""
        self.loads += 1
        query = EventsQuery(names, where)
        folder = EventsFolder(LocalStaging(self.root), f"run{self.loads}")
        lines = [
            event if isinstance(event, str) else f'{{"event":"e","properties":{json.dumps(event)}}}' for event in events
        ]
        asked_at = datetime.datetime(2026, 2, 1, hour or self.loads, tzinfo=datetime.timezone.utc)
        with folder.new_file() as (file, stream), folder.new_name() as columns:
            stream.write("".join(line + "\n" for line in lines).encode())
            stream.close()
            assert event_columns.write_columns(file, len(lines), columns, "events")
            result = RangeResult(*days, f"run{self.loads}", query, lines=len(lines), asked_at=asked_at)
            result = folder.sign(folder.place(columns, result, ()))
        with self.warehouse.transaction() as connection:
            return events_table.publish(connection, StagedEvents(LocalStaging(self.root), (result,))).left

    def query(self, sql: str) -> list[Any]:
        with self.warehouse.reading() as connection:
            return connection.execute(sql).fetchall()

    def values(self, name: str) -> list[Any]:
        """A property of all rows, sorted."""
        return sorted(
            json.loads(properties).get(name) for (properties,) in self.query("select properties::varchar from events")
        )

    def day(self, day: str = DAY) -> StoredDay:
        with self.warehouse.reading() as connection:
            return stored.stored(connection).days[day]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path)


def event(**changes: Any) -> dict[str, Any]:
    """Properties of one event; a change to None leaves the property out."""
    whole = {"time": NOON, "distinct_id": "a", "$insert_id": "i", "mp_processing_time_ms": 1, **changes}
    return {name: value for name, value in whole.items() if value is not None}


class TestOlderLoads:
    def test_a_day_that_was_asked_for_later_is_left(self, table: Table) -> None:
        """Red without `_leave_newer`: the late event would go, and what is gone would be back."""
        table.load(event(version=2), event(**{"$insert_id": "late"}), '{"event":"e","properties":{}}', hour=9)
        day = table.day()
        gone = event(**{"$insert_id": "gone"})
        assert table.load(event(version=1), gone, '{"event":"e","properties":{"old":1}}', hour=8) == [DAY]
        assert table.values("$insert_id") == ["i", "late"]
        assert table.day() == replace(day, new=0)
        assert table.query("select row from rejected_rows") == [('{"event":"e","properties":{}}',)]

    def test_the_other_days_of_its_range_are_loaded(self, table: Table) -> None:
        table.load(event(version=2), hour=9)
        older = [event(version=1), event(version=1, time=NOON + 86400)]
        assert table.load(*older, days=(DAY, NEXT), hour=8) == [DAY]
        assert table.values("version") == [1, 2]
        assert (table.day(DAY).rows, table.day(NEXT).new) == (1, 1)

    def test_what_was_asked_for_later_with_less_keeps_its_rows(self, table: Table) -> None:
        """Red when any later load of a day leaves it; and without `newer` in `_delete_replaced`."""
        other = '{"event":"f","properties":' + json.dumps(event(version=1)) + "}"
        table.load(event(version=2), event(**{"$insert_id": "late"}, version=3), names=("e",), hour=9)
        assert table.load(event(version=1), other, hour=8) == []
        assert table.values("version") == [1, 2, 3]
        assert table.load(other, names=("f",), hour=7) == [DAY]

    def test_what_a_wrong_clock_stored_is_replaced(self, table: Table) -> None:
        table.load(event(version=1))
        with table.warehouse.transaction() as connection:
            for name in ("events", "event_days"):
                connection.execute(f"update {name} set synced_at = now() + interval 1 year")
        assert table.load(event(version=2)) == []
        assert table.values("version") == [2]

    def test_of_an_earlier_version_nobody_knows_what_was_asked(self, table: Table) -> None:
        table.load(event(version=1), hour=9)
        with table.warehouse.transaction() as connection:
            connection.execute("alter table event_days drop column query")
        assert table.load(event(**{"$insert_id": "j"}, version=2), hour=8) == []
        assert table.values("version") == [1, 2]


class TestKeys:
    def test_of_equal_keys_the_one_processed_last_stays(self, table: Table) -> None:
        versions = [event(version=n, mp_processing_time_ms=n) for n in (5, 20, 3)]
        table.load(*versions)
        # Red when the order is that of text, where 5 is beyond 20, or ascending.
        assert table.values("version") == [20]
        assert table.day() == StoredDay(rows=1, duplicates=2, rejected=0, new=1, changed=0, gone=0)

    @pytest.mark.parametrize("other", [{"distinct_id": "b"}, {"time": NOON + 1}, {"$insert_id": "j"}])
    def test_a_key_is_all_of_its_parts(self, table: Table, other: dict[str, Any]) -> None:
        """Red for each column that is left out of `_KEY`."""
        table.load(event(), event(**other), '{"event":"f","properties":' + json.dumps(event()) + "}")
        assert table.day().rows == 3

    def test_seconds_and_milliseconds_are_one_key(self, table: Table) -> None:
        table.load(event(), event(time=NOON * 1000, mp_processing_time_ms=2))
        assert table.values("mp_processing_time_ms") == [2]

    def test_without_insert_id_the_content_is_the_key(self, table: Table) -> None:
        bare = {"$insert_id": None, "version": 1}
        table.load(event(**bare), event(**bare), event(**{**bare, "version": 2}))
        # Red when `_KEY` is the columns alone.
        assert table.values("version") == [1, 2]

    def test_an_absent_distinct_id_is_a_value_of_its_own(self, table: Table) -> None:
        table.load(event(distinct_id=None), event(distinct_id=None), event(distinct_id=""))
        assert table.query("select distinct_id from events order by 1 nulls first") == [(None,), ("",)]

    def test_a_large_number_as_id_keeps_its_digits(self, table: Table) -> None:
        table.load(event(distinct_id=9007199254740993))
        assert table.query("select distinct_id from events") == [("9007199254740993",)]

    def test_a_filtered_load_replaces_only_its_like(self, table: Table) -> None:
        table.load(event(version=1), event(**{"$insert_id": "j"}, version=1))
        table.load(event(version=2), where="anything")
        assert table.values("version") == [1, 2]
        assert table.day() == StoredDay(rows=2, duplicates=0, rejected=0, new=0, changed=1, gone=0)

    def test_a_first_load_of_other_names_is_new_by_itself(self, table: Table) -> None:
        """Red when all rows of the day count as new."""
        table.load(event(), event(**{"$insert_id": "j"}))
        table.load('{"event":"other","properties":' + json.dumps(event()) + "}", names=("other",))
        assert table.day() == StoredDay(rows=3, duplicates=0, rejected=0, new=1, changed=0, gone=0)

    def test_hashes_that_collide_cost_no_row(self, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(same_event, "_EVENT", "1")
        monkeypatch.setattr(same_event, "_WHOSE", "length(distinct_id)")
        before = {"$distinct_id_before_identity": "b"}
        table.load(event(), event(distinct_id="b"), event(**{"$insert_id": "j"}, distinct_id="ccc", **before))
        # Red when the hash alone decides, of equal keys or of merged identities.
        assert table.day().rows == 3


class TestTimes:
    @pytest.mark.parametrize(
        ("time", "microsecond"),
        [
            (NOON, 0),
            (NOON * 1000 + 7, 7000),
            (NOON + 0.25, 250_000),
            (str(NOON), 0),
            (f"{NOON}.5", 500_000),
            (NOON * 1000 + 0.5, 500),
        ],
    )
    def test_every_readable_time(self, table: Table, time: Any, microsecond: int) -> None:
        table.load(event(time=time))
        expected = datetime.datetime(2026, 1, 1, 12, microsecond=microsecond)  # noqa: DTZ001 the column has no zone
        assert table.query("select event_time from events") == [(expected,)]

    @pytest.mark.parametrize("time", [None, "noon", True, [1], {}, 1e300, -1e300, "inf", "nan"])
    def test_a_time_that_cannot_be_read_sets_the_row_aside(self, table: Table, time: Any) -> None:
        table.load(event(), event(time=time, distinct_id="b"))
        assert table.day() == StoredDay(rows=1, duplicates=0, rejected=1, new=1, changed=0, gone=0)
        [(source, reason, row)] = table.query("select source, reason, row from rejected_rows")
        assert (source, reason) == (f"{DAY} to {DAY}", "no readable time")
        assert json.loads(row) == {"event": "e", "properties": event(time=time, distinct_id="b")}

    def test_rows_set_aside_by_an_earlier_version_are_taken_over(self, table: Table) -> None:
        """There the days, and whether a row is stored, stood in words."""
        table.load(event(), event(time="noon", distinct_id="b"))
        with table.warehouse.transaction() as connection:
            for column in ("stored", "from_day", "to_day", "part"):
                connection.execute(f"alter table rejected_rows drop column {column}")
            connection.execute(
                "insert into rejected_rows select asset, source, 0, 'stored with x', row, synced_at from rejected_rows"
            )
        table.load(event(time=NOON + 86_400), days=(NEXT, NEXT))
        rows = "select reason, stored, from_day::varchar, to_day::varchar from rejected_rows order by 1"
        assert table.query(rows) == [("no readable time", False, DAY, DAY), ("stored with x", True, DAY, DAY)]
        table.load(event())
        assert table.query("from rejected_rows") == []

    @pytest.mark.parametrize("seconds", [-12 * 3600 - 1, 12 * 3600, 86_400 * 400])
    def test_a_time_outside_the_days_asked_for_sets_the_row_aside(self, table: Table, seconds: int) -> None:
        table.load(event(), event(time=NOON + seconds, distinct_id="b"))
        # Red without the second case of `_REASON`.
        assert (table.day().rows, table.day().rejected) == (1, 1)
        assert table.query("select reason from rejected_rows") == [("outside the days asked for",)]

    @pytest.mark.parametrize("time", ["null", "1"])
    def test_a_row_set_aside_is_the_line_as_served(self, table: Table, time: str) -> None:
        """One that cannot be read, one of another day."""
        line = f'{{"event":"\\u0065 \\/","properties":{{ "time":{time},"x":1.10,"x":1e400 }}}}'
        table.load(line)
        assert table.query("select row from rejected_rows") == [(line,)]

    @pytest.mark.parametrize("seconds", [-12 * 3600, 12 * 3600 - 1])
    def test_the_first_and_last_second_belong_to_the_day(self, table: Table, seconds: int) -> None:
        table.load(event(time=NOON + seconds))
        assert table.day().rows == 1


class TestContent:
    def test_properties_are_stored_as_served_and_as_json(self, table: Table) -> None:
        texts = [f'{{"time":{NOON},"n":{n},{member}}}' for n, member in enumerate(MEMBERS) if "lone" not in member]
        table.load(*(f'{{"event":"e","properties":{text}}}' for text in texts))
        assert sorted(table.query("select properties::varchar from events")) == sorted((text,) for text in texts)
        assert table.query("select distinct typeof(properties) from events") == [("JSON",)]

    def test_events_of_a_megabyte_are_stored(self, table: Table) -> None:
        """They fill a vector of DuckDB's 2048 rows many times over what memory it may use."""
        long = "x" * 1_000_000
        table.load(*(event(**{"$insert_id": f"{n}", "text": long}) for n in range(60)))
        assert table.day().rows == 60
        assert table.query("select distinct length(properties ->> 'text') from events") == [(len(long),)]


class TestDays:
    def test_only_the_days_that_came_are_replaced(self, table: Table) -> None:
        table.load(event(version=1), event(version=1, time=NOON + 86_400), days=(DAY, NEXT))
        table.load(event(version=2), days=(DAY, DAY))
        assert table.values("version") == [1, 2]
        assert table.day().changed == 1
        assert table.day(NEXT).new == 1

    def test_rows_set_aside_go_with_the_days_they_came_with(self, table: Table) -> None:
        table.load(event(time="noon"), days=(DAY, NEXT))
        table.load(days=(NEXT, NEXT))
        assert len(table.query("from rejected_rows")) == 1
        table.load(days=(DAY, "2026-01-03"))
        assert table.query("from rejected_rows") == []

    def test_a_failed_load_leaves_the_table_as_it_was(self, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
        table.load(event(version=1))

        def fails(*_: Any) -> None:
            raise RuntimeError("killed")

        monkeypatch.setattr(events_table, "_write_days", fails)
        with pytest.raises(RuntimeError):
            table.load(event(version=2))
        assert table.values("version") == [1]
        assert table.day().new == 1

    def test_days_that_differ_from_their_load_are_named(self, table: Table) -> None:
        table.load(event(), event(time=NOON + 86_400), days=(DAY, NEXT))
        with table.warehouse.transaction() as connection:
            connection.execute("delete from events where event_time::date = '2026-01-02'")
            assert stored.differing_days(connection) == [NEXT]

    def test_repeated_keys_are_counted_within_bounds(self, table: Table) -> None:
        table.load(event(), event(time=NOON + 86_400), days=(DAY, NEXT))
        with table.warehouse.transaction() as connection:
            connection.execute("insert into events from events")
            assert stored.repeated_keys(connection, None, None) == 2
            assert stored.repeated_keys(connection, DAY, DAY) == 1
