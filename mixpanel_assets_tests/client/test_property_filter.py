"""What may not be kept: taken out or hashed, on the exact text, and found in no file and no table."""

import hashlib
import hmac
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets import settings
from mixpanel_assets.client.property_filter import EVENT_KEY, ID_BEFORE, NO_FILTER, FilteredLines, PropertyFilter
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.sandbox import Fault, Population, Sandbox
from mixpanel_assets.streams.events.settings import EventsConfig
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.profiles.settings import ProfilesConfig
from mixpanel_assets.streams.profiles.wire import parse_page
from mixpanel_assets.streams.settings import PropertiesConfig
from mixpanel_assets_tests.events_pipeline import FIRST, EventsPipeline, events_pipeline
from mixpanel_assets_tests.pipeline import SYNC, Pipeline

# Dagster's own use of its own deprecated name.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

NAMES = ["$email", "", "a.b", "$distinct_id", "é", "\U0001f600", 'q"', "time", "\x00", "select"]
VALUES = ["1.10", "1e400", "123456789012345678901234567890", '"\\u00e9\\ud83d\\ude00"', "null", "[1.10,{}]", "-0.0"]


def filtered(text: str, kept: PropertyFilter, salt: str = "") -> str:
    return kept.filtered(text.encode(), salt).decode()


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class TestSieve:
    @given(
        st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES)),
        st.none() | st.sets(st.sampled_from(NAMES)),
        st.sets(st.sampled_from(NAMES)),
    )
    def test_what_stays_is_the_exact_text_and_what_goes_is_gone(
        self, members: dict[str, str], include: set[str] | None, exclude: set[str]
    ) -> None:
        # Red when `_keeps` ignores either list, and when values are decoded and encoded again.
        text = "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in members.items()) + "}"
        kept = PropertyFilter(None if include is None else tuple(include), tuple(exclude))
        stays = msgspec.json.decode(filtered(text, kept), type=dict[str, msgspec.Raw])
        assert {name: bytes(value).decode() for name, value in stays.items()} == {
            name: value
            for name, value in members.items()
            if name not in exclude and (include is None or name in include)
        }

    def test_a_repeated_name_is_taken_out_every_time(self) -> None:
        # Red when only one of them is taken out.
        assert filtered('{"a":1,"b":2,"\\u0061":3}', PropertyFilter(exclude=("a",))) == '{"b":2}'

    def test_hashes_are_of_the_value_and_keyed_where_there_is_a_salt(self) -> None:
        kept = PropertyFilter(hashed=("a", "b", "c", "d"))
        text = '{"a":"x\\u00e9","b":4,"c":null,"d":"4","e":"open"}'
        made = json.loads(filtered(text, kept))
        assert made == {"a": sha("xé"), "b": sha("4"), "c": None, "d": sha("4"), "e": "open"}
        keyed = json.loads(filtered(text, kept, "salt"))
        # Red when the salt is not used.
        assert keyed["a"] == hmac.new(b"salt", "xé".encode(), hashlib.sha256).hexdigest()

    def test_it_travels_as_json_and_as_pickle(self) -> None:
        query = ProfileQuery(kept=PropertyFilter(("a",), ("b",), ("c",)))
        query.kept.filtered(b"{}", "")
        plain = msgspec.to_builtins(query)
        assert plain["kept"] == {"include": ("a",), "exclude": ("b",), "hashed": ("c",)}
        assert msgspec.convert(json.loads(json.dumps(plain)), ProfileQuery) == query
        # What was written before there were filters.
        assert msgspec.convert({"where": None}, ProfileQuery).kept == NO_FILTER


class TestProfiles:
    def test_ids_are_hashed_on_demand_and_rejected_rows_withheld(self) -> None:
        body = (
            b'{"results":[{"$distinct_id":"ann","$properties":{"$email":"secret@x"}},{"$distinct_id":"bob"},'
            b'{"$properties":{"$email":"secret@y"}}]}'
        )
        page = parse_page(body, 0, PropertyFilter(exclude=("$email",), hashed=("$distinct_id",)), "")
        assert [(row.key, row.content) for row in page.rows] == [(sha("ann"), "{}"), (sha("bob"), None)]
        # Red when the text of rejected rows is left as served.
        assert "secret" not in repr(page)


class TestEvents:
    @given(st.lists(st.integers(1, 40), max_size=30))
    def test_lines_are_sieved_wherever_blocks_end(self, sizes: list[int]) -> None:
        # Red when the end of a block is taken for the end of a line.
        lines = [
            b'{"event":"a\\nb","properties":{"time":1.10,"distinct_id":"u","$email":"secret","x":1e400}}',
            '{"properties":{"$email":"secret","é":"\u2028"},"event":7,"other":"secret"}'.encode(),
            b'{"event":"no properties","properties":["secret"]}',
            b'["secret"]',
            b"",
            b'{"error":"terminated early"}',
            b'{"event":"cut","properties":{"$email":"secret"',
        ]
        kept = self.through(b"".join(line + b"\n" for line in lines), sizes, PropertyFilter(exclude=("$email",)))
        assert kept.count(b"\n") == len(lines)
        assert b"secret" not in kept
        got = kept.split(b"\n")
        assert got[0] == b'{"event":"a\\nb","properties":{"time":1.10,"distinct_id":"u","x":1e400}}'
        assert got[1] == '{"event":7,"properties":{"é":"\u2028"}}'.encode()
        assert isinstance(json.loads(got[2]), str)
        assert isinstance(json.loads(got[3]), str)
        assert got[4:6] == [b"", b'{"error":"terminated early"}']
        with pytest.raises(json.JSONDecodeError):
            json.loads(got[6])

    def test_what_tells_events_apart_stays(self) -> None:
        members = ",".join(f'"{name}":1' for name in (*EVENT_KEY, ID_BEFORE, "a", "b"))
        line = b'{"event":"e","properties":{' + members.encode() + b"}}\n"
        kept = json.loads(self.through(line, [], PropertyFilter(include=("b",))))
        # Red without `for_events`.
        assert set(kept["properties"]) == {*EVENT_KEY, ID_BEFORE, "b"}

    @staticmethod
    def through(content: bytes, sizes: list[int], kept: PropertyFilter) -> bytes:
        target = io.BytesIO()
        lines = FilteredLines(target, kept, "")
        at = 0
        for size in [*sizes, len(content)]:
            lines.write(content[at : at + size])
            at += size
        lines.finish()
        return target.getvalue()


class TestSettings:
    @pytest.mark.parametrize(
        ("config", "words"),
        [
            (ProfilesConfig(exclude_properties=["a"], hash_properties=["a"]), "'a' is in exclude_properties and in"),
            (ProfilesConfig(exclude_properties=["a"], include_properties=["a"]), "'a' is in exclude_properties and in"),
            (EventsConfig(exclude_properties=["$insert_id"]), "cannot be told apart without '$insert_id'"),
            (EventsConfig(exclude_properties=["distinct_id"]), "cannot be told apart without 'distinct_id'"),
            (EventsConfig(hash_properties=["time"]), "hash_properties: 'time' is needed as it is"),
        ],
    )
    def test_contradictions_are_refused(self, config: Any, words: str) -> None:
        with pytest.raises(ConfigurationError) as refused:
            config.query()
        assert words in str(refused.value)

    def test_the_environment_binds_every_sync_and_a_run_can_only_take_more_away(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MP_EXCLUDE_PROPERTIES", " $email, $phone ,")
        monkeypatch.setenv("MP_HASH_PROPERTIES", '["a, b"]')
        assert settings.property_filter() == PropertyFilter(None, ("$email", "$phone"), ("a, b",))
        # Red when the run's lists replace the environment's.
        of_run = PropertiesConfig(include_properties=["x", "$email"], hash_properties=["$phone", "x"])
        assert of_run.kept() == PropertyFilter(("x",), ("$email", "$phone"), ("a, b", "x"))
        monkeypatch.setenv("MP_INCLUDE_PROPERTIES", "x,y")
        assert PropertiesConfig(include_properties=["y", "z"]).kept().include == ("y",)

    @pytest.mark.parametrize("text", ["[a]", "[1]", '"$email"', "'$email'", '{"$email":1}'])
    def test_a_list_that_would_leave_everything_in_is_refused(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv("MP_EXCLUDE_PROPERTIES", text)
        with pytest.raises(ConfigurationError, match="MP_EXCLUDE_PROPERTIES is no list of names"):
            settings.property_filter()


class TestWhole:
    """A partial sync, whose staged files outlive the run, and a table: neither holds what must not be kept."""

    @pytest.fixture
    def pipeline(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
        with (
            Sandbox(Population(profiles=60, hostile=True), page_size=20) as sandbox,
            dg.DagsterInstance.local_temp(str(tmp_path)) as instance,
        ):
            yield Pipeline.start(instance, sandbox, tmp_path, monkeypatch)

    def test_profiles_and_the_retry_of_those_that_failed(self, pipeline: Pipeline) -> None:
        emails = [json.loads(text)["$email"] for _, text in pipeline.sandbox.population.profiles()]
        pipeline.sandbox.faults = [Fault("engage", "status:500", page=2, times=None)]
        outcome = pipeline.sync(exclude_properties=["$email"], hash_properties=["$name"])
        assert outcome.failed_pages == [2], outcome.words
        staged = list(pipeline.home.glob("staging/profiles/*/page-*.jsonl"))
        assert staged, "a partial sync keeps its pages"
        self.check_files(pipeline.home, emails)
        pipeline.sandbox.faults = []
        retried = pipeline.retry()
        assert retried.success, retried.words
        self.check_files(pipeline.home, emails)
        rows = pipeline.query("select properties ->> '/$name', properties::varchar from {schema}.profiles")
        assert rows
        assert {len(name) for name, _ in rows} == {64}
        assert len(rows) == len(emails)

    def test_the_preview_in_the_event_log_shows_only_what_is_kept(self, pipeline: Pipeline) -> None:
        # Red when the filter is not handed to parse_page, and when "no preview" is not obeyed.
        outcome = pipeline.sync(include_properties=["$name"], hash_properties=["$distinct_id"])
        assert outcome.said is not None
        shown = [record.data for record in outcome.said["preview"].records]
        assert len(shown) == 5
        assert all(len(row["distinct_id"]) == 64 for row in shown)
        assert all(row["properties"].startswith('{"$name":') for row in shown)
        config = {"ops": {"mixpanel__profiles": {"config": {"max_removed_fraction": 1.0}}}}
        none = pipeline.run(SYNC, {**config, "resources": {"warehouse_io_manager": {"config": {"preview_rows": 0}}}})
        assert none.said is not None
        assert "preview" not in none.said

    @staticmethod
    def check_files(home: Path, emails: list[str]) -> None:
        # Red when the filter is not handed to parse_page.
        for file in home.rglob("*"):
            if file.is_file():
                content = file.read_bytes()
                assert not any(email.encode() in content for email in emails), file


class TestWholeEvents:
    def test_events(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MP_HASH_SALT", "pepper")
        with events_pipeline(tmp_path, monkeypatch) as pipeline:
            assert isinstance(pipeline, EventsPipeline)
            open_run = pipeline.sync(FIRST)
            assert open_run.success, open_run.words
            before = self.rows(tmp_path)
            outcome = pipeline.sync(FIRST, exclude_properties=["$city"], hash_properties=["distinct_id"])
            assert outcome.success, outcome.words
        after = self.rows(tmp_path)
        assert len(after) == len(before) > 0
        assert any("$city" in json.loads(text) for _, text in before)
        assert not any("$city" in json.loads(text) for _, text in after)
        keyed = {hmac.new(b"pepper", who.encode(), hashlib.sha256).hexdigest() for who, _ in before}
        # Red when the salt does not reach the client.
        assert {who for who, _ in after} == keyed

    @staticmethod
    def rows(home: Path) -> list[tuple[str, str]]:
        with duckdb.connect(str(next(home.rglob("*.duckdb")))) as connection:
            return connection.execute(
                "select distinct_id, properties::varchar from mixpanel.events order by insert_id, event_time"
            ).fetchall()
