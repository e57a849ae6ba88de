"""A toy of the project's shape: one op that names the pages, one op per page that sleeps, one op that collects.

The figures come from the environment, as the command that runs it takes no arguments of its own.
"""

import os
import time

import dagster as dg

from mixpanel_assets.executor import threaded_executor

PAGES = int(os.environ.get("TOY_PAGES", "60"))
SECONDS = float(os.environ.get("TOY_SECONDS", "1"))
POOL = os.environ.get("TOY_POOL", "mixpanel_engage")


@dg.op(out=dg.DynamicOut(int), pool=POOL)
def plan_pages():
    print(f"toy: first op at {time.time():.3f}", flush=True)
    for page in range(PAGES):
        yield dg.DynamicOutput(page, mapping_key=f"p{page:05d}")


@dg.op(pool=POOL)
def fetch_page(page: int) -> int:
    time.sleep(SECONDS)
    return page


@dg.op
def collect_pages(pages: list[int]) -> int:
    return len(pages)


@dg.graph_asset
def toy():
    return collect_pages(plan_pages().map(fetch_page).collect())


defs = dg.Definitions(assets=[toy], executor=threaded_executor, resources={"io_manager": dg.mem_io_manager})
