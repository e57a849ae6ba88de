"""MixpanelClient: requests to one project, repeated where that helps.

Where http.py (one request), retry.py (again or not), quota.py (within the hour or not) and the two APIs meet. It keeps
nothing between calls but connections.
"""

import copy
import dataclasses
import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mixpanel_assets import arguments
from mixpanel_assets.errors import Cancelled, ConfigurationError, QuotaError, RestartError
from mixpanel_assets.mixpanel import engage, export, send_turn
from mixpanel_assets.mixpanel.answer import Answer, CancelledInFlightError
from mixpanel_assets.mixpanel.engage import EngagePage, ProfileQuery
from mixpanel_assets.mixpanel.export import EventsQuery
from mixpanel_assets.mixpanel.http import BadRequestError, Request, Transport, UnreachableError
from mixpanel_assets.mixpanel.project import Project
from mixpanel_assets.mixpanel.property_filter import SievedLines
from mixpanel_assets.mixpanel.quota import Account, Ledger, NotSentError
from mixpanel_assets.mixpanel.request_limits import DEFAULT_LIMITS, RequestLimits
from mixpanel_assets.mixpanel.retry import Retrier, RetryPolicy
from mixpanel_assets.mixpanel.served_days import KnownRefusalError, ServedDays
from mixpanel_assets.mixpanel.server_text import ServerText
from mixpanel_assets.mixpanel.start_rate import StartRate

_LOG = logging.getLogger(__name__)


class MixpanelClient:
    """Reads one Mixpanel project. Safe to share between threads.

    Args:
        project: Whose data, and the credentials.
        policy: When to try again.
        stop: Set it to end waits and further attempts at once.
        export_starts: Spaces the starts of exports; default: this process alone.
        ledger: Counts requests against the hourly quota; default: those of this client alone.
        hourly_queries, hourly_exports: Quotas of the project that are known to differ from 60.
        hash_salt: Makes hashes of properties hard to guess.
        limits: What one request may take.

    `queries` and `exports` are the accounts of the two APIs in the ledger; `profiles_source` and `events_source` say
    whose data they bring; `served_days` is what the server has refused of events.
    """

    def __init__(
        self,
        project: Project,
        *,
        policy: RetryPolicy | None = None,
        stop: threading.Event | None = None,
        export_starts: StartRate | None = None,
        ledger: Ledger | None = None,
        hourly_queries: int | None = None,
        hourly_exports: int | None = None,
        hash_salt: str = "",
        limits: RequestLimits = DEFAULT_LIMITS,
    ) -> None:
        self._limits = limits
        self._hash_salt = hash_salt
        self._project = project
        self._policy = policy or RetryPolicy()
        self._stop = stop or threading.Event()
        self._export_starts = export_starts or StartRate()
        self._transport = Transport(project, limits, self._stop)
        self.served_days = ServedDays()
        self.profiles_source = project.source(project.query_url)
        self.events_source = project.source(project.export_url)
        ledger = ledger or Ledger()
        self.queries = ledger.account(project.query_url, project.project_id, "query", hourly_queries)
        self.exports = ledger.account(project.export_url, project.project_id, "export", hourly_exports)

    def query_engage_page(
        self,
        page: int,
        *,
        session_id: str | None = None,
        where: str | None = None,
        cohort_id: int | None = None,
        output_properties: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """One page of profiles, as the full response.

        Args:
            page: 0-based index; pages after 0 need the session of page 0.
            session_id: `session_id` of page 0's response.
            where: Filter expression.
            cohort_id: Only members of this cohort.
            output_properties: Only these properties.

        Returns:
            The decoded response: `results` (`{"$distinct_id", "$properties"}` each), `page`, `page_size`, `session_id`,
            `total` (page 0 at least), `status`.

        Raises:
            MixpanelError: no good answer came, even after retries.
            ConfigurationError: the filters contradict each other.

        Source: Mixpanel's Engage query API.
        """
        query = ProfileQuery(
            where=None if where is None else arguments.text("where", where),
            cohort_id=None if cohort_id is None else arguments.whole_number("cohort_id", cohort_id),
            output_properties=(
                None if output_properties is None else tuple(arguments.names("output_properties", output_properties))
            ),
        )
        query.check()
        page = arguments.whole_number("page", page)
        retrier = self.retrier(_LOG)

        def attempt() -> bytes:
            with self._ask(query, page, session_id, retrier) as answer:
                body = b"".join(self._body(answer))
            project_id = self._project.project_id
            engage.parse_page(body, page, session_id=session_id, project_id=project_id, texts=self.texts)
            return body

        payload: dict[str, Any] = json.loads(retrier.call(attempt))
        return payload

    def fetch_page(
        self,
        query: ProfileQuery,
        page: int,
        session_id: str | None,
        retrier: Retrier,
        accept: Callable[[EngagePage], None] = lambda page: None,
        folder: Path | None = None,
    ) -> EngagePage:
        """One page, checked. `accept` raises a TransientError on a page that should be asked for again. The rows of a
        large page lie in a file without a name in `folder`.

        Raises:
            MixpanelError: no good answer came, even after retries.
            ConfigurationError: the query was made for another project.
        """
        _refuse_other(query.source, self.profiles_source)

        def attempt() -> EngagePage:
            try:
                with self._ask(query, page, session_id, retrier) as answer:
                    parsed = engage.read_page(
                        self._body(answer),
                        page,
                        query.kept,
                        self._hash_salt,
                        session_id=session_id,
                        project_id=self._project.project_id,
                        texts=self.texts,
                        folder=folder,
                        most_row_mb=self._limits.max_line_mb,
                    )
            except BadRequestError as error:
                if session_id is None:
                    raise
                # Page 0 was accepted with the same filters, so it is the session that Mixpanel no longer knows.
                raise RestartError(f"{error} (page 0 was accepted, so the session is taken for lost)") from None
            accept(parsed)
            return parsed

        return retrier.call(attempt)

    def save_export(
        self, query: EventsQuery, from_date: str, to_date: str, file: BinaryIO, retrier: Retrier | None = None
    ) -> int:
        """Write the events of a range of days (inclusive ISO dates) to a file, with one request. Returns the lines.

        Raises:
            EdgeRefusedError: the server does not serve the first or the last of these days.
            MixpanelError: the export did not come, or not whole; `retrier` knows whether to try again.
            Cancelled: the run was asked to end.
            ConfigurationError: the query was made for another project.
        """
        _refuse_other(query.source, self.events_source)
        request = export.export_request(self._project.export_url, query, from_date, to_date)

        @contextmanager
        def turn() -> Iterator[None]:
            with self._export_starts.turn(self._stop):
                # Others may have been refused meanwhile.
                self.exports.check_not_refused(request.what)
                self.served_days.check((from_date, to_date), request.what)
                yield

        with send_turn.taking(turn):
            answer = self._send(request, self.exports, retrier)
        if query.kept.keeps_all:
            return export.save_body(answer, file, self._limits)
        sieved = SievedLines(file, query.kept, self._hash_salt)
        lines = export.save_body(answer, sieved, self._limits)
        sieved.finish()
        return lines

    def waiting_for_quota(self) -> "MixpanelClient":
        """This client, its connections and its ledger, but waiting where the hour is spent instead of giving up."""
        other = copy.copy(self)
        other._policy = dataclasses.replace(self._policy, waits_for_quota=True)
        return other

    def retrier(self, log: logging.Logger) -> Retrier:
        """A fresh count of attempts for one page or chunk."""
        return Retrier(self._policy, self._stop, log)

    @property
    def texts(self) -> ServerText:
        """What makes the server's texts fit to be shown and kept."""
        return self._transport.texts

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def _body(self, answer: Answer) -> Iterator[bytes]:
        advice = "ask for smaller pages (page_size), or raise max_page_mb"
        return answer.blocks(self._limits.max_page_mb, advice, framed=False)

    def _ask(self, query: ProfileQuery, page: int, session_id: str | None, retrier: Retrier) -> Answer:
        request = engage.page_request(self._project.query_url, query, page, session_id)
        return self._send(request, self.queries, retrier, session_page=session_id is not None)

    def _send(
        self,
        request: Request,
        account: Account,
        retrier: Retrier | None,
        *,
        session_page: bool = False,
    ) -> Answer:
        """The one way out: the ledger is asked first, and told what the server says of limits."""
        ticket = account.take(request.what, session_page=session_page)
        try:
            return self._transport.send(request, ticket.heard)
        except NotSentError:
            ticket.refund()
            raise
        except QuotaError as error:
            error.retry_after = ticket.refused(error.retry_after)
            raise
        except (UnreachableError, Cancelled, KnownRefusalError) as error:
            # The server has counted one that it was about to answer.
            if not isinstance(error, CancelledInFlightError):
                ticket.refund()
            raise
        finally:
            if retrier is not None:
                retrier.counted_requests += ticket.counted


def _refuse_other(asked: str | None, here: str) -> None:
    """A run that is executed again, or takes up another, may find another project in the environment."""
    if asked not in (None, here):
        raise ConfigurationError(f"the sync is of {asked}, and the environment names {here}: set it back, or sync anew")
