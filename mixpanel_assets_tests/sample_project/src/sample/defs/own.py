"""What the project has of its own: an IO manager under the default key, an executor, and assets after Mixpanel's."""

import json
from pathlib import Path

import dagster as dg
from dagster_duckdb import DuckDBResource


class JsonFiles(dg.ConfigurableIOManager):
    folder: str

    def _file(self, context):
        return Path(self.folder, "_".join(context.asset_key.path) + ".json")

    def handle_output(self, context, obj):
        self._file(context).parent.mkdir(parents=True, exist_ok=True)
        self._file(context).write_text(json.dumps(obj))

    def load_input(self, context):
        return json.loads(self._file(context.upstream_output).read_text())


@dg.asset(deps=[["mixpanel", "profiles"]])
def cities(warehouse: DuckDBResource) -> dict:
    with warehouse.get_connection() as connection:
        frame = connection.sql("""select properties ->> '$."$city"' as city from mixpanel.profiles""").pl()
    return dict(frame.drop_nulls().group_by("city").len().iter_rows())


@dg.asset
def largest_city(cities: dict) -> str:
    return max(cities, key=cities.get)


@dg.definitions
def defs():
    return dg.Definitions(
        assets=[cities, largest_city],
        resources={"io_manager": JsonFiles(folder=dg.EnvVar("SAMPLE_FILES"))},
        executor=dg.in_process_executor,
    )
