"""What the columns of the tables mean, for Dagster's catalog."""

from collections.abc import Iterable

import dagster as dg

from mixpanel_assets.storage.columns import Column


def schema(columns: Iterable[Column]) -> dg.TableSchema:
    """The columns of a table as Dagster shows them."""
    return dg.TableSchema(
        [
            dg.TableColumn(each.name, each.type, each.description, dg.TableColumnConstraints(nullable=each.nullable))
            for each in columns
        ]
    )
