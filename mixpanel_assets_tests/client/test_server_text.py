"""Every text of a server on its way to people: without the credentials, without what steers a terminal, one line.

The functions alone, and then the whole way, from a server on loopback to `mp`'s stderr and the rejected rows.
"""

import base64
import html
import json
import quopri
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import duckdb
import pytest

from mixpanel_assets.client.server_text import ServerText, one_line, reason_in, visible
from mixpanel_assets.sandbox import Fault, Population, Sandbox

pytestmark = pytest.mark.process

SECRETS = ["s3cret-marker", "mark/er+secret 7", "Pä<&>\"'\\x€ss", "AbCdEfGhIjKlMnOpQrStUvWxYz012345"]


def b64(data: str | bytes) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def each(form: str) -> Callable[[str], str]:
    return lambda text: "".join(form.format(ord(character)) for character in text)


def each_byte(form: str) -> Callable[[str], str]:
    return lambda text: "".join(form.format(byte) for byte in text.encode())


def base64_after(count: int) -> Callable[[str], str]:
    return lambda text: b64("x" * count + text).rstrip("=")


def base64_without(count: int) -> Callable[[str], str]:
    return lambda text: b64("user:" + text + "tail")[count:]


def quoted(text: str) -> str:
    return quote(text, safe="")


SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "upper case": str.upper,
    "url": quoted,
    "url, slashes left": quote,
    "url, lower case": lambda text: re.sub("%..", lambda match: match[0].lower(), quoted(text)),
    "url, plus for spaces": quote_plus,
    "url, twice": lambda text: quoted(quoted(text)),
    "url, every byte": each_byte("%{:02x}"),
    "basic credentials": lambda text: b64(f"user.name:{text}"),
    "basic credentials, of bytes": lambda text: repr(b64(f"user.name:{text}").encode()),
    **{f"base64 after {n}": base64_after(n) for n in range(4)},
    **{f"base64 without its first {n}": base64_without(n) for n in range(4)},
    "base64url": lambda text: base64.urlsafe_b64encode(f"~~?{text}".encode()).decode(),
    "base64 in a url": lambda text: quoted(b64(text)),
    "base64 in lines": lambda text: base64.encodebytes(b"long" * 15 + text.encode()).decode(),
    "base64 in JSON": lambda text: b64("??" + text).replace("/", "\\/"),
    "base64 of a url": lambda text: b64(quoted(text)),
    "base64, twice": lambda text: b64(f"Basic {b64('user:' + text)}"),
    "JSON": json.dumps,
    "JSON, slashes escaped": lambda text: json.dumps(text, ensure_ascii=False).replace("/", "\\/"),
    "JSON, twice": lambda text: json.dumps(json.dumps(text)),
    "JSON, every character": each("\\u{:04X}"),
    "Python": lambda text: repr(text.encode()),
    "C": each_byte("\\x{:02x}"),
    "octal": each_byte("\\{:03o}"),
    "HTML": html.escape,
    "HTML, twice": lambda text: html.escape(html.escape(text)),
    "HTML, decimal": each("&#{};"),
    "HTML, hexadecimal": each("&#x{:X};"),
    "HTML in a url": lambda text: quoted(html.escape(text)),
    "hex": lambda text: text.encode().hex(),
    "hex, upper case": lambda text: text.encode().hex(" ").upper(),
    "mail": lambda text: quopri.encodestring(text.encode(), quotetabs=True).decode(),
}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_secret_is_taken_out_however_it_is_quoted(spelling: str, secret: str) -> None:
    """Red without each of the decoders, and each of the spellings of a character."""
    spelled = SPELLINGS[spelling](secret)
    for text in (f"not with {spelled}, please", f'{{"auth":"{spelled}"}}', f"?q={spelled}&to=2026"):
        redacted = ServerText(secret).redacted(text)
        assert spelled not in redacted
        assert "***" in redacted
        assert redacted[-2:] == text[-2:], "what follows is still there"


def test_what_holds_no_secret_is_left_as_it_is() -> None:
    texts = ServerText("s3cret-marker")
    for text in ("50% of &amp; \\n C:\\new +1 =2F YWJjZGVmZ2hpamtsbW5vcA== \ud800", "s3cret-marke r", "%", "\\", "&#;"):
        assert texts.redacted(text) == text
    assert ServerText("").redacted("anything") == "anything"


@pytest.mark.parametrize("text", ["A" * 65_536, "%25" * 20_000, "\\" * 65_536, "&amp;" * 13_000, "=2" * 30_000])
def test_hostile_texts_cost_no_time(text: str) -> None:
    """Red when a search may go back over all of the text from each of its characters."""
    began = time.monotonic()
    ServerText("s3cret-marker").quoted(reason_in(text + "s3cret-marker"))
    reason_in("<html>" + text)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "character",
    [
        *(
            "\x00",
            "\x07",
            "\x1b",
            "\x1f",
            "\x7f",
            "\x85",
            "\x9b",
            "\xad",
            "\u061c",
            "\u200b",
            "\u200e",
            "\u202e",
            "\u2028",
        ),
        *("\u2066", "\u2069", "\u3164", "\ufeff", "\ufe0f", "\ud83d", "\ue000", "\U000e0041"),
    ],
)
def test_what_cannot_be_seen_is_an_escape_that_json_reads_back(character: str) -> None:
    shown = visible(f"a{character}b")
    assert shown.isascii()
    assert shown.isprintable()
    assert json.loads(f'"{shown}"') == f"a{character}b"
    assert one_line(f"a{character}b") == shown


def test_what_can_be_seen_stays() -> None:
    text = "é 日本語 עברית 😀 “quoted” \ufffd"
    assert visible(text) == text
    assert one_line(" a\r\n\tb\xa0 c ") == "a b c"
    assert one_line("x" * 301) == "x" * 300 + "..."


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"request":"/x","error":"no entry"}', "no entry"),
        ('{"code":500,"message":"internal"}', "internal"),
        ('{"error":{"code":7}}', '{"code": 7}'),
        ('{"status":0}', '{"status":0}'),
        ("[1]", "[1]"),
        ("just words", "just words"),
        ("<b>bold", " bold"),
        ("\n<!DOCTYPE html><HTML><head><TITLE lang=en>\n502 Bad &lt;Gateway&gt;</TITLE><p>", "\n502 Bad <Gateway>"),
        ("<html><title></title><h1>Blocked by <i>proxy</i></h1><p>x</html>", "Blocked by  proxy "),
        ("<html><style>p</style><body>Try later</body></html>", "Try later"),
        ('<?xml version="1.0"?><Error><Code>Slow</Code></Error>', "Slow"),
        ('{"error":"<html><title>Bad Gateway</title>"}', "Bad Gateway"),
    ],
)  # fmt: skip
def test_the_reason_is_what_a_body_says(body: str, reason: str) -> None:
    assert reason in reason_in(body)
    assert "<html" not in reason_in(body)


PAGE = f"<!DOCTYPE html><html><head><title>503 \x1b[31mBusy</title></head><body>{'<p>filler</p>' * 500}</body></html>"
DAYS = ("events", "--from", "2026-01-01", "--to", "2026-01-03", "--chunk-days", "1")
STEERING = "\x1b[31mred\x1b]0;title\x07\u202eevil\u200b\x9b2J"


def fetch(sandbox: Sandbox, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    environment = {**sandbox.environment, "DAGSTER_HOME": str(folder), "PATH": "", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "mixpanel_assets", "fetch", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, env=environment)


def test_a_page_of_a_proxy_is_its_title_once_per_attempt(tmp_path: Path) -> None:
    """Red when the body is quoted as it is."""
    faults = [Fault("engage", "status:503", 1, body=PAGE), Fault("engage", "status:403", 2, body=PAGE)]
    with Sandbox(Population(30), page_size=10, faults=faults) as sandbox:
        done = fetch(sandbox, tmp_path, "profiles", "--no-progress")
    lines = [line for line in done.stderr.splitlines() if "Busy" in line]
    assert len(lines) == 2, done.stderr
    assert all("503 \\u001b[31mBusy" in line for line in lines)
    assert "filler" not in done.stderr
    assert "<" not in done.stderr


@pytest.mark.parametrize("spelling", ["url, lower case", "basic credentials"])
def test_no_text_of_a_server_steers_a_terminal_or_tells_the_secret(tmp_path: Path, spelling: str) -> None:
    """Every way in which a server's words come out: errors by status and under 200, in an export's last line, and rows
    that are set aside. Red with any of them quoted as it is.
    """
    spelled = SPELLINGS[spelling](SECRETS[1])
    body = json.dumps({"error": f"{STEERING} {spelled}"}, ensure_ascii=False)
    aside = json.dumps({"event": "", "properties": {"x": f"\u202e\u200b {spelled}"}}, ensure_ascii=False)
    faults = [
        Fault("engage", "status:403", 1, body=body),
        Fault("engage", "json-error-200", 2, body=body),
        Fault("engage", "limited:concurrency", 3, body=body, retry_after=0),
        Fault("export", "status:403", from_date="2026-01-01", body=body),
        Fault("export", "error-line", from_date="2026-01-02", body=body),
        Fault("export", "error-line", from_date="2026-01-03", body=aside),
    ]
    with Sandbox(Population(50, events_per_day=5), page_size=10, faults=faults, secret=SECRETS[1]) as sandbox:
        profiles = fetch(sandbox, tmp_path, "profiles", "-p", "-v")
        events = fetch(
            sandbox, tmp_path, *["events", "--from", "2026-01-01", "--to", "2026-01-03", "--chunk-days", "1", "-v"]
        )
    said = profiles.stderr + profiles.stdout + events.stderr + events.stdout
    assert "\\u001b[31mred\\u001b]0;title\\u0007\\u202eevil\\u200b\\u009b2J" in said
    with duckdb.connect(str(tmp_path / "mixpanel_data.duckdb")) as connection:
        [(row,)] = connection.execute("select row from mixpanel.rejected_rows").fetchall()
    assert "\\u202e\\u200b" in row
    for text in (said, row):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e]", text)
        assert spelled not in text
