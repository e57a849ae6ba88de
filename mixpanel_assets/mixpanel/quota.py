"""The ledger of counted requests: what is left of Mixpanel's rolling hour, over all processes of this machine.

Belongs here: counting, refusing what would be too much, and what the server's headers teach. Does not belong here:
waiting (retry.py), sending (http.py), how many requests a sync needs (plans.py), requests per second (start_rate.py).

The rules: 60 queries and 60 exports in a rolling hour, each for an API host and a project. Of a session only page 0
counts, until the server refuses one of its other pages for the hour; from then on they count too. Requests answered
401, 402 or 429 are given back. A limit that the server names replaces the 60 for a week.

A SQLite file, and not one of the rate-limiting libraries: pyrate-limiter's SQLite bucket shares a count between
processes, but cannot give a request back, and its limits are fixed when it is made, where ours are learned.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mixpanel_assets.errors import ConfigurationError, QuotaError
from mixpanel_assets.mixpanel.rate_limits import DEFAULT_WINDOW_SECONDS, RateLimits

LEDGER_FILE = "quota.sqlite"
DEFAULT_LIMIT = 60
# Our clock and the server's differ, and it counts a request when it arrives: of twenty exports that wait for their
# turn to start, the last after 7 s.
MARGIN_SECONDS = 10.0
# How long the server's word is believed.
LEARNED_SECONDS = 7 * 24 * 3600.0
_GIVEN_BACK = frozenset({401, 402, 429})
_LOCK_SECONDS = 30.0

_SCHEMA = """
create table if not exists counted (id integer primary key, account text not null, at real not null);
create index if not exists counted_by_account on counted (account, at);
create table if not exists learned (account text primary key, hourly_limit integer, window_seconds real,
    limit_until real not null default 0, blocked_until real not null default 0,
    session_pages_until real not null default 0);
"""


class NotSentError(QuotaError):
    """The ledger itself refuses: Mixpanel was not asked."""


@dataclass(frozen=True)
class Standing:
    """What is left of the hour.

    Attributes:
        limit: Counted requests that the window allows.
        learned: Whether the server named that limit.
        used: Counted within the window.
        window_seconds: Length of the window.
        room_after_seconds: When each request of the window leaves it, soonest first; all at once when the server itself
            said that nothing is left.
    """

    limit: int
    learned: bool
    used: int
    window_seconds: float
    room_after_seconds: tuple[float, ...]

    @property
    def left(self) -> int:
        """Requests that may go out now."""
        return max(0, self.limit - self.used)

    def wait_for(self, requests: int) -> float:
        """Seconds until the last of so many requests may go out, if nobody else sends any."""
        over = requests - self.left
        if over <= 0:
            return 0.0
        rounds, rest = divmod(over - 1, self.limit)
        soonest = self.room_after_seconds[max(0, self.used - self.limit) :]
        first = soonest[rest] if rest < len(soonest) else self.window_seconds
        return first + rounds * self.window_seconds


@dataclass
class Ticket:
    """One request's entry in the ledger; `counted` says whether it has one."""

    account: "Account"
    entry: int | None
    session_page: bool

    @property
    def counted(self) -> bool:
        return self.entry is not None

    def heard(self, status: int, limits: RateLimits) -> None:
        """The server answered."""
        if status in _GIVEN_BACK:
            self.refund()
        self.account.learn(limits)

    def refused(self, retry_after: float | None) -> float:
        """The server refused it for the hourly window; None: it did not say for how long. Returns for how long."""
        return self.account.block(retry_after, session_page=self.session_page)

    def refund(self) -> None:
        """It does not count."""
        if self.entry is not None:
            self.account.forget(self.entry)
            self.entry = None


class Ledger:
    """The file that all processes share.

    Args:
        file: SQLite file, made when needed; None: a ledger of this object's own, in memory.
        clock: Seconds since the epoch.
    """

    def __init__(self, file: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._file = file
        self._turn = threading.Lock()
        self._memory = None if file else _connect(":memory:")

    def account(self, base_url: str, project_id: str, api: str) -> "Account":
        """The account of one project's "query" or "export" API at the host of a URL."""
        return Account(self, f"{api} {urlsplit(base_url).netloc} {project_id}")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else writes beside.

        Raises:
            ConfigurationError: the file cannot be used.
        """
        with self._turn:
            if self._memory is not None:
                yield from _transaction(self._memory)
                return
            try:
                with contextlib.closing(self._open()) as connection:
                    yield from _transaction(connection)
            except (sqlite3.Error, OSError) as error:
                raise ConfigurationError(
                    f"cannot use the quota ledger {self._file} ({error}): delete it, or set DAGSTER_HOME to another "
                    "folder"
                ) from None

    def _open(self) -> sqlite3.Connection:
        assert self._file is not None
        if not self._file.exists():
            self._file.parent.mkdir(parents=True, exist_ok=True)
        return _connect(str(self._file))


class Account:
    """The counted requests of one project to one API."""

    def __init__(self, ledger: Ledger, name: str) -> None:
        self._ledger = ledger
        self._name = name

    def take(self, what: str, *, session_page: bool = False) -> Ticket:
        """Enter a request that is about to be sent.

        Args:
            what: Its name in errors.
            session_page: Whether it belongs to an open session.

        Raises:
            NotSentError: it would be too much, or the server said so; `retry_after` says when there is room again.
        """
        with self._ledger.transaction() as connection:
            if session_page and not self._session_pages_count(connection):
                return Ticket(self, None, session_page)
            standing = self._standing(connection)
            if standing.left < 1:
                raise self._too_much(what, standing)
            row = connection.execute(
                "insert into counted (account, at) values (?, ?)", [self._name, self._ledger.clock()]
            )
            return Ticket(self, row.lastrowid, session_page)

    def standing(self) -> Standing:
        """What is left now."""
        with self._ledger.transaction() as connection:
            return self._standing(connection)

    def session_pages_count(self) -> bool:
        """Whether the server was seen to count the pages after page 0."""
        with self._ledger.transaction() as connection:
            return self._session_pages_count(connection)

    def learn(self, limits: RateLimits) -> None:
        """Believe the limit that the server names, and that others use it too."""
        if limits.hourly_limit is None and limits.hourly_remaining is None:
            return
        with self._ledger.transaction() as connection:
            now = self._ledger.clock()
            if limits.hourly_limit:
                self._keep(
                    connection,
                    hourly_limit=limits.hourly_limit,
                    window_seconds=limits.window_seconds or DEFAULT_WINDOW_SECONDS,
                    limit_until=now + LEARNED_SECONDS,
                )
            if limits.hourly_remaining == 0:
                self._block(connection, limits.room_after_seconds)
            elif limits.hourly_remaining is not None:
                unseen = self._standing(connection).left - limits.hourly_remaining
                connection.executemany(
                    "insert into counted (account, at) values (?, ?)", [(self._name, now)] * max(0, unseen)
                )

    def block(self, seconds: float | None, *, session_page: bool) -> float:
        """The server says that nothing is left for so long; None: for how long it did not say. Returns the seconds."""
        with self._ledger.transaction() as connection:
            if session_page:
                self._keep(connection, session_pages_until=self._ledger.clock() + LEARNED_SECONDS)
            return self._block(connection, seconds)

    def forget(self, entry: int) -> None:
        """Give a request back."""
        with self._ledger.transaction() as connection:
            connection.execute("delete from counted where id = ?", [entry])

    def _standing(self, connection: sqlite3.Connection) -> Standing:
        now = self._ledger.clock()
        limit, window, blocked_until = self._limits(connection, now)
        # What lies too far ahead was noted by a clock that was set back.
        latest = now + max(window, DEFAULT_WINDOW_SECONDS)
        if blocked_until > latest:
            blocked_until = latest
            self._keep(connection, blocked_until=blocked_until)
        connection.execute("update counted set at = ? where account = ? and at > ?", [now, self._name, now])
        connection.execute("delete from counted where account = ? and at <= ?", [self._name, now - window])
        rows = connection.execute("select at from counted where account = ? order by at", [self._name]).fetchall()
        leaves = tuple(at + window - now for (at,) in rows)
        blocked = blocked_until - now
        learned = limit is not None
        limit = limit or DEFAULT_LIMIT
        if blocked > 0:
            leaves = tuple(max(blocked, seconds) for seconds in leaves[-limit:])
            leaves = (blocked,) * (limit - len(leaves)) + leaves
        return Standing(limit, learned, len(leaves), window, leaves)

    def _block(self, connection: sqlite3.Connection, seconds: float | None) -> float:
        wait = self._until_room(connection) if seconds is None else seconds
        self._keep(connection, blocked_until=self._ledger.clock() + wait)
        return wait

    def _until_room(self, connection: sqlite3.Connection) -> float:
        """When a window that the server calls full has room at the latest, by our own count.

        Then the oldest of our requests leaves it; none whose margin has begun, the server may have forgotten it.
        """
        standing = self._standing(connection)
        surely_inside = (seconds for seconds in standing.room_after_seconds if seconds > MARGIN_SECONDS)
        return next(surely_inside, standing.window_seconds)

    def _limits(self, connection: sqlite3.Connection, now: float) -> tuple[int | None, float, float]:
        """The learned limit if there is one, the window with its margin, and until when nothing goes."""
        row = connection.execute(
            "select hourly_limit, window_seconds, limit_until, blocked_until from learned where account = ?",
            [self._name],
        ).fetchone()
        limit, window, limit_until, blocked_until = row or (None, 0.0, 0.0, 0.0)
        if limit is None or limit_until < now:
            return None, DEFAULT_WINDOW_SECONDS + MARGIN_SECONDS, blocked_until
        return int(limit), float(window) + MARGIN_SECONDS, blocked_until

    def _session_pages_count(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute("select session_pages_until from learned where account = ?", [self._name]).fetchone()
        return bool(row) and row[0] > self._ledger.clock()

    def _keep(self, connection: sqlite3.Connection, **values: float) -> None:
        connection.execute("insert or ignore into learned (account) values (?)", [self._name])
        columns = ", ".join(f"{name} = ?" for name in values)
        connection.execute(f"update learned set {columns} where account = ?", [*values.values(), self._name])

    def _too_much(self, what: str, standing: Standing) -> NotSentError:
        wait = standing.wait_for(1)
        at = time.strftime("%H:%M UTC", time.gmtime(self._ledger.clock() + wait))
        return NotSentError(
            f"{what}: all {standing.limit} requests of the hour are spent, room again in {wait:.0f} s ({at}): sync "
            "later, or with on_quota=wait",
            wait,
        )


def _connect(name: str) -> sqlite3.Connection:
    connection = sqlite3.connect(name, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    connection.execute("begin immediate")
    try:
        yield connection
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute("commit")
