"""Fetches what memory.py serves, in a process that does nothing else: `python -m ... pages|page|export FOLDER`.

Prints what came of it, and on the last line the peak memory in kB.
"""

import logging
import sys
import threading
from pathlib import Path

from mixpanel_assets import settings
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.retry import RetryPolicy
from mixpanel_assets.errors import MixpanelError
from mixpanel_assets.storage.staging import LocalStaging
from mixpanel_assets.streams.events.fetch import save_export
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.profiles.fetch import fetch_page
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.profiles.stream import PROFILE_PAGES
from mixpanel_assets.streams.snapshot.page import Page
from mixpanel_assets.streams.snapshot.staged import SnapshotFolder

_LOG = logging.getLogger(__name__)


def pages(client: MixpanelClient, root: Path, numbers: range) -> str:
    """Pages at the same time, staged; page 0 is the session's, and not among them."""
    first = fetch_page(client, ProfileQuery(page_size=1), 0, None, client.retrier(_LOG))
    at_once = [threading.Thread(target=page, args=(client, root, number, first.session_id)) for number in numbers]
    for thread in at_once:
        thread.start()
    for thread in at_once:
        thread.join()
    return f"stored {len(list(root.rglob('page-*.json')))} pages"


def page(client: MixpanelClient, root: Path, number: int, session_id: str | None) -> Page:
    """One page, staged."""
    came = fetch_page(client, ProfileQuery(), number, session_id, client.retrier(_LOG), folder=root)
    SnapshotFolder(LocalStaging(root), PROFILE_PAGES, "s").write_page(came, 1, ())
    return came


def export(client: MixpanelClient, root: Path) -> str:
    """One day, into a file."""
    with (root / "export").open("wb") as file:
        return f"stored {save_export(client, EventsQuery(), '2026-01-01', '2026-01-01', file)} lines"


def main(case: str, root: Path) -> None:
    """Fetch, and print what came of it."""
    root.mkdir()
    client = MixpanelClient(settings.project(), policy=RetryPolicy(max_attempts=1))
    try:
        if case == "pages":
            print(pages(client, root, range(1, 6)))
        elif case == "page":
            print("stored", page(client, root, 0, None).served, "rows")
        else:
            print(export(client, root))
    except MixpanelError as error:
        print(error)
    # Of this program alone: what getrusage tells begins with the memory of the process that started it.
    status = Path("/proc/self/status").read_text().splitlines()
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
