"""MixpanelClient: requests to one project, repeated where that helps.

Where http.py (one request), retry.py (again or not), quota.py (within the hour or not) and the two APIs meet. It keeps
nothing between calls but connections.
"""

import copy
import dataclasses
import logging
import threading
from collections.abc import Sequence
from typing import Any

from mixpanel_assets.client import start_rate
from mixpanel_assets.client.answer import Answer, CancelledInFlightError
from mixpanel_assets.client.http import Request, Transport, UnreachableError
from mixpanel_assets.client.project import Project
from mixpanel_assets.client.quota import Account, Ledger, NotSentError
from mixpanel_assets.client.request_limits import DEFAULT_LIMITS, RequestLimits
from mixpanel_assets.client.retry import Retrier, RetryPolicy
from mixpanel_assets.client.served_days import KnownRefusalError, ServedDays
from mixpanel_assets.client.server_text import ServerText
from mixpanel_assets.client.start_rate import StartRate
from mixpanel_assets.errors import Cancelled, QuotaError

_LOG = logging.getLogger(__name__)


class MixpanelClient:
    """Reads one Mixpanel project. Safe to share between threads.

    Args:
        project: Whose data, and the credentials.
        policy: When to try again.
        stop: Set it to end waits and further attempts at once.
        export_starts: Spaces the starts of exports; default: this process alone.
        schema_starts: Likewise of requests for the schemas of Lexicon.
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
        schema_starts: StartRate | None = None,
        ledger: Ledger | None = None,
        hourly_queries: int | None = None,
        hourly_exports: int | None = None,
        hash_salt: str = "",
        limits: RequestLimits = DEFAULT_LIMITS,
    ) -> None:
        self.limits = limits
        self.hash_salt = hash_salt
        self.project = project
        self._policy = policy or RetryPolicy()
        self.stop = stop or threading.Event()
        self.export_starts = export_starts or StartRate()
        self.schema_starts = schema_starts or start_rate.schema_starts()
        self._transport = Transport(project, limits, self.stop)
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
        # People know this function here: the one stream that the client names.
        from mixpanel_assets.streams.profiles.fetch import query_engage_page

        return query_engage_page(self, page, session_id, where, cohort_id, output_properties)

    def waiting_for_quota(self) -> "MixpanelClient":
        """This client, its connections and its ledger, but waiting where the hour is spent instead of giving up."""
        other = copy.copy(self)
        other._policy = dataclasses.replace(self._policy, waits_for_quota=True)
        return other

    def retrier(self, log: logging.Logger) -> Retrier:
        """A fresh count of attempts for one page or chunk."""
        return Retrier(self._policy, self.stop, log)

    @property
    def texts(self) -> ServerText:
        """What makes the server's texts fit to be shown and kept."""
        return self._transport.texts

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def send(
        self,
        request: Request,
        account: Account | None,
        retrier: Retrier | None,
        *,
        session_page: bool = False,
    ) -> Answer:
        """The one way out: the ledger is asked first, and told what the server says of limits. Without an account the
        request counts nowhere."""
        if account is None:
            return self._transport.send(request)
        reservation = account.take(request.what, session_page=session_page)
        try:
            return self._transport.send(request, reservation.on_response)
        except NotSentError:
            reservation.refund()
            raise
        except QuotaError as error:
            error.retry_after = reservation.on_refusal(error.retry_after)
            raise
        except (UnreachableError, Cancelled, KnownRefusalError) as error:
            # The server has counted one that it was about to answer.
            if not isinstance(error, CancelledInFlightError):
                reservation.refund()
            raise
        finally:
            if retrier is not None:
                retrier.counted_requests += reservation.counted
