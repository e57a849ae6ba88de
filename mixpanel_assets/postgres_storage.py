"""Dagster's Postgres storage, which says in one line what keeps it from being opened.

Belongs here: its driver, and one connection before Dagster's own. Does not belong here: connections of ours
(postgres.py).

Dagster's own tries for 11 s, writes a line for each try, and ends in a stack trace. Several processes may open an empty
database together: Dagster tries again where another was first.
"""

import re
from collections.abc import Mapping
from typing import Any

from dagster._serdes import ConfigurableClassData

from mixpanel_assets import postgres
from mixpanel_assets.errors import InstanceError

try:
    from dagster_postgres import DagsterPostgresStorage
    from dagster_postgres.utils import get_token_provider_from_config, pg_url_from_config
except ImportError as missing:
    raise InstanceError(
        f"dagster.yaml names Postgres, for which {missing.name} is not installed: pip install "
        "'mixpanel-assets[postgres]'"
    ) from None

_SAYS_NO_DRIVER = re.compile("^postgres(ql)?://")


class CheckedPostgresStorage(DagsterPostgresStorage):
    """Dagster's own storage, with its settings."""

    @classmethod
    def from_config_value(  # type: ignore[override] # Dagster names a TypedDict
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> DagsterPostgresStorage:
        """The storage of these settings, its tables made if they are not there.

        Raises:
            InstanceError: it cannot be reached, or does not let us in.
        """
        url = _SAYS_NO_DRIVER.sub(f"{postgres.DRIVER}://", pg_url_from_config(config_value))
        tokens = get_token_provider_from_config(config_value)
        with postgres.named(url):
            postgres.engine(url, tokens).connect().close()
            return DagsterPostgresStorage(url, config_value.get("should_autocreate_tables", True), inst_data, tokens)
