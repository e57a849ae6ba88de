"""The file of the ledger: shared by processes, locked, damaged."""

import contextlib
import gc
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from pathlib import Path

import pytest

from mixpanel_assets.client import ledger_file
from mixpanel_assets.client.quota import Ledger
from mixpanel_assets.client.rate_limits import RateLimits
from mixpanel_assets.errors import Cancelled, ConfigurationError
from mixpanel_assets_tests.client.ledger_clock import URL, spend

pytestmark = pytest.mark.process


def damage_by_text(file: Path) -> None:
    file.write_text("this is not a database, and long enough to be seen as none" * 200)


def damage_by_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage_by_zeros(file: Path) -> None:
    body = file.read_bytes()
    file.write_bytes(body[:4096] + bytes(len(body) - 4096))


def damage_by_other_tables(file: Path) -> None:
    file.unlink()
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.execute("create table counted (what text)")


@pytest.mark.parametrize("damage", [damage_by_text, damage_by_half, damage_by_zeros, damage_by_other_tables])
def test_a_damaged_ledger_is_put_aside_and_begun_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    """Red when it is refused until a person deletes it, and when each of several that find it puts one aside."""
    file = tmp_path / "quota.sqlite"
    account = Ledger(file).account(URL, "1", "query")
    spend(account, 5)
    damage(file)
    damaged = file.read_bytes()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: Ledger(file).account(URL, "1", "query").take("page 0"), range(8)))
    assert account.quota().used == 8
    assert (tmp_path / "quota.damaged").read_bytes() == damaged
    assert [record.getMessage() for record in caplog.records if "begun anew" in record.getMessage()] == [
        caplog.records[0].getMessage()
    ]


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    """Red without the translation in `LedgerFile.transaction`, and when the advice is to delete the ledger."""
    (tmp_path / "home").write_text("a file")
    with pytest.raises(ConfigurationError, match=r"cannot use the quota ledger .*: set DAGSTER_HOME to") as refused:
        Ledger(tmp_path / "home" / "quota.sqlite").account(URL, "1", "query").take("page 0")
    assert "\n" not in str(refused.value)


_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
connection.execute("select count(*) from counted").fetchall()
print("locked", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("lock", ["begin immediate", "begin exclusive", "begin"])
def test_a_lock_is_named_and_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    """Red when the wait ends before the lock does, when nobody is told, and when a wish to stop is not heard."""
    monkeypatch.setattr(ledger_file, "_TOLD_AFTER_SECONDS", 0.3)
    file, stop = tmp_path / "quota.sqlite", threading.Event()
    account = Ledger(file, stop=stop).account(URL, "1", "query")
    account.take("page 0")
    command = [sys.executable, "-c", _LOCK, str(file), lock]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with ThreadPoolExecutor(1) as thread:
            taken = thread.submit(account.take, "page 0")
            with pytest.raises(TimeoutError):
                taken.result(timeout=1.5)
            holder.stdin.write("go\n")
            holder.stdin.flush()
            assert taken.result(timeout=10).counted
    who = f"process {holder.pid}" if sys.platform == "linux" else "another process"
    assert [record.getMessage() for record in caplog.records] == [
        f"the quota ledger {file} is locked by {who}; waiting for it"
    ]
    assert account.quota().used == 2
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as holder_here:
        holder_here.execute("begin exclusive")
        stop.set()
        with pytest.raises(Cancelled):
            account.take("page 0")


_TAKE_ALL_YOU_CAN = """
import sys
from pathlib import Path
from mixpanel_assets.errors import QuotaError
from mixpanel_assets.client.quota import Ledger
account = Ledger(Path(sys.argv[1])).account("https://mixpanel.com", "1", "query")
print("ready", flush=True)
sys.stdin.readline()
taken = 0
try:
    while True:
        account.take("page 0")
        taken += 1
except QuotaError:
    print(taken)
"""


def test_processes_that_start_together_never_exceed_the_budget_together(tmp_path: Path) -> None:
    """Red without `immediate` in the transaction (they fail, or take more), and with a ledger per process."""
    file = tmp_path / "quota.sqlite"
    Ledger(file).account(URL, "1", "query").learn(RateLimits(hourly_limit=300))
    command = [sys.executable, "-c", _TAKE_ALL_YOU_CAN, str(file)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = []
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        outputs.append(int(process.communicate(timeout=60)[0]))
        assert process.returncode == 0
    assert sum(outputs) == 300


def test_a_ledger_in_memory_is_closed_with_its_last_user() -> None:
    """Red when garbage collection closes the connection instead: Python 3.13 warns of it, and the tests are red."""
    ledger = ledger_file.LedgerFile(None, "")
    with ledger.transaction() as connection:
        connection.execute("select 1")
    del ledger
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("select 1")
