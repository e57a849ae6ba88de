"""What people do in the Dagster UI, done in a real browser: materialize, look, retry, turn a schedule on.

MIXPANEL_ASSETS_SCREENSHOTS=1 renews the pictures of README in `.readme`.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import duckdb
import pytest
import requests

from mixpanel_assets.definitions import build_defs
from mixpanel_assets.sandbox import Fault, Limits, Population, Sandbox
from mixpanel_assets_tests.dagster_dev import REPOSITORY, dagster_dev, in_session

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# No GPU and no calls home; in a container the browser runs as root, which it refuses with its own sandbox.
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_PATIENCE = 60_000
_FAILING = 7
# Asked within the page, which on a busy machine answers questions from outside only every few seconds.
_FIVE_SEEN = """() => {
    const shown = document.body.textContent.match(/Executing \\((\\d+)\\)/);
    window.most = Math.max(window.most || 0, shown ? Number(shown[1]) : 0);
    return window.most >= 5;
}"""
_HOSTILE = (
    "see www.evil.example or https://evil.example/a, me@evil.example | ![p](http://evil.example/p.png) "
    "<img src=http://evil.example/p.png> <b>bold</b> [l](http://evil.example) `c` **b** \\\\| <https://evil.example> ``"
)
# Elements that only that text can have made.
_FOREIGN = """() => [...document.querySelectorAll("a, img, b, strong, em")]
    .filter(found => /evil.example/.test(found.href || found.src) || /^b(old)?$/.test(found.textContent))
    .map(found => found.outerHTML)"""
_CONFIG = """ops:
  mixpanel__profiles:
    config:
      max_removed_fraction: 0.9
resources:
  mixpanel:
    config:
      max_attempts: 2
      retry_base_seconds: 0.2
"""

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.name == "nt", reason="the browser test ends dagster dev by its POSIX session"),
    pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium on this machine"),
]


@dataclass(frozen=True)
class Ui:
    """The browser's page, and where the UI is."""

    page: "Page"
    url: str

    def open(self, path: str) -> None:
        self.page.goto(f"{self.url}{path}", wait_until="domcontentloaded", timeout=_PATIENCE)

    def picture(self, name: str) -> None:
        """Keep what is seen now, if pictures are asked for."""
        if os.environ.get("MIXPANEL_ASSETS_SCREENSHOTS"):
            folder = REPOSITORY / ".readme"
            folder.mkdir(exist_ok=True)
            self.page.screenshot(path=folder / f"{name}.png")


def test_materialize_fail_retry_and_schedule(tmp_path: Path) -> None:
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    population = Population(profiles=1700, seed=7)
    faults = [Fault("engage", "status:500", page=_FAILING, times=None)]
    with (
        Sandbox(population, latency=4.0, page_size=100, faults=faults, limits=Limits(enforce=True)) as sandbox,
        dagster_dev(tmp_path, "mixpanel_assets_tests.every_minute", sandbox.environment) as url,
        _browser() as page,
    ):
        ui = Ui(page, url)
        _materialize_with_config(ui)
        _watch_five_at_a_time(ui, sandbox)
        _see_what_failed(ui)
        sandbox.faults = []
        _press_retry(ui)
        _see_that_nothing_failed(ui)
        _turn_schedule_on(ui)
        assert not sandbox.errors


def test_materialize_works_in_the_ui_of_the_demo_until_ctrl_c(tmp_path: Path) -> None:
    """Red when the stand-in ends before the UI does, and when the link is not the asset's."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    command = [sys.executable, "-m", "mixpanel_assets", "demo", "--ui", "--profiles", "2000", "--latency", "0.1"]
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path)}
    with (
        in_session(command, env=environment, stdout=subprocess.PIPE) as process,
        _browser() as page,
    ):
        assert process.stdout is not None
        lines = (line.decode().strip() for line in process.stdout)
        ui = Ui(page, next(line for line in lines if line.startswith("http://")))
        ui.open("")
        page.get_by_text("profiles_complete").first.or_(page.get_by_text("One row per user profile").first).wait_for()
        page.get_by_role("button", name="Materialize").first.click()
        page.get_by_text("View", exact=True).first.click()
        page.wait_for_url("**/runs/**")
        page.get_by_text("Success", exact=True).first.wait_for(timeout=2 * _PATIENCE)
        process.send_signal(signal.SIGTERM)
        assert process.wait(_PATIENCE / 1000) == 0
    with duckdb.connect(str(tmp_path / "demo" / "mixpanel_data.duckdb")) as connection:
        typed = "select count(*) from mixpanel.profiles_wide union all select count(*) > 0 from mixpanel.events_wide"
        assert connection.execute(typed).fetchall() == [(2000,), (1,)]


@pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")
def test_no_text_of_a_server_becomes_a_link_a_picture_or_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red without code in tables and in descriptions of checks, and without the space in addresses (the log)."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    faults = [Fault("engage", "status:403", page=2, times=1, body=json.dumps({"error": _HOSTILE}))]
    population = Population(profiles=30, seed=7)
    population.add("x", {_HOSTILE: 1})
    with (
        Sandbox(population, page_size=10, faults=faults) as sandbox,
        dagster_dev(tmp_path, "mixpanel_assets_tests.every_minute", sandbox.environment) as url,
        _browser() as page,
    ):
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for name, value in {**sandbox.environment, "DAGSTER_HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        ui = Ui(page, url)
        _materialize(tmp_path, "mixpanel/profiles")
        _see_no_markup(ui, "/assets/mixpanel/profiles?view=events", "seconds waited")
        _see_no_markup(ui, f"/runs/{_latest_run(url)}?levels=error", "failed: page 2")
        _materialize(tmp_path, "mixpanel/profiles", "mixpanel/profile_properties")
        population.replace("x", {})
        _materialize(tmp_path, "mixpanel/profiles", "mixpanel/profile_properties")
        _see_no_markup(ui, "/assets/mixpanel/profile_properties?view=events", "different values")
        _see_no_markup(ui, "/assets/mixpanel/profile_properties?view=checks", ": gone")
        assert not [address for address in asked if "evil.example" in address]


def _see_no_markup(ui: Ui, path: str, words: str) -> None:
    """Open a page that shows the hostile text beside these words."""
    ui.open(path)
    shown, button = ui.page.get_by_text(words).first, ui.page.get_by_text("Show Markdown").first
    shown.or_(button).first.wait_for()
    if not shown.is_visible():  # A long one is shown on request.
        button.click()
    ui.page.get_by_text("www.evil.example").first.wait_for()
    assert ui.page.evaluate(_FOREIGN) == [], path


def _materialize(home: Path, *assets: str) -> None:
    """As runs of this process in the instance that the UI shows."""
    # In a thread of its own: in this one, playwright's event loop is at work.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_materialize_here, home, assets).result()


def _materialize_here(home: Path, assets: Sequence[str]) -> None:
    job = build_defs().resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for asset in assets:
            key = dg.AssetKey(asset.split("/"))
            job.execute_in_process(instance=instance, asset_selection=[key], raise_on_error=False)


def _latest_run(url: str) -> str:
    query = "{ runsOrError(limit: 1) { ... on Runs { results { runId } } } }"
    answer = requests.post(f"{url}/graphql", json={"query": query}, timeout=30).json()
    return str(answer["data"]["runsOrError"]["results"][0]["runId"])


@contextmanager
def _browser() -> "Iterator[Page]":
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(_PATIENCE)
        try:
            yield page
        finally:
            browser.close()


def _materialize_with_config(ui: Ui) -> None:
    """Open the asset, type a config into its launchpad, materialize."""
    ui.open("/assets/mixpanel/profiles")
    materialize = ui.page.get_by_role("button", name="Materialize").first
    ui.page.get_by_text("One row per user profile").first.wait_for()
    ui.page.get_by_text("Owners", exact=True).wait_for()
    ui.picture("asset")
    materialize.locator("xpath=following::button[1]").click()
    ui.page.get_by_text("Open launchpad").click()
    _type_config(ui.page)
    ui.picture("launchpad")
    ui.page.get_by_role("dialog").get_by_role("button", name="Materialize").click()
    ui.page.wait_for_url("**/runs/**")
    _toggle_size_of_chart(ui.page)


def _toggle_size_of_chart(page: "Page") -> None:
    """All of the window for the Gantt chart, or its upper third."""
    page.get_by_role("button", name="Re-execute all").locator("xpath=preceding::button[1]").click()


def _type_config(page: "Page") -> None:
    editor = page.locator(".CodeMirror").first
    # The defaults arrive after the editor; typed before, the text would be replaced by them.
    editor.get_by_text("max_removed_fraction").wait_for()
    editor.click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.press("Delete")
    page.keyboard.insert_text(_CONFIG)
    editor.get_by_text("retry_base_seconds").wait_for()
    page.get_by_text("No errors").first.wait_for()


def _watch_five_at_a_time(ui: Ui, sandbox: Sandbox) -> None:
    """The Gantt chart's side panel counts the steps under way. Pages answer after 3 s until it has shown five."""
    ui.page.wait_for_function(_FIVE_SEEN, polling=100)
    # The bars grow with time; and the count must not go beyond five.
    ui.page.wait_for_timeout(2500)
    ui.picture("five-at-a-time")
    ui.page.evaluate(_FIVE_SEEN)
    sandbox.latency = 0.3
    ui.page.get_by_text("Failure", exact=True).first.wait_for()
    assert max(request.in_flight for request in sandbox.journal.requests) <= 5
    assert ui.page.evaluate("window.most") == 5
    _toggle_size_of_chart(ui.page)
    # A click on the step that failed shows its part of the log.
    ui.page.get_by_text("check_profiles", exact=True).first.click()
    ui.page.get_by_text(f"1 of 17 pages are missing: {_FAILING}").first.wait_for()
    ui.picture("failed-run")


def _see_what_failed(ui: Ui) -> None:
    """The asset shows which page failed, why, and the picture of the sync."""
    ui.open("/assets/mixpanel/profiles?view=events")
    table = ui.page.get_by_role("table").first
    table.get_by_text("failed_page_indices").wait_for()
    assert re.search(rf"\[\s*{_FAILING}\s*\]", _row(ui.page, "failed_page_indices").inner_text())
    assert "Mixpanel answered 500" in _row(ui.page, "failures").inner_text()
    image = _row(ui.page, "timeline").locator("img")
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    ui.picture("partial-failure")


def _press_retry(ui: Ui) -> None:
    """Launch the job that fetches only what failed, and see it green."""
    ui.open("/locations/mixpanel_assets/jobs/retry_failed_profile_pages/playground")
    ui.page.get_by_role("button", name="Launch Run").click()
    ui.page.wait_for_url("**/runs/**")
    ui.page.get_by_text("Success", exact=True).first.wait_for()


def _see_that_nothing_failed(ui: Ui) -> None:
    ui.open("/assets/mixpanel/profiles?view=events")
    assert re.search(r"\[\s*\]", _row(ui.page, "failed_page_indices").inner_text())
    assert _row(ui.page, "dagster/row_count").inner_text().split()[-1] in ("1700", "1,700")
    ui.open("/assets/mixpanel/profiles?view=checks")
    ui.page.get_by_text("all 1700 profiles are stored").wait_for()
    ui.picture("checks")


def _turn_schedule_on(ui: Ui) -> None:
    """The switch is all it takes: the next minute's tick starts a run."""
    ui.open("/locations/mixpanel_assets/schedules/hourly_profiles_schedule")
    switch = ui.page.locator("input[type=checkbox]").first
    switch.wait_for(state="attached")
    # The box itself lies outside of what is seen; the switch is drawn beside it.
    switch.evaluate("box => box.click()")
    ui.page.get_by_text(re.compile("1 requested|1 run requested")).first.wait_for(timeout=2 * _PATIENCE)
    ui.picture("schedule")
    ui.open("/locations/mixpanel_assets/jobs/sync_profiles/runs")
    ui.page.get_by_text("Success", exact=True).first.wait_for()


def _row(page: "Page", key: str) -> "Locator":
    """The row of a table of metadata."""
    row = page.get_by_role("row").filter(has=page.get_by_text(key, exact=True)).first
    row.wait_for()
    return row
