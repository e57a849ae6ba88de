"""Jobs: what people start by name besides materializing an asset."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mixpanel_assets.streams.stream import Stream

_Job: TypeAlias = dg.JobDefinition | UnresolvedAssetJobDefinition


def jobs(streams: Iterable[Stream], executor: dg.ExecutorDefinition) -> Sequence[_Job]:
    """The jobs of the streams, their steps run by this executor, whatever the code location uses for the rest."""
    return [job for stream in streams for job in (_sync_job(stream, executor), stream.make_retry_job(executor))]


def _sync_job(stream: Stream, executor: dg.ExecutorDefinition) -> _Job:
    return dg.define_asset_job(
        stream.sync_job,
        selection=dg.AssetSelection.assets(stream.key),
        executor_def=executor,
        tags=stream.project.tags,
        description=stream.sync_description,
    )
