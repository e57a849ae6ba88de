"""The ledger of counted requests: what is left of Mixpanel's rolling hour, over all processes that share it.

Belongs here: counting, refusing what would be too much, and what the server's headers teach. Does not belong here:
where it is kept (ledger_file.py, limit_tables.py), waiting (retry.py), sending (http.py), how many requests a sync
needs (streams/), requests per second (start_rate.py).

The rules: 60 queries and 60 exports in a rolling hour, each for an API host and a project. Of a session only page 0
counts, until the server refuses one of its other pages for the hour; from then on they count too. Requests answered
401, 402 or 429 are given back. A limit that the server names replaces the 60 for a week; until it, or a setting, names
one, a full window is only our guess, and the server is asked. A refusal for the hour blocks as long as its headers say,
else for window / limit: a minute, twice as long with each further refusal, until a later request succeeds.

A SQLite file, and not one of the rate-limiting libraries: pyrate-limiter's SQLite bucket shares a count between
processes, but cannot give a request back, and its limits are fixed when it is made, where ours are learned.
"""

import secrets
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from mixpanel_assets.client.ledger_file import LedgerFile
from mixpanel_assets.client.ledger_store import LEDGER_SCHEMA, LedgerStore, Statements
from mixpanel_assets.client.rate_limits import DEFAULT_WINDOW_SECONDS, RateLimits
from mixpanel_assets.errors import QuotaError

LEDGER_FILE = "quota.sqlite"
DEFAULT_LIMIT = 60
# Our clock and the server's differ, and it counts a request when it arrives: of twenty exports that wait for their
# turn to start, the last after 7 s.
MARGIN_SECONDS = 10.0
# How long the server's word is believed.
LEARNED_SECONDS = 7 * 24 * 3600.0
# Beyond these the wait is the window in any case.
_MOST_DOUBLINGS = 32
_GIVEN_BACK = frozenset({401, 402, 429})

_ID_BITS = 62


class NotSentError(QuotaError):
    """The ledger itself refuses: Mixpanel was not asked."""


@dataclass(frozen=True)
class QuotaStatus:
    """What is left of the hour.

    Attributes:
        limit: Counted requests that the window allows.
        learned: Whether the server named that limit.
        certain: Whether no request goes out beyond it: the server or a setting named it, or a request was refused just
            now.
        used: Counted within the window.
        window_seconds: Length of the window.
        seconds_until_free: When each request of the window leaves it, soonest first; all at once when the server itself
            said that nothing is left.
    """

    limit: int
    learned: bool
    certain: bool
    used: int
    window_seconds: float
    seconds_until_free: tuple[float, ...]

    @property
    def may_ask(self) -> bool:
        """Whether a request may go out now."""
        return self.left > 0 or not self.certain

    @property
    def left(self) -> int:
        """Requests that the limit still has room for."""
        return max(0, self.limit - self.used)

    @property
    def first_wait(self) -> float:
        """Seconds after a refusal that names no time: when one more request has room, if the window is used evenly."""
        return (self.window_seconds - MARGIN_SECONDS) / self.limit

    def wait_for(self, requests: int) -> float:
        """Seconds until the last of so many requests may go out, if nobody else sends any."""
        over = requests - self.left
        if over <= 0:
            return 0.0
        rounds, rest = divmod(over - 1, self.limit)
        soonest = self.seconds_until_free[max(0, self.used - self.limit) :]
        first = soonest[rest] if rest < len(soonest) else self.window_seconds
        return first + rounds * self.window_seconds


class _Told(NamedTuple):
    """What the server said to one account, as it is stored."""

    hourly_limit: int | None = None
    window_seconds: float = DEFAULT_WINDOW_SECONDS
    limit_until: float = 0.0
    blocked_until: float = 0.0
    refusals: int = 0
    session_pages_until: float = 0.0


@dataclass
class Reservation:
    """One request; `entry` is its row in the ledger, None where it does not count, and `at` when it was taken."""

    account: "Account"
    entry: int | None
    at: float
    session_page: bool

    @property
    def counted(self) -> bool:
        return self.entry is not None

    def on_response(self, status: int, limits: RateLimits) -> None:
        """The server answered."""
        if status == 200 and self.counted:
            self.account.unblock(self.at)
        if status in _GIVEN_BACK:
            self.refund()
        self.account.learn(limits, refused=status == 429)

    def on_refusal(self, retry_after: float | None) -> float:
        """The server refused it for the hourly window; None: it did not say for how long. Returns for how long."""
        return self.account.block(retry_after, session_page=self.session_page)

    def refund(self) -> None:
        """It does not count."""
        if self.entry is not None:
            self.account.forget(self.entry)
            self.entry = None


class Ledger:
    """What all processes share.

    Args:
        kept: SQLite file, made when needed; None: a ledger of this object's own, in memory; or tables elsewhere, which
            have a clock of their own.
        clock: Seconds since the epoch.
        stop: Set when the run is asked to end.
    """

    def __init__(
        self,
        kept: Path | LedgerStore | None = None,
        clock: Callable[[], float] = time.time,
        stop: threading.Event | None = None,
    ) -> None:
        self.transaction: Callable[[], AbstractContextManager[Statements]]
        if kept is None or isinstance(kept, Path):
            self.clock, prefix = clock, ""
            self.transaction = LedgerFile(kept, LEDGER_SCHEMA.format(prefix=prefix), stop).transaction
        else:
            self.clock, self.transaction, prefix = kept.clock, kept.transaction, kept.prefix
        self.counted, self.told = f"{prefix}counted", f"{prefix}told"

    def account(self, base_url: str, project_id: str, api: str, hourly_limit: int | None = None) -> "Account":
        """The account of one project's "query" or "export" API at the host of a URL.

        `hourly_limit` is a quota that the user knows of; should the server name another, the lower one holds.
        """
        return Account(self, f"{api} {urlsplit(base_url).netloc} {project_id}", hourly_limit)


class Account:
    """The counted requests of one project to one API."""

    def __init__(self, ledger: Ledger, name: str, hourly_limit: int | None = None) -> None:
        self._ledger = ledger
        self._counted, self._told_table = ledger.counted, ledger.told
        self._name = name
        self._hourly_limit = hourly_limit

    def take(self, what: str, *, session_page: bool = False) -> Reservation:
        """Enter a request that is about to be sent.

        Args:
            what: Its name in errors.
            session_page: Whether it belongs to an open session.

        Raises:
            NotSentError: it would be too much, or the server said so; `retry_after` says when there is room again.
        """
        with self._ledger.transaction() as connection:
            now = self._ledger.clock()
            if session_page and not self._session_pages_count(connection):
                return Reservation(self, None, now, session_page)
            quota = self._quota(connection)
            if not quota.may_ask:
                raise self._too_much(what, quota, refused=self._told(connection).blocked_until > now)
            entry = self._new_entry(now)
            connection.execute(self._insert, entry)
            return Reservation(self, entry[0], now, session_page)

    def check_not_refused(self, what: str) -> None:
        """Stop a request that waited since it was entered, while another was refused for the hour.

        Raises:
            NotSentError: as `take`.
        """
        with self._ledger.transaction() as connection:
            if self._told(connection).blocked_until > self._ledger.clock():
                raise self._too_much(what, self._quota(connection), refused=True)

    def quota(self) -> QuotaStatus:
        """What is left now."""
        with self._ledger.transaction() as connection:
            return self._quota(connection)

    def session_pages_count(self) -> bool:
        """Whether the server was seen to count the pages after page 0."""
        with self._ledger.transaction() as connection:
            return self._session_pages_count(connection)

    def learn(self, limits: RateLimits, *, refused: bool = False) -> None:
        """Believe the limit that the server names, and that others use it too; a refusal is `block`'s."""
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
            quota = self._quota(connection)
            if limits.hourly_remaining == 0 and not refused:
                self._keep(connection, blocked_until=now + (limits.seconds_until_free or quota.first_wait))
            elif limits.hourly_remaining:
                unseen = quota.left - limits.hourly_remaining
                connection.executemany(self._insert, [self._new_entry(now) for _ in range(unseen)])

    def block(self, seconds: float | None, *, session_page: bool) -> float:
        """The server refused a request for the hour, for so many seconds if it said so. Returns for how many.

        What is refused while a block holds was under way when it began: together they are one refusal.
        """
        with self._ledger.transaction() as connection:
            now = self._ledger.clock()
            if session_page:
                self._keep(connection, session_pages_until=now + LEARNED_SECONDS)
            quota, told = self._quota(connection), self._told(connection)
            blocked = max(0.0, told.blocked_until - now)
            wait = seconds or blocked or quota.first_wait * 2.0 ** min(told.refusals, _MOST_DOUBLINGS)
            wait = min(wait, quota.window_seconds)
            self._keep(connection, blocked_until=now + wait, refusals=told.refusals + (not blocked))
            return wait

    def unblock(self, taken_at: float) -> None:
        """A request that was taken then succeeded: refusals before it are over."""
        with self._ledger.transaction() as connection:
            connection.execute(
                f"update {self._told_table} set refusals = 0 where account = ? and blocked_until <= ?",
                [self._name, taken_at],
            )

    def forget(self, entry: int) -> None:
        """Give a request back."""
        with self._ledger.transaction() as connection:
            connection.execute(f"delete from {self._counted} where id = ?", [entry])

    @property
    def _insert(self) -> str:
        return f"insert into {self._counted} (id, account, at) values (?, ?, ?)"

    def _new_entry(self, at: float) -> tuple[int, str, float]:
        """A row; a number that the table gave out would have to be asked for in two ways."""
        return secrets.randbits(_ID_BITS), self._name, at

    def _quota(self, connection: Statements) -> QuotaStatus:
        now, told = self._ledger.clock(), self._told(connection)
        window = told.window_seconds + MARGIN_SECONDS
        # What lies too far ahead was noted by a clock that was set back.
        blocked_until = min(told.blocked_until, now + max(window, DEFAULT_WINDOW_SECONDS))
        if blocked_until < told.blocked_until:
            self._keep(connection, blocked_until=blocked_until)
        counted = self._counted
        connection.execute(f"update {counted} set at = ? where account = ? and at > ?", [now, self._name, now])
        connection.execute(f"delete from {counted} where account = ? and at <= ?", [self._name, now - window])
        rows = connection.execute(f"select at from {counted} where account = ? order by at", [self._name]).fetchall()
        leaves = tuple(at + window - now for (at,) in rows)
        blocked = blocked_until - now
        limit = min((known for known in (told.hourly_limit, self._hourly_limit) if known), default=DEFAULT_LIMIT)
        if blocked > 0:
            leaves = tuple(max(blocked, seconds) for seconds in leaves[-limit:])
            leaves = (blocked,) * (limit - len(leaves)) + leaves
        # A setting above what the server once named: perhaps the plan is another one since.
        known = self._hourly_limit == limit or (self._hourly_limit is None and told.hourly_limit is not None)
        return QuotaStatus(
            limit=limit,
            learned=limit == told.hourly_limit,
            certain=known or blocked > 0,
            used=len(leaves),
            window_seconds=window,
            seconds_until_free=leaves,
        )

    def _told(self, connection: Statements) -> "_Told":
        columns = ", ".join(_Told._fields)
        row = connection.execute(f"select {columns} from {self._told_table} where account = ?", [self._name])
        told = _Told(*(row.fetchone() or ()))
        if told.hourly_limit is not None and told.limit_until >= self._ledger.clock():
            return told
        return told._replace(hourly_limit=None, window_seconds=DEFAULT_WINDOW_SECONDS)

    def _session_pages_count(self, connection: Statements) -> bool:
        return self._told(connection).session_pages_until > self._ledger.clock()

    def _keep(self, connection: Statements, **values: float) -> None:
        table = self._told_table
        connection.execute(f"insert into {table} (account) values (?) on conflict do nothing", [self._name])
        columns = ", ".join(f"{name} = ?" for name in values)
        connection.execute(f"update {table} set {columns} where account = ?", [*values.values(), self._name])

    def _too_much(self, what: str, quota: QuotaStatus, *, refused: bool) -> NotSentError:
        wait = quota.wait_for(1)
        at = time.strftime("%H:%M UTC", time.gmtime(self._ledger.clock() + wait))
        why = "Mixpanel says that the hour is spent" if refused else f"all {quota.limit} requests of the hour are spent"
        return NotSentError(
            f"{what}: {why}, asked again from {at} on, in {wait:.0f} s (on_quota=wait waits for it)", wait
        )
