"""The asset of every stream, as its data flows: a plan -> fetches in parallel -> what is owed -> one table -> a report.

Written once: the ops, and what happens in each before and after the stream's own part, its `Steps`. Each op hands on
small objects; rows wait in staged files. No SQL and no HTTP here, and no rules of pages or days.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.io_manager_keys import HANDLES, WAREHOUSE
from mixpanel_assets.projects import CopiedProject
from mixpanel_assets.reports import table_schemas
from mixpanel_assets.resources import MixpanelResource, ProjectResources
from mixpanel_assets.storage.columns import Column
from mixpanel_assets.storage.staging import Staging
from mixpanel_assets.storage.warehouse import Warehouse
from mixpanel_assets.streams.budgets import Budget, enforce
from mixpanel_assets.streams.failed_steps import show_failure, shown_failure
from mixpanel_assets.streams.failures import one_line_errors
from mixpanel_assets.streams.outcome import MISSING, Fetched, outcomes_of, refuse_nothing
from mixpanel_assets.streams.reports import unit_metadata
from mixpanel_assets.streams.settings import SyncConfig

# The input of the plan that stands for the project in Mixpanel; nothing is handed over.
_SOURCE = "project_in_mixpanel"


@dataclass(frozen=True)
class Order:
    """The order to fetch one page or chunk.

    Attributes:
        key: Its part of the step's name.
        words: What it is, for the log.
        said: What it is, as metadata.
        what: What to fetch, as the stream says it.
        on_quota: What happens when the hour is spent.
    """

    key: str
    words: str
    said: Mapping[str, Any]
    what: Any
    on_quota: str


@dataclass(frozen=True)
class Planned:
    """What is to be fetched.

    Attributes:
        plan: What the ops after it need to know.
        orders: Each is fetched by a step of its own.
        metadata: What the plan says of itself.
        needs: Of the hour; None where that was decided before.
    """

    plan: Any
    orders: Sequence[Order]
    metadata: Mapping[str, Any]
    needs: Budget | None = None


@dataclass(frozen=True)
class Step:
    """An op: its name within the asset, and what it does, in words."""

    name: str
    description: str


@dataclass(frozen=True)
class Names:
    """What the ops are called, and their outputs.

    Attributes:
        plan, fetch, check, collect: The ops; without `check` no second look is taken at what came.
        fetch_again: The fetch of what that look orders.
        unit: What is fetched: a page, a chunk.
        definitions: Begins the names of the ops where the code location has them all.
    """

    plan: Step
    fetch: Step
    collect: Step
    unit: str
    check: Step | None = None
    fetch_again: str = ""
    definitions: str = ""


@dataclass(frozen=True)
class Sync:
    """A run of a stream, as its steps see it."""

    context: dg.OpExecutionContext
    staging: Staging
    mixpanel: MixpanelResource

    def client(self, on_quota: str) -> MixpanelClient:
        """Asks Mixpanel; where the hour is spent it waits, or not, as was chosen."""
        return self.mixpanel.client(on_quota)


class Steps(ABC):
    """What the ops of one stream do, for one project.

    Attributes:
        project: Whose data.
        stream: Its name.
        pool: Limits its requests in flight, over all runs.
        names: Of its ops.
        config: The settings of a sync.
        plans_online: Whether the plan sends a request.
        reports: Whether an op after the IO manager tells what is stored.
    """

    project: CopiedProject
    stream: str
    pool: str
    names: Names
    config: type[SyncConfig]
    plans_online: bool
    reports: bool

    @property
    def asset(self) -> dg.AssetKey:
        """The asset that they are of."""
        return self.project.key(self.stream)

    @abstractmethod
    def plan(self, sync: Sync, config: Any, warehouse: Warehouse) -> Planned:
        """What is to be fetched, by the settings and by what earlier runs left."""

    @abstractmethod
    def fetch(self, sync: Sync, order: Order) -> Fetched:
        """Fetch one page or chunk into staged files; that it failed is a result too."""

    def check(self, sync: Sync, plan: Any, fetched: Sequence[Any]) -> Planned:
        """What is still owed after the first round."""
        raise NotImplementedError

    @abstractmethod
    def settle(
        self, context: dg.OpExecutionContext, staging: Staging, plan: Any, fetched: Sequence[Any]
    ) -> Sequence[Any]:
        """What became of each page or chunk of the plan, in order, as `Fetched`."""

    def note_failed(self, context: dg.OpExecutionContext, settled: Sequence[Any]) -> None:  # noqa: B027
        """Leave word of what failed in a run that stores nothing, where the stored table does not tell it."""

    @abstractmethod
    def stage(
        self, context: dg.OpExecutionContext, staging: Staging, plan: Any, settled: Sequence[Any]
    ) -> tuple[Any, Mapping[str, Any]]:
        """What the IO manager is to store, and what the sync says of itself."""


class SyncOps:
    """The ops of a stream, made once: the asset has them, and so may a job."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self._plan = _plan_op(steps)
        self._fetch = _fetch_op(steps)
        self._check = _check_op(steps)
        self._collect = _collect_op(steps)

    def flow(self, *source: Any, report: dg.OpDefinition | None = None, called: str = "report") -> Any:
        """Compose them, within a graph, where they go by the names that they have in every project. `source` is what
        the plan comes after: the project in Mixpanel, in an asset."""
        names = self.steps.names
        plan, units = self._plan.alias(names.plan.name)(*source)
        fetched = units.map(self._fetch.alias(names.fetch.name)).collect()
        if self._check is not None and names.check is not None:
            plan, owed = self._check.alias(names.check.name)(plan, fetched)
            fetched = owed.map(self._fetch.alias(names.fetch_again)).collect()
        collected = self._collect.alias(names.collect.name)(plan, fetched)
        return collected if report is None else report.alias(called)(plan, *collected)


def stream_asset(
    ops: SyncOps,
    columns: Sequence[Column],
    description: str,
    report: dg.OpDefinition | None = None,
    days: dg.PartitionsDefinition[str] | None = None,
) -> dg.AssetsDefinition:
    """The asset `mixpanel/<name>`, or as the project has it.

    Args:
        ops: What it consists of.
        columns: Of its table.
        description: For the catalog.
        report: The op that tells what is stored; None: the collector does.
        days: Its partitions, a run of several of which is one sync.
    """
    steps, project = ops.steps, ops.steps.project

    @dg.config_mapping
    def flat_config(chosen: steps.config) -> dict[str, Any]:  # type: ignore[name-defined]  # the stream's own
        return {steps.names.plan.name: {"config": chosen.model_dump(exclude_none=True)}}

    @dg.graph_asset(
        ins={_SOURCE: dg.AssetIn(source_key(project), dagster_type=dg.Nothing)},
        name=steps.stream,
        key_prefix=project.key_prefix,
        config=flat_config,
        group_name=project.group,
        kinds={"mixpanel", "duckdb"},
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run() if days else None,
        tags={"personal_data": "true"},
        metadata={
            "dagster/table_name": f"{project.schema}.{steps.stream}",
            "dagster/column_schema": table_schemas.schema(columns),
        },
        description=description,
    )
    def asset(project_in_mixpanel: Any) -> Any:
        return ops.flow(project_in_mixpanel, report=report)

    return asset


def source_key(project: CopiedProject) -> dg.AssetKey:
    """What all streams of a project come after in the lineage: the project in Mixpanel, which nothing here makes."""
    return dg.AssetKey(project.called("mixpanel_project"))


def _op(steps: Steps, step: Step, *resources: str, online: bool) -> Mapping[str, Any]:
    """What an op is given. Its resources are named, since arguments would be the same ones in every project."""
    return {
        "name": steps.project.called(f"{steps.names.definitions}{step.name}"),
        "description": step.description,
        "pool": steps.project.pool(steps.pool) if online else None,
        "required_resource_keys": steps.project.resource_keys(*resources),
    }


def _sync(steps: Steps, context: dg.OpExecutionContext) -> Sync:
    own = ProjectResources(context.resources, steps.project)
    return Sync(context, own.staging.place(), own.mixpanel)


def _planned_outs(steps: Steps) -> Mapping[str, Any]:
    handles = steps.project.called(HANDLES)
    return {"planned": dg.Out(io_manager_key=handles), steps.names.unit: dg.DynamicOut(io_manager_key=handles)}


def _hand_on(steps: Steps, planned: Planned) -> Iterator[dg.Output[Any] | dg.DynamicOutput[Order]]:
    yield dg.Output(planned.plan, "planned", metadata=planned.metadata)
    for order in planned.orders:
        yield dg.DynamicOutput(order, mapping_key=order.key, output_name=steps.names.unit)


def _plan_op(steps: Steps) -> dg.OpDefinition:
    needed = _op(steps, steps.names.plan, "mixpanel", "staging", "warehouse", "history", online=steps.plans_online)

    @dg.op(**needed, ins={_SOURCE: dg.In(dg.Nothing)}, out=_planned_outs(steps))
    def plan(
        context: dg.OpExecutionContext,
        config: steps.config,  # type: ignore[name-defined]  # the stream's own
    ) -> Iterator[Any]:
        own = ProjectResources(context.resources, steps.project)
        with one_line_errors():
            own.history.delete_old_runs(context, steps.project)
            stored = own.warehouse.open_for_sync(context.log, steps.project.schema)
            own.history.delete_old_states(stored)
            planned = steps.plan(_sync(steps, context), config, stored)
            if planned.needs is not None:
                enforce(planned.needs, config.on_quota, context.log)
            yield from _hand_on(steps, planned)

    return plan


def _fetch_op(steps: Steps) -> dg.OpDefinition:
    out = dg.Out(io_manager_key=steps.project.called(HANDLES))

    @dg.op(**_op(steps, steps.names.fetch, "mixpanel", "staging", online=True), out=out)
    def fetch(context: dg.OpExecutionContext, order: Order) -> dg.Output[Any]:
        sync = _sync(steps, context)
        with one_line_errors():
            fetched = shown_failure(context, sync.staging)
            if fetched is None:
                fetched = steps.fetch(sync, order)
                _say_fetched(context, order, fetched, steps.stream)
                if fetched.error is not None:
                    show_failure(context, sync.staging, fetched)
            return dg.Output(fetched, metadata={**order.said, **unit_metadata(fetched)})

    return fetch


def _say_fetched(context: dg.OpExecutionContext, order: Order, fetched: Fetched, rows: str) -> None:
    if fetched.error is None:
        context.log.info(f"{order.words}: {fetched.rows} {rows}")
    else:
        context.log.error(f"failed: {fetched.error}")


def _check_op(steps: Steps) -> dg.OpDefinition | None:
    if steps.names.check is None:
        return None

    @dg.op(**_op(steps, steps.names.check, "mixpanel", "staging", online=True), out=_planned_outs(steps))
    def check(context: dg.OpExecutionContext, planned: Any, fetched: list[Any]) -> Iterator[Any]:
        with one_line_errors():
            yield from _hand_on(steps, steps.check(_sync(steps, context), planned, fetched))

    return check


def _collect_op(steps: Steps) -> dg.OpDefinition:
    project = steps.project
    stored = dg.Out(io_manager_key=project.called(WAREHOUSE))
    settled = {"settled": dg.Out(io_manager_key=project.called(HANDLES))} if steps.reports else {}

    @dg.op(**_op(steps, steps.names.collect, "staging", online=False), out={**settled, "stored": stored})
    def collect(context: dg.OpExecutionContext, planned: Any, fetched: list[Any]) -> Iterator[dg.Output[Any]]:
        place = ProjectResources(context.resources, project).staging.place()
        with one_line_errors():
            settled = steps.settle(context, place, planned, fetched)
            for outcome in outcomes_of(settled):
                if outcome.failed:
                    context.log.error(f"{MISSING}{outcome.error}")
            try:
                refuse_nothing(settled, steps.names.unit)
            except Exception:
                steps.note_failed(context, settled)
                raise
            staged, metadata = steps.stage(context, place, planned, settled)
            if steps.reports:
                yield dg.Output(settled, "settled")
            yield dg.Output(staged, "stored", metadata=metadata)

    return collect
