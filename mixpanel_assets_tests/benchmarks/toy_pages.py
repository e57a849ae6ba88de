"""A toy of the project's shape: one op that fetches page 0 and names the others, one op per page, one op that collects.

Every page is a sleep. The figures come from the environment, as the command that runs it takes none of its own.
"""

import os
import time
from collections.abc import Iterator

import dagster as dg

from mixpanel_assets.executor import threaded_executor
from mixpanel_assets.pools import ENGAGE_POOL

PAGES = int(os.environ.get("TOY_PAGES", "60"))
SECONDS = float(os.environ.get("TOY_SECONDS", "1"))


@dg.op(out=dg.DynamicOut(int), pool=ENGAGE_POOL)
def first_page() -> Iterator[dg.DynamicOutput[int]]:
    print(f"toy: first op at {time.time():.3f}", flush=True)  # executor_overhead.py reads it
    time.sleep(SECONDS)
    for page in range(1, PAGES + 1):
        yield dg.DynamicOutput(page, mapping_key=f"p{page:05d}")


@dg.op(pool=ENGAGE_POOL)
def fetch_page(page: int) -> int:
    time.sleep(SECONDS)
    return page


@dg.op
def collect_pages(pages: list[int]) -> int:
    return len(pages)


@dg.graph_asset
def toy() -> int:
    return collect_pages(first_page().map(fetch_page).collect())  # type: ignore[no-any-return]  # Dagster's graph types


defs = dg.Definitions(assets=[toy], executor=threaded_executor, resources={"io_manager": dg.mem_io_manager})
