"""One page of profiles, asked for until it is good."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mixpanel_assets import arguments
from mixpanel_assets.client.answer import Answer
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.http import BadRequestError
from mixpanel_assets.client.project import refuse_other
from mixpanel_assets.client.retry import Retrier
from mixpanel_assets.errors import RestartError
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.profiles.wire import page_request, parse_page, read_page
from mixpanel_assets.streams.snapshot.page import Page

_LOG = logging.getLogger(__name__)


def fetch_page(
    client: MixpanelClient,
    query: ProfileQuery,
    page: int,
    session_id: str | None,
    retrier: Retrier,
    accept: Callable[[Page], None] = lambda page: None,
    folder: Path | None = None,
) -> Page:
    """One page, checked. `accept` raises a TransientError on a page that should be asked for again. The rows of a large
    page lie in a file without a name in `folder`.

    Raises:
        MixpanelError: no good answer came, even after retries.
        ConfigurationError: the query was made for another project.
    """
    refuse_other(query.source, client.profiles_source)

    def attempt() -> Page:
        try:
            with _ask(client, query, page, session_id, retrier) as answer:
                parsed = read_page(
                    _body(client, answer),
                    page,
                    query.kept,
                    client.hash_salt,
                    session_id=session_id,
                    project_id=client.project.project_id,
                    texts=client.texts,
                    folder=folder,
                    most_row_mb=client.limits.max_line_mb,
                )
        except BadRequestError as error:
            if session_id is None:
                raise
            # Page 0 was accepted with the same filters, so it is the session that Mixpanel no longer knows.
            raise RestartError(f"{error} (page 0 was accepted, so the session is taken for lost)") from None
        accept(parsed)
        return parsed

    return retrier.call(attempt)


def query_engage_page(
    client: MixpanelClient,
    page: int,
    session_id: str | None,
    where: str | None,
    cohort_id: int | None,
    output_properties: Sequence[str] | None,
) -> dict[str, Any]:
    """One page as the full response: what `MixpanelClient.query_engage_page` documents."""
    query = ProfileQuery(
        where=None if where is None else arguments.text("where", where),
        cohort_id=None if cohort_id is None else arguments.whole_number("cohort_id", cohort_id),
        output_properties=(
            None if output_properties is None else tuple(arguments.names("output_properties", output_properties))
        ),
    )
    query.check()
    page = arguments.whole_number("page", page)
    retrier = client.retrier(_LOG)

    def attempt() -> bytes:
        with _ask(client, query, page, session_id, retrier) as answer:
            body = b"".join(_body(client, answer))
        parse_page(body, page, session_id=session_id, project_id=client.project.project_id, texts=client.texts)
        return body

    payload: dict[str, Any] = json.loads(retrier.call(attempt))
    return payload


def _ask(client: MixpanelClient, query: ProfileQuery, page: int, session_id: str | None, retrier: Retrier) -> Answer:
    request = page_request(client.project.query_url, query, page, session_id)
    return client.send(request, client.queries, retrier, session_page=session_id is not None)


def _body(client: MixpanelClient, answer: Answer) -> Iterator[bytes]:
    advice = "ask for smaller pages (page_size), or raise max_page_mb"
    return answer.blocks(client.limits.max_page_mb, advice, framed=False)
