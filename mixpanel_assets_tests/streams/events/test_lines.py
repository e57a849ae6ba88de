"""One range of events from the wire to a staged file: every way in which an export can lie about being whole."""

import datetime
import io
import json
import logging
import re
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_assets.client import json_text
from mixpanel_assets.client.answer import Answer, BrokenAnswerError
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.property_filter import PropertyFilter
from mixpanel_assets.client.retry import RetryPolicy
from mixpanel_assets.client.server_text import NO_SECRETS
from mixpanel_assets.client.split_records import Record
from mixpanel_assets.errors import Cancelled, WarehouseError
from mixpanel_assets.sandbox import Fault, Population, Sandbox
from mixpanel_assets.sandbox.events import Event
from mixpanel_assets.settings import project
from mixpanel_assets.storage.staging import LocalStaging
from mixpanel_assets.streams.events import chunking as event_sync
from mixpanel_assets.streams.events import columns as event_columns
from mixpanel_assets.streams.events import lines as event_lines
from mixpanel_assets.streams.events import wire as export
from mixpanel_assets.streams.events.chunking import Chunk, ChunkResult, EventsPlan
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.events.staged import EventsFolder
from mixpanel_assets_tests.staged_events import lines_of, write

pytestmark = pytest.mark.unit

# A busy machine is no finding.
STEADY = settings(deadline=None)
DAY = "2026-01-01"
NEXT = "2026-01-02"
LOG = logging.getLogger(__name__)
# Cut short in a way that a client can tell. (An export cut at a line's end, in a framing that says it is whole, cannot
# be told by anybody.)
BROKEN = (
    "cut",
    "terminated-early",
    "error-line",
    "json-error-200",
    "not-json",
    "drop",
    "reset",
    "short-body",
)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Population(events_per_day=60)) as sandbox:
        yield sandbox
        assert not sandbox.errors


@pytest.fixture
def fetch(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Fetch":
    for name, value in sandbox.environment.items():
        monkeypatch.setenv(name, value)
    return Fetch(tmp_path)


class Fetch:
    """Fetches one chunk of a plan into a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stop = threading.Event()

    def __call__(self, first: str = DAY, last: str = NEXT, attempts: int = 1, **query: Any) -> ChunkResult:
        policy = RetryPolicy(max_attempts=attempts, base_seconds=0.01)
        client = MixpanelClient(project(), policy=policy, stop=self.stop)
        now = datetime.datetime.now(datetime.timezone.utc)
        plan = EventsPlan("run", (Chunk(first, last, EventsQuery(**query)),), now)
        try:
            return event_sync.fetch_chunk(client, LocalStaging(self.root), plan.order(0), LOG)
        finally:
            client.close()

    def staged(self, result: ChunkResult) -> list[bytes]:
        folder = EventsFolder(LocalStaging(self.root), "run")
        return sorted(line for part in result.ranges if part.came for line in lines_of(folder.events_file(part)))

    def files(self) -> list[str]:
        return sorted(file.name for file in (self.root / "events" / "run").glob("*"))


def served(sandbox: Sandbox, *days: str) -> list[bytes]:
    rows = (row for day in days for row in sandbox.population.events(day, milliseconds=True))
    return sorted(f'{{"event":{json.dumps(name)},"properties":{text}}}'.encode() for name, text in rows)


class TestWholeExports:
    def test_the_lines_are_those_served(self, fetch: Fetch, sandbox: Sandbox) -> None:
        result = fetch()
        assert result.came
        assert result.rows == 120
        assert fetch.staged(result) == served(sandbox, DAY, NEXT)
        assert fetch.files() == [f"{DAY}_{NEXT}.json", f"{DAY}_{NEXT}.parquet"]
        [request] = sandbox.journal.requests
        assert request.params["time_in_ms"] == "true"
        assert (request.from_date, request.to_date) == (DAY, NEXT)

    def test_a_chunk_that_is_staged_is_not_fetched_again(self, fetch: Fetch, sandbox: Sandbox) -> None:
        first = fetch()
        assert fetch() == first
        assert len(sandbox.journal.requests) == 1
        # Other events were asked for: red when the query is not compared.
        assert fetch(events=("Search",)).rows < first.rows

    def test_a_chunk_opens_no_manifest_but_its_own(self, fetch: Fetch) -> None:
        """Red when each chunk reads the whole folder: years of days would be read over and over."""
        first = fetch()
        # A directory, so that reading it would fail.
        (fetch.root / "events" / "run" / "2025-01-01_2025-01-07.json").mkdir()
        assert fetch() == first

    def test_names_and_expressions_are_sent(self, fetch: Fetch, sandbox: Sandbox) -> None:
        fetch(events=("Search", "Checkout"), where='properties["plan"] == "pro"')
        [request] = sandbox.journal.requests
        assert json.loads(request.params["event"]) == ["Search", "Checkout"]
        assert request.params["where"] == 'properties["plan"] == "pro"'

    @pytest.mark.parametrize("chunked", [True, False])
    def test_an_empty_body_is_an_empty_day(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, chunked: bool
    ) -> None:
        with Sandbox(Population(events_per_day=5, first_day=NEXT), chunked=chunked) as sandbox:
            for name, value in sandbox.environment.items():
                monkeypatch.setenv(name, value)
            result = Fetch(tmp_path)(DAY, DAY)
        assert result.came
        assert result.rows == 0


class TestBrokenExports:
    @pytest.mark.parametrize("fault", BROKEN)
    def test_a_broken_export_is_fetched_again(self, fetch: Fetch, sandbox: Sandbox, fault: str) -> None:
        """Red per guard: without the look at the last byte (cut), at each line (terminated-early, error-line,
        json-error-200, not-json); the rest is urllib3's to see."""
        sandbox.faults = [Fault("export", fault)]
        result = fetch(attempts=2)
        assert result.came, result.error
        assert len(sandbox.journal.requests) == 2
        assert fetch.staged(result) == served(sandbox, DAY, NEXT)

    @pytest.mark.parametrize(
        "fault", [*BROKEN, "two-lengths", "no-final-chunk", "bad-chunk", "no-chunks", "gzip-cut", "no-framing"]
    )
    def test_what_stays_broken_is_a_failure_with_a_reason_and_leaves_nothing(
        self, fetch: Fetch, sandbox: Sandbox, fault: str
    ) -> None:
        """Red per guard: without `member.eof` (gzip-cut), without `framed` (no-framing), and, with urllib3's own
        ValueError, without that in `_content` (bad-chunk)."""
        sandbox.faults = [Fault("export", fault, times=None)]
        result = fetch(attempts=2)
        assert not result.came
        assert result.error is not None
        assert "\n" not in result.error
        assert fetch.files() == []

    @pytest.mark.parametrize(
        ("fault", "says"), [("short-body", "the connection broke off: "), ("bad-length", "its end cannot be told")]
    )
    def test_a_short_body_that_ends_with_a_line_is_broken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, says: str
    ) -> None:
        """Red with urllib3 1.26, which streams what comes and does not look at Content-Length; and when the header's
        presence is enough (bad-length): half of the events would be all."""
        line = ("a", '{"time":1}')
        with Sandbox(Population(events_per_day=0), chunked=False) as sandbox:
            sandbox.population.replace_events(DAY, [line] * 8)
            sandbox.faults = [Fault("export", fault, keep=0.5, times=None)]
            for name, value in sandbox.environment.items():
                monkeypatch.setenv(name, value)
            result = Fetch(tmp_path)(DAY, DAY)
        assert not result.came
        assert says in str(result.error)

    def test_a_body_without_framing_is_refused_even_when_it_is_whole(self, fetch: Fetch, sandbox: Sandbox) -> None:
        sandbox.faults = [Fault("export", "no-framing", keep=1.0, times=None)]
        assert "its end cannot be told" in str(fetch().error)

    def test_an_error_is_quoted_in_one_line_without_the_credentials(self, fetch: Fetch, sandbox: Sandbox) -> None:
        """Red without `redact`; and if the text is cut before, amid the secret."""
        quoted = {"error": f"no\nentry{'.' * 285}{project().secret} {'.' * 100}"}
        sandbox.faults = [Fault("export", "error-line", times=None, body=json.dumps(quoted))]
        error = str(fetch().error)
        assert re.fullmatch(r"events of .*: line \d+ tells of an error: no entry\.{285}\*\*\*\s?\.*", error)
        assert len(error) < 400

    def test_a_record_on_several_lines_is_joined(self, fetch: Fetch, sandbox: Sandbox) -> None:
        """Red when the parts are not put together, or when it is not told."""
        spread = [("a", '{"time":1,\n"x":"broken\nhere"}'), ("b", '{"time":1}'), ("c", '{"x":"at the\nend"}')]
        sandbox.population.replace_events(DAY, spread)
        result = fetch(DAY, DAY)
        assert fetch.staged(result) == [
            b'{"event":"a","properties":{"time":1,"x":"brokenhere"}}',
            b'{"event":"b","properties":{"time":1}}',
            b'{"event":"c","properties":{"x":"at theend"}}',
        ]
        assert [(part.rejected, part.repaired) for part in result.ranges] == [(0, 2)]

    def test_parts_that_make_no_record_cost_themselves_alone(self, fetch: Fetch, sandbox: Sandbox) -> None:
        """Red when they cost the chunk; or when the line that follows is lost with them."""
        torn = Event("torn", '{"time":1,"x":"').text[:-1] + "\n" + '"gone":1' + "\n" + Event("b", '{"time":1}').text
        sandbox.faults = [Fault("export", "status:200", body=torn + "\n", times=None)]
        result = fetch(DAY, DAY)
        assert fetch.staged(result) == [b'{"event":"b","properties":{"time":1}}']
        assert [(part.rejected, part.repaired) for part in result.ranges] == [(1, 0)]

    @pytest.mark.parametrize("end", ['{"event":"a","prop', '{"event":"a",\n"properties":{"time"', "terminated early"])
    def test_an_end_that_is_no_record_is_a_broken_export(self, fetch: Fetch, sandbox: Sandbox, end: str) -> None:
        """Red when what the last lines left begun is dropped, or rejected as a row."""
        whole = Event("b", '{"time":1}').text
        sandbox.faults = [Fault("export", "status:200", body=f"{whole}\n{end}\n", times=None)]
        assert not fetch(DAY, DAY).came
        assert not fetch(DAY, DAY, kept=PropertyFilter(exclude=("gone",))).came

    @pytest.mark.parametrize(
        "body",
        [
            *('{"code":500,"message":"internal"}', '{"code":429,"status":"Too Many Requests"}', '{"status":0}', "{}"),
            *("[]", "null", "7", '"terminated early"', "terminated early", "<html>\n<title>Sorry</title>\n</html>"),
            *('{\n  "code": 500,\n  "message": "internal"\n}', '{"code":500}\n{"code":500}', "\n\nnull\n\n", "[]\r\n"),
            *('{"event":"","properties":{}}', '\ufeff{"status":0}'),
        ],
    )
    @pytest.mark.parametrize("exclude", [(), ("gone",)])
    @pytest.mark.parametrize("before", ["", '{"event":"a","properties":{"time":1767268800}}\n'], ids=["alone", "last"])
    def test_a_body_that_is_no_export_is_a_failed_attempt(
        self, fetch: Fetch, sandbox: Sandbox, body: str, exclude: tuple[str, ...], before: str
    ) -> None:
        """Red when what is no event is only rejected: the stored rows of the day would go for it."""
        sandbox.faults = [Fault("export", "status:200", body=f"{before}{body}\n", times=None)]
        result = fetch(DAY, DAY, attempts=2, kept=PropertyFilter(exclude=exclude))
        is_a_bad_record = before and '"event":""' in body
        assert result.came == bool(is_a_bad_record)
        if not is_a_bad_record:
            assert len(sandbox.journal.requests) == 2
            assert fetch.files() == []

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("exclude", [(), ("gone",)])
    def test_events_behind_a_byte_order_mark_are_events(
        self, fetch: Fetch, sandbox: Sandbox, exclude: tuple[str, ...], *, zipped: bool
    ) -> None:
        """Red when the mark is taken for a part of the first line: DuckDB up to 2.0.0 refuses it, and so does JSON."""
        lines = [Event(name, '{"time":1767268800}').text for name in ("a", "b", "c" * (9999 if zipped else 1))]
        body = f"\ufeff{lines[0]}\n\ufeff{lines[1]}\n{lines[2]}\n"
        sandbox.faults = [Fault("export", "status:200", body=body, times=None)]
        result = fetch(DAY, DAY, kept=PropertyFilter(exclude=exclude))
        assert fetch.staged(result) == sorted(line.encode() for line in lines)
        assert [(part.rejected, part.repaired) for part in result.ranges] == [(0, 0)]

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
    def test_an_export_in_another_encoding_is_a_failed_attempt(
        self, fetch: Fetch, sandbox: Sandbox, encoding: str
    ) -> None:
        body = (Event("a", '{"time":1}').text + "\n").encode(encoding).decode(errors="surrogateescape")
        sandbox.faults = [Fault("export", "status:200", body=body, times=None)]
        assert not fetch(DAY, DAY).came

    def test_a_disk_that_takes_no_more_is_said_in_one_line(self, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
        write_columns = event_columns.write_columns
        # As when it fills while the events are written, after their lines.
        monkeypatch.setattr(
            event_sync,
            "write_columns",
            lambda file, lines, _, what: write_columns(file, lines, Path("/dev/full"), what),
        )
        # Red, with DuckDB's own exception, when it is not caught.
        with pytest.raises(
            WarehouseError, match=r"^cannot stage in [^\n]*[^\n]*No space left on device[^\n]*; free space[^\n]*$"
        ):
            fetch()
        assert fetch.files() == []

    def test_lines_that_duckdb_fails_on_cost_their_range_alone(
        self, fetch: Fetch, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Red, as a WarehouseError that ends the run, when any error of DuckDB's is taken for one of the disk."""
        monkeypatch.setattr(event_columns, "_MEMORY_MB", 1)
        assert fetch().error == f"events of {DAY} to {NEXT}: DuckDB failed on its lines (OutOfMemoryException)"
        assert fetch.files() == []

    def test_an_event_nested_too_deep_beside_an_unusual_line_costs_its_range_alone(
        self, fetch: Fetch, sandbox: Sandbox
    ) -> None:
        """Red, with Python's RecursionError, when `is_json` does not catch it."""
        deep = '{"time":1767225600000,"x":' + "[" * 3000 + "]" * 3000 + "}"
        sandbox.population.replace_events(DAY, [("deep", deep), ("", '{"time":1767225600000}')])
        reason = "no whole JSON, nor with the lines after it"
        assert fetch(DAY, DAY).error == f"events of {DAY} to {DAY}: the answer holds no event: {reason}"

    def test_a_refusal_is_not_repeated(self, fetch: Fetch, sandbox: Sandbox) -> None:
        sandbox.faults = [Fault("export", "auth-error", times=None)]
        assert "credentials" in str(fetch(attempts=5).error)
        assert len(sandbox.journal.requests) == 1

    def test_a_cancel_ends_the_download(self, fetch: Fetch, sandbox: Sandbox) -> None:
        sandbox.faults = [Fault("export", "trickle", seconds=3.0)]
        threading.Timer(0.3, fetch.stop.set).start()
        with pytest.raises(Cancelled):
            fetch()
        assert fetch.files() == []


class TestUnusualLines:
    """Each of these is JSON that event_columns.py does not take as it is."""

    def lines(self, tmp_path: Path, *lines: bytes) -> tuple[bytes, event_lines.RepairedLines]:
        file = tmp_path / "lines.jsonl"
        file.write_bytes(b"".join(line + b"\n" for line in lines))
        assert write(tmp_path, *lines) is None
        target = io.BytesIO()
        made = event_lines.repair_lines(file, target, "events", NO_SECRETS)
        straight = target.getvalue().split(b"\n")[:-1]
        assert len(straight) == made.lines
        staged = write(tmp_path, *straight)
        assert staged is not None
        assert lines_of(staged) == sorted(straight)
        return target.getvalue(), made

    @pytest.mark.parametrize(
        "line",
        [
            b'{"properties":{"x":1.10,"y":1e400},"event":"a"}',
            b' {"event" : "a" , "properties" : {"x":1.10,"y":1e400} } ',
            b'{"event":"a","more":{"p":"q","properties":{"no":1}},"properties":{"x":1.10,"y":1e400}}',
            b'{"event":"a","properties":{"x":1.10,"y":1e400},"more":1}',
        ],
    )
    def test_another_order_or_spacing_keeps_the_text_of_the_properties(self, tmp_path: Path, line: bytes) -> None:
        assert self.lines(tmp_path, line)[0] == b'{"event":"a","properties":{"x":1.10,"y":1e400}}\n'

    def test_what_is_no_event_is_set_aside(self, tmp_path: Path) -> None:
        good = b'{"event":"a","properties":{}}'
        nameless = (b'{"properties":{}}', b'{"event":null,"properties":{}}', b'{"event":"","properties":{}}')
        bare = (b'{"event":"a"}', b'{"event":"a","properties":[]}')
        content, made = self.lines(tmp_path, good, b"7", b"[1]", *nameless, *bare)
        assert content == good + b"\n"
        reasons = ["not an object"] * 2 + ["no event name"] * 3 + ["no properties"] * 2
        assert [row.reason for row in made.rejected] == reasons
        assert [row.row for row in made.rejected] == [1, 2, 3, 4, 5, 6, 7]

    def test_a_name_that_only_looks_like_event_is_none(self, tmp_path: Path) -> None:
        """Red without `starts_with`: the line has the length of a usual one."""
        good = b'{"event":"a","properties":{}}'
        assert self.lines(tmp_path, b'{"Event":"a","properties":{}}', good)[0] == good + b"\n"

    def test_a_number_is_a_name(self, tmp_path: Path) -> None:
        assert self.lines(tmp_path, b'{"event":124,"properties":{}}')[0] == b'{"event":"124","properties":{}}\n'

    def test_text_that_is_no_unicode_is_mended_and_kept_aside(self, tmp_path: Path) -> None:
        lines = (b'{"event":"a","properties":{"x":"\\ud800"}}', b'{"event":"a","properties":{"x":"\xff"}}')
        content, made = self.lines(tmp_path, *lines)
        assert made.repaired == 2
        assert content.count(b"\\ufffd") == 1
        assert content.count("\ufffd".encode()) == 1
        assert [row.text for row in made.rejected] == [lines[0].decode(), lines[1].decode(errors="backslashreplace")]

    @STEADY
    @given(name=st.text(), key=st.text(), value=st.text())
    def test_any_name_and_any_property_make_a_usual_line(self, name: str, key: str, value: str) -> None:
        properties = json.dumps({key: value, "properties": {"properties": 1}}, separators=(",", ":"))
        line = f'{{"event":{json.dumps(name)},"properties":{properties}}}'.encode()
        usual = event_lines._usual(Record(0, line, 1, whole=True), "line", NO_SECRETS)
        if not name:
            assert usual == "no event name"
            return
        assert isinstance(usual, tuple)
        assert usual[0] == json_text.repaired(line)[0] + b"\n"


class TestLineReading:
    """Bodies arrive in blocks that know nothing of lines."""

    @STEADY
    @given(
        lines=st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line)),
        sizes=st.lists(st.integers(1, 30), min_size=1),
        zipped=st.booleans(),
        members=st.integers(1, 3),
    )
    def test_any_block_border_gives_the_same_bytes(
        self, lines: list[bytes], sizes: list[int], *, zipped: bool, members: int
    ) -> None:
        body = b"".join(line + b"\n" for line in lines)
        wire = b"".join(_gzip(part) for part in _parts(body, members)) if zipped else body
        target = io.BytesIO()
        assert export.save_body(_response(wire, sizes, zipped=zipped), target) == len(lines)
        assert target.getvalue() == body

    @STEADY
    @given(cut=st.floats(0.01, 0.999), sizes=st.lists(st.integers(1, 30), min_size=1))
    def test_a_cut_gzip_stream_never_passes(self, cut: float, sizes: list[int]) -> None:
        wire = _gzip(b'{"event":"a","properties":{}}\n' * 50)
        part = wire[: max(1, int(len(wire) * cut))]
        with pytest.raises(BrokenAnswerError):
            export.save_body(_response(part, sizes, zipped=True), io.BytesIO())


def _gzip(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush()


def _parts(body: bytes, count: int) -> list[bytes]:
    step = len(body) // count + 1
    return [body[start : start + step] for start in range(0, len(body), step)] or [b""]


def _response(wire: bytes, sizes: list[int], *, zipped: bool) -> Answer:
    """A response whose blocks are as the sizes say, over and over."""

    def blocks(_: int, **__: Any) -> Iterator[bytes]:
        position, turn = 0, 0
        while position < len(wire):
            size = sizes[turn % len(sizes)]
            yield wire[position : position + size]
            position, turn = position + size, turn + 1

    response = requests.Response()
    response.raw = SimpleNamespace(stream=blocks, close=lambda: None, release_conn=lambda: None)
    response.headers["Transfer-Encoding"] = "chunked"
    if zipped:
        response.headers["Content-Encoding"] = "gzip"
    return Answer(response, "x")
