"""Jobs: what people start by name besides materializing an asset."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mixpanel_assets.leftovers import delete_leftovers
from mixpanel_assets.projects import CopiedProject
from mixpanel_assets.resources import ProjectResources
from mixpanel_assets.streams.stream import Stream

HISTORY_JOB = "delete_old_history"

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


def history_job(project: CopiedProject, executor: dg.ExecutorDefinition) -> dg.JobDefinition:
    """The job that keeps the disk free also where no sync runs: each sync deletes what is old."""
    name = project.called(HISTORY_JOB)

    @dg.op(
        name=project.called("delete_old_runs"),
        required_resource_keys=project.resource_keys("history", "staging", "warehouse"),
        description="Delete old runs from Dagster's history, old states of a DuckLake, and staged files of no use.",
    )
    def delete(context: dg.OpExecutionContext) -> None:
        own = ProjectResources(context.resources, project)
        own.history.delete_old_runs(context, project)
        own.history.delete_old_states(own.warehouse.open(context.log, project.schema))
        delete_leftovers(context.instance, own.staging.place())

    return dg.GraphDefinition(name=name, node_defs=[delete]).to_job(
        executor_def=executor,
        tags=project.tags,
        description=(
            "Deletes finished runs beyond the resource `history` from Dagster's history, and staged files that no run "
            "will take up. What each asset and day holds shows as before. Asks Mixpanel nothing."
        ),
    )
