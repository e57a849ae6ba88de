"""Somebody else's Dagster project, as `create-dagster` makes it: two Mixpanel projects as YAML components, beside an IO
manager under the default key, an executor, Python assets with Polars, and dbt.

It runs in an environment of its own, `.venv-sample`, which .ci/run makes: dbt and our tools agree on no pathspec.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import duckdb
import pytest

from mixpanel_assets.sandbox import Population, Sandbox

BIN = Path(__file__).parent.parent / ".venv-sample" / "bin"
ADDED = Path(__file__).parent / "sample_project"
ASSETS = ("mixpanel/profiles", "mixpanel_eu/profiles", "cities", "largest_city", "plans", "people")

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not (BIN / "create-dagster").exists(), reason="no .venv-sample: .ci/run makes it"),
]


def test_two_projects_and_dbt_beside_what_the_project_has_of_its_own(tmp_path: Path) -> None:
    """Red where ours takes the default IO manager or executor, where two projects share a name, where a table is locked
    or its rows are not there when dbt runs, and where a model does not follow the profiles in the lineage."""
    home, files = tmp_path / "home", tmp_path / "files"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with (
        Sandbox(Population(profiles=60, seed=1), page_size=20) as us,
        Sandbox(Population(profiles=40, seed=2), page_size=20, project_id="7654321") as eu,
    ):
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            **us.environment,
            **{name.replace("MP_", "EU_"): value for name, value in eu.environment.items()},
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(tmp_path / "sample" / "src"),
            "DAGSTER_HOME": str(home),
            "MP_DUCKDB_PATH": str(tmp_path / "warehouse.duckdb"),
            "SAMPLE_FILES": str(files),
        }

        def run(folder: Path, *command: str) -> None:
            ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
            assert ended.returncode == 0, ended.stdout + ended.stderr

        run(tmp_path, "create-dagster", "project", "sample", "--no-uv-sync")
        shutil.copytree(ADDED, tmp_path / "sample", dirs_exist_ok=True)
        run(tmp_path / "sample", "dg", "check", "defs")
        run(tmp_path / "sample", "dg", "launch", "--assets", " or ".join(f'key:"{asset}"' for asset in ASSETS))
        assert (us.journal.count(endpoint="engage"), eu.journal.count(endpoint="engage")) == (3, 2)
        assert not us.errors + eu.errors
    with duckdb.connect(environment["MP_DUCKDB_PATH"], read_only=True) as connection:
        assert connection.execute("from main.people order by all").fetchall() == [("eu", 40), ("us", 60)]
        assert connection.execute("select sum(people), count(plan) > 1 from main.plans").fetchall() == [(60, True)]
        query = """select properties ->> '$."$city"' as city, count(*) from mixpanel.profiles group by all"""
        served = dict(connection.execute(f"from ({query}) where city is not null").fetchall())
    assert sorted(file.name for file in files.iterdir()) == ["cities.json", "largest_city.json"]
    assert json.loads((files / "cities.json").read_text()) == served
    assert json.loads((files / "largest_city.json").read_text()) in served
