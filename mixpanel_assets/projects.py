"""A Mixpanel project in a code location: what all that is its own is called, and where its settings come from.

A code location may hold several. The one without a name has the names that the documentation uses; of another, called
`eu`, each has `_eu` at the end: asset `mixpanel_eu/profiles`, job `sync_profiles_eu`, resource
`warehouse_eu`. Its pools have the number of its project there, or the variable that holds it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import dagster as dg

from mixpanel_assets import settings
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.settings import ENVIRONMENT, SCHEMA, Variables

# Of the runs of its jobs: which project's they are.
PROJECT_TAG = "mixpanel/project"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
# Schemas that DuckDB has for itself.
_TAKEN_SCHEMAS = frozenset({"main", "temp", "system", "information_schema", "pg_catalog"})


@dataclass(frozen=True)
class CopiedProject:
    """One of them.

    Attributes:
        name: What tells it from others; empty for the one that the `MP_*` variables name.
        key_prefix: What its asset keys begin with.
        schema: Where its tables are.
        variables: Its settings.
    """

    name: str = ""
    key_prefix: tuple[str, ...] = (SCHEMA,)
    schema: str = SCHEMA
    variables: Variables = field(default=ENVIRONMENT, hash=False)

    def called(self, what: str) -> str:
        """The name of what is this project's own, such as a job."""
        return f"{what}_{self.name}" if self.name else what

    def key(self, table: str) -> dg.AssetKey:
        """The key of the asset that is this table."""
        return dg.AssetKey([*self.key_prefix, table])

    def pool(self, usual: str) -> str:
        """The name of a pool of its own, after what tells its project id: two Data Views of a project share what
        Mixpanel allows it.
        """
        own = self.variables.given.get("MP_PROJECT_ID") or self.variables.read_from.get("MP_PROJECT_ID") or self.name
        return usual if own in ("", "MP_PROJECT_ID") else f"{usual}_{own}"

    @property
    def group(self) -> str:
        """The group of its assets in the UI."""
        return self.called(SCHEMA)

    @property
    def tags(self) -> dict[str, str]:
        """Tags of its jobs, and so of their runs."""
        return {PROJECT_TAG: self.name} if self.name else {}

    def owns(self, key: dg.AssetKey) -> bool:
        """Whether an asset is its own, by the key."""
        return key == self.key(key.path[-1])

    def resource_keys(self, *resources: str) -> set[str]:
        """The keys of these of its resources."""
        return {self.called(resource) for resource in resources}


THE_ENVIRONMENTS = CopiedProject()


def copied_project(name: str, key_prefix: str | Sequence[str], schema: str, variables: Variables) -> CopiedProject:
    """The project of these names; empty ones are made from `name`.

    Raises:
        ConfigurationError: a name or a setting cannot be used; one line that says which.
    """
    if name and not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"name {name!r}: a project's name is up to 40 small letters, digits and _, and begins with a letter"
        )
    usual = f"{SCHEMA}_{name}" if name else SCHEMA
    prefix = tuple(key_prefix.split("/") if isinstance(key_prefix, str) else key_prefix) or (usual,)
    if prefix == ("",):
        prefix = (usual,)
    if not all(re.fullmatch(r"\w+", part, re.ASCII) for part in prefix):
        raise ConfigurationError(
            f"key_prefix {'/'.join(prefix)!r}: its parts are letters, digits and _, / between them"
        )
    schema = schema or usual
    if not _NAME.fullmatch(schema) or schema in _TAKEN_SCHEMAS:
        raise ConfigurationError(
            f"schema {schema!r}: a schema's name is up to 40 small letters, digits and _, begins with a letter, and is "
            "none of DuckDB's own"
        )
    settings.check_given(variables)
    return CopiedProject(name, prefix, schema, variables)
