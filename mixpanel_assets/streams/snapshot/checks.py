"""Asset checks of a stream in pages: whether what is stored can be trusted.

They look at the table and at what the sync said of itself; they fetch nothing.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
import duckdb

from mixpanel_assets.projects import CopiedProject
from mixpanel_assets.resources import ProjectResources
from mixpanel_assets.storage.rejected_rows import REJECTED_TABLE
from mixpanel_assets.storage.warehouse import count
from mixpanel_assets.streams.checks import judged_sync, tell, warning
from mixpanel_assets.streams.failures import one_line_errors
from mixpanel_assets.streams.owed import refuse_other_number
from mixpanel_assets.streams.snapshot.stream import SnapshotStream

FRESH_HOURS = 24
# A larger drop at once is refused before it is stored (max_removed_fraction); this sees those that creep.
MOST_LOST = 0.2
COMPARED_SYNCS = 5

_Metadata = dict[str, Any]


def snapshot_checks(stream: SnapshotStream, project: CopiedProject, retry_job: str) -> dg.AssetChecksDefinition:
    """The checks of a stream's asset; if it is incomplete, the step ends with what that check says."""
    checks = _Checks(stream, project.key(stream.name), retry_job, f"{project.schema}.{REJECTED_TABLE}")

    # One step for all of them: each step would cost a sync a tenth of a second.
    @dg.multi_asset_check(
        name=project.called(f"check_{stream.name}"),
        specs=checks.specs(),
        can_subset=True,
        required_resource_keys=project.resource_keys("warehouse"),
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        warehouse = ProjectResources(context.resources, project).warehouse
        event = judged_sync(context, checks.asset)
        metadata = metadata_of(event)
        with one_line_errors(), (opened := warehouse.open(context.log, project.schema)).reading() as connection:
            refuse_other_number(context.instance, event, connection, opened)
            results = checks.results(connection, metadata, checks.earlier_counts(context, metadata))
        yield from tell(context, checks.specs(), results)

    return check


def metadata_of(event: dg.EventLogEntry | None) -> _Metadata | None:
    """What a sync said of itself."""
    if event is None or event.asset_materialization is None:
        return None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


@dataclass(frozen=True)
class _Checks:
    stream: SnapshotStream
    asset: dg.AssetKey
    retry_job: str
    rejected_table: str

    def specs(self) -> Sequence[dg.AssetCheckSpec]:
        rows = self.stream.name
        return [
            self._spec("unique", f"No {self.stream.key.name} is stored twice, within {self._part}."),
            self._spec(
                "fresh",
                f"No row is older than {FRESH_HOURS} hours, as those of a page become that fails in every sync "
                "(a warning).",
            ),
            self._spec(
                "not_fewer",
                f"No more than {MOST_LOST:.0%} fewer rows than after the last {COMPARED_SYNCS} syncs (a warning).",
            ),
            self._spec(
                "complete",
                f"All {rows} that Mixpanel reported are stored, but for the few that may be deleted meanwhile "
                "(max_missing_fraction); if not, the run fails, after storing what came.",
                blocking=True,
            ),
        ]

    def results(
        self, connection: duckdb.DuckDBPyConnection, metadata: _Metadata | None, earlier: Sequence[int]
    ) -> list[dg.AssetCheckResult]:
        """The result of each check."""
        table, keys = self.stream.name, ", ".join(self.stream.row_key)
        repeated = f"(select 1 from {table} group by {keys} having count(*) > 1)"
        stored = count(connection, f"select count(*) from {table}")
        return [
            self._complete(metadata, stored),
            self._unique(count(connection, f"select count(*) from {repeated}")),
            self._fresh(_oldest_hours(connection, table)),
            self._not_fewer(stored, earlier),
        ]

    def earlier_counts(self, context: dg.AssetCheckExecutionContext, metadata: _Metadata | None) -> list[int]:
        """Rows after each of the last syncs before this one that asked for the same."""
        records = context.instance.fetch_materializations(self.asset, limit=COMPARED_SYNCS + 1).records
        own = context.run.run_id
        before = [record.event_log_entry for record in records if record.run_id != own]
        found = [entry.asset_materialization.metadata for entry in before if entry.asset_materialization]
        values = [{name: value.value for name, value in each.items()} for each in found]
        same = [each for each in values if metadata is not None and each.get("query") == metadata.get("query")]
        return [int(rows) for rows in map(_rows_of, same) if rows is not None][:COMPARED_SYNCS]

    @property
    def _part(self) -> str:
        return "the table" if self.stream.part is None else f"one {self.stream.part.name}"

    def _spec(self, what: str, description: str, *, blocking: bool = False) -> dg.AssetCheckSpec:
        return dg.AssetCheckSpec(
            f"{self.stream.name}_{what}", asset=self.asset, blocking=blocking, description=description
        )

    def _complete(self, metadata: _Metadata | None, stored: int) -> dg.AssetCheckResult:
        if metadata is None:
            missing = [f"{self.asset.to_user_string()} was never synced"]
        else:
            missing = self._missing(metadata, stored)
        failed = (metadata or {}).get("failed_page_indices") or []
        words = "; ".join(missing) or self._all_stored(metadata or {}, stored)
        return dg.AssetCheckResult(
            passed=not missing,
            check_name=f"{self.stream.name}_complete",
            description=f"{words}; job {self.retry_job} fetches them again" if failed else words,
            metadata={"stored": stored, "failed_page_indices": dg.MetadataValue.json(failed)},
        )

    def _all_stored(self, metadata: _Metadata, stored: int) -> str:
        rows = self.stream.name
        missing = metadata.get(f"missing_{rows}")
        since = (metadata.get("query") or {}).get("seen_since")
        if since:
            return (
                f"no complete sync: {metadata['fetched_rows']} {rows} were seen since {since}, and came; of the "
                f"{stored} stored none was removed"
            )
        if not missing:
            return f"all {stored} {rows} are stored"
        why = "as those deleted meanwhile do not"
        return f"{stored} {rows} are stored; {missing} did not come, {why}; none was removed"

    def _missing(self, metadata: _Metadata, stored: int) -> list[str]:
        """What the last sync lacks, in words; empty when nothing."""
        words, rows = [], self.stream.name
        failed = metadata.get("failed_page_indices") or []
        if failed:
            pages = ", ".join(str(page) for page in failed)
            words.append(f"{len(failed)} of {metadata['total_pages']} pages are missing: {pages}")
        if metadata.get("rejected_rows"):
            words.append(f"{metadata['rejected_rows']} rows are no {rows} and lie in {self.rejected_table}")
        reported, came = metadata.get("total_reported"), metadata["fetched_rows"] - metadata[f"duplicate_{rows}"]
        if not words and reported is not None and came + metadata.get(f"tolerated_missing_{rows}", 0) < reported:
            words.append(f"{reported} {rows} were reported, {came} different ones came, none was removed: sync again")
        if stored != metadata.get("dagster/row_count"):
            words.append(f"the table holds {stored} rows, the sync left {metadata.get('dagster/row_count')}")
        return words

    def _unique(self, twice: int) -> dg.AssetCheckResult:
        key = self.stream.key.name
        return dg.AssetCheckResult(
            passed=not twice,
            check_name=f"{self.stream.name}_unique",
            description=f"{twice} {key}s are stored more than once" if twice else f"every {key} is there once",
            metadata={"repeated_ids": twice},
        )

    def _fresh(self, oldest_hours: float) -> dg.AssetCheckResult:
        words = f"the oldest row was asked for {oldest_hours:.1f} hours ago"
        said = {"oldest_hours": round(oldest_hours, 1)}
        return warning(f"{self.stream.name}_fresh", words, said, passed=oldest_hours <= FRESH_HOURS)

    def _not_fewer(self, stored: int, earlier: Sequence[int]) -> dg.AssetCheckResult:
        name = f"{self.stream.name}_not_fewer"
        if not earlier:
            return warning(name, "no earlier sync to compare with", passed=True)
        usual = statistics.median(earlier)
        words = f"{stored} {self.stream.name}; the {len(earlier)} syncs before left {usual:g} (median)"
        said = {"stored": stored, "median_before": float(usual)}
        return warning(name, words, said, passed=stored >= usual * (1 - MOST_LOST))


def _rows_of(metadata: _Metadata) -> Any:
    """Rows that a sync left; a version before had groups among the profiles, and counted them apart."""
    return metadata.get("rows_in_scope", metadata.get("dagster/row_count"))


def _oldest_hours(connection: duckdb.DuckDBPyConnection, table: str) -> float:
    """Hours since the oldest row was asked for; 0 when there is none."""
    query = f"select coalesce(epoch(now()) - epoch(min(synced_at)), 0)::bigint from {table}"
    return max(0, count(connection, query)) / 3600
