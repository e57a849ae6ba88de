"""The events of a range of days, asked for once, into a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from mixpanel_assets.client import send_turn
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.project import refuse_other
from mixpanel_assets.client.property_filter import FilteredLines
from mixpanel_assets.client.retry import Retrier
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.events.wire import export_request, save_body


def save_export(
    client: MixpanelClient,
    query: EventsQuery,
    from_date: str,
    to_date: str,
    file: BinaryIO,
    retrier: Retrier | None = None,
) -> int:
    """Write the events of a range of days (inclusive ISO dates) to a file, with one request. Returns the lines.

    Raises:
        EdgeRefusedError: the server does not serve the first or the last of these days.
        MixpanelError: the export did not come, or not whole; `retrier` knows whether to try again.
        Cancelled: the run was asked to end.
        ConfigurationError: the query was made for another project.
    """
    refuse_other(query.source, client.events_source)
    request = export_request(client.project.export_url, query, from_date, to_date)

    @contextmanager
    def turn() -> Iterator[None]:
        with client.export_starts.turn(client.stop):
            # Others may have been refused meanwhile.
            client.exports.check_not_refused(request.what)
            client.served_days.check((from_date, to_date), request.what)
            yield

    with send_turn.taking(turn):
        answer = client.send(request, client.exports, retrier)
    if query.kept.keeps_all:
        return save_body(answer, file, client.limits)
    filtered = FilteredLines(file, query.kept, client.hash_salt)
    lines = save_body(answer, filtered, client.limits)
    filtered.finish()
    return lines
