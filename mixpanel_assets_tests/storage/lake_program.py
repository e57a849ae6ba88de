"""What the tests of DuckLakes run in processes that have DuckDB's extensions. Prints JSON.

Commands: `sync`, all streams into a file and into a DuckLake, and all that is read of them; `check`, what is said of
places before the first request; `forget`, what is left of earlier states.
"""

import json
import os
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from mixpanel_assets.cli.main import run
from mixpanel_assets.errors import MixpanelAssetsError
from mixpanel_assets.identities.publish import IdentitiesOrder
from mixpanel_assets.identities.publish import publish as identities
from mixpanel_assets.properties.publish import CatalogueOrder
from mixpanel_assets.properties.publish import publish as catalogue
from mixpanel_assets.properties.sources import EVENTS
from mixpanel_assets.resources import warehouse_at
from mixpanel_assets.sandbox import Fault, Limits, Population, Sandbox
from mixpanel_assets.storage import identity
from mixpanel_assets.storage.ducklake import DuckLake
from mixpanel_assets.storage.warehouse import count

DAYS = ["--from", "2026-01-01", "--to", "2026-01-02"]
# What two syncs cannot have alike, beside the columns that say when: the type of those is one that no other has.
_OF_THE_SYNC = {"first_seen", "last_seen", "snapshot_id"}
_WHEN = "TIMESTAMP WITH TIME ZONE"


def sync(home: str) -> dict[str, Any]:
    """All streams into the file and into the lake, each with faults and retries."""
    population = Population(profiles=45, seed=2, events_per_day=40)
    places = {"file": {"MP_DATABASE": f"{home}/file.duckdb"}, "lake": json.loads(os.environ["LAKE"])}
    done = {}
    with Sandbox(population, page_size=10, limits=Limits(enforce=False)) as sandbox:
        os.environ.update(sandbox.environment)
        for name, place in places.items():
            os.environ.pop("MP_DATA_PATH", None)
            os.environ.update({**place, "DAGSTER_HOME": f"{home}/{name}"})
            done[name] = {"codes": _syncs(sandbox, f"{home}/out-{name}"), "tables": _tables()}
            for file in Path(f"{home}/out-{name}").iterdir():
                rows = map(json.loads, file.read_text().splitlines())
                done[name][file.name] = sorted(json.dumps({**row, "synced_at": ""}) for row in rows)
    return done


def _syncs(sandbox: Sandbox, out: str) -> list[Any]:
    sandbox.faults = [
        Fault("engage", "status:403", page=1, times=None),
        Fault("export", "status:403", from_date="2026-01-02", times=None),
    ]
    codes = [
        _mp("fetch", "profiles", "--parallel", "--history"),
        _mp("fetch", "events", *DAYS, "--parallel", "--chunk-days", "1"),
    ]
    told = [json.loads(_said("status"))]
    sandbox.faults = []
    codes += [_mp("retry", "profiles"), _mp("retry", "events")]
    codes += [_mp("fetch", "cohort_members")]
    with warehouse_at("", print).transaction() as connection:
        catalogue(connection, CatalogueOrder(EVENTS, ("*",), unfold_nested=True, typed_table=True))
        identities(connection, IdentitiesOrder())
    told += [json.loads(_said("status"))]
    codes += [_mp("export", "profiles_wide", "--to", out, "--format", "jsonl")]
    missing = [(said["profiles"]["failed_page_indices"], said["events"]["failed_date_ranges"]) for said in told]
    return [*codes, *missing]


def _mp(*command: str) -> int:
    with redirect_stdout(StringIO()):
        return run(list(command))


def _said(*command: str) -> str:
    with redirect_stdout(StringIO()) as said:
        run(list(command))
    return said.getvalue()


def _tables() -> dict[str, Any]:
    """Each table and view: its columns with their types, and its rows, less what two syncs cannot have alike."""
    with warehouse_at("", print).reading() as connection:
        names = connection.execute(
            "select table_name from information_schema.tables where table_catalog = current_database() order by 1"
        ).fetchall()
        found = {}
        for (table,) in names:
            if table == identity.TABLE:
                continue
            columns = {column: kind for column, kind, *_ in connection.execute(f'describe "{table}"').fetchall()}
            alike = [name for name, kind in columns.items() if name not in _OF_THE_SYNC and kind != _WHEN]
            listed = ", ".join(f'"{column}"' for column in alike)
            rows = connection.execute(f'select {listed} from "{table}"').fetchall()
            found[table] = [columns, sorted(map(repr, rows))]
    return found


def check(cases: str) -> list[str]:
    """What is said of each place."""
    said = []
    for place in json.loads(cases):
        for name in ("MP_DATABASE", "MP_DATA_PATH", "PGPASSWORD", "AWS_ENDPOINT_URL"):
            os.environ.pop(name, None)
        os.environ.update(place)
        try:
            warehouse_at("", print).check_ready()
            said.append("")
        except MixpanelAssetsError as error:
            said.append(str(error))
    return said


def forget(_: str) -> list[Any]:
    """States and profiles before and after all earlier states are forgotten; and what was said."""
    said: list[str] = []
    lake = warehouse_at("", said.append)
    assert isinstance(lake, DuckLake)
    lake.check_ready()
    numbers = []
    for days in (30, 0):
        lake.forget_states(days)
        with lake.connection() as connection:
            states = count(connection, "select count(*) from lake.snapshots()")
            numbers.append([states, count(connection, "select count(*) from lake.mixpanel.profiles")])
    return [*numbers, said]


if __name__ == "__main__":
    print(json.dumps({"sync": sync, "check": check, "forget": forget}[sys.argv[1]](sys.argv[2])))
