"""The private parts of Dagster that the threaded executor stands on, pinned by name and signature.

Red after an upgrade of Dagster: read what moved, adapt the module that uses it, run the tests beside this
one, and only then change this list and the bound in pyproject.toml.
"""

import inspect
from collections.abc import Callable
from typing import Any

import dagster
import pytest
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.compute_logs import create_compute_log_file_key
from dagster._core.execution.context.system import PlanExecutionContext
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan import execute_plan
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.retries import RetryMode
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.base import EventLogStorage
from dagster._core.storage.event_log.schema import ConcurrencySlotsTable, PendingStepsTable

# What is called -> the parameters that it is called with, in Dagster's order.
CALLED: list[tuple[Callable[..., Any], list[str]]] = [
    (ExecuteRunWithPlanIterable.__init__, ["execution_plan", "iterator", "execution_context_manager"]),
    (
        PlanExecutionContextManager.__init__,
        [
            *("job", "execution_plan", "run_config", "dagster_run", "instance", "retry_mode"),
            *("raise_on_error", "output_capture", "step_dependency_config"),
        ],
    ),
    (PlanExecutionContext.for_step, ["step", "known_state"]),
    (ExecutionPlan.start, ["retry_mode", "max_concurrent", "instance_concurrency_context", "step_dependency_config"]),
    (execute_plan.dagster_event_sequence_for_step, ["step_context"]),
    (execute_plan._trigger_hook, ["step_context", "step_event_list"]),
    (execute_plan._handle_compute_log_setup_error, ["context", "exc_info"]),
    (execute_plan._handle_compute_log_teardown_error, ["context", "exc_info"]),
    (create_compute_log_file_key, []),
    (RetryMode.from_config, ["config_value"]),
    (ActiveExecution.get_steps_to_execute, []),
    (ActiveExecution.handle_event, ["dagster_event"]),
    (ActiveExecution.verify_complete, ["job_context", "step_key"]),
    (ActiveExecution.plan_events_iterator, ["job_context"]),
    (ActiveExecution.concurrency_event_iterator, ["plan_context"]),
    (ActiveExecution.get_known_state, []),
    (ActiveExecution.check_for_interrupts, []),
    (ActiveExecution.mark_interrupted, []),
    (InstanceConcurrencyContext.__init__, ["instance", "dagster_run"]),
    (InstanceConcurrencyContext.claim, ["concurrency_key", "step_key", "step_priority"]),
    (InstanceConcurrencyContext.free_step, ["step_key"]),
    (EventLogStorage.get_pool_limits, []),
    (EventLogStorage.set_concurrency_slots, ["concurrency_key", "num"]),
    (EventLogStorage.get_concurrency_info, ["concurrency_key"]),
    (EventLogStorage.free_concurrency_slots_for_run, ["run_id"]),
    (EventLogStorage.free_concurrency_slot_for_step, ["run_id", "step_key"]),
    (SqliteEventLogStorage.__init__, ["base_dir"]),
    (SqliteEventLogStorage._connect, ["shard"]),
    (SqliteEventLogStorage._initdb, ["engine"]),
    (SqliteEventLogStorage.store_event, ["event"]),
    (SqliteEventLogStorage._event_to_row, ["event"]),
    (SqliteEventLogStorage._store_asset_event, ["conn", "event", "event_id"]),
    (SqliteEventLogStorage.has_table, ["table_name"]),
    (SqliteEventLogStorage.conn_string_for_shard, ["shard_name"]),
]


@pytest.mark.parametrize(("called", "parameters"), CALLED, ids=[called.__qualname__ for called, _ in CALLED])
def test_signature(called: Callable[..., Any], parameters: list[str]) -> None:
    present = inspect.signature(called).parameters
    required = [
        name
        for name, parameter in present.items()
        if name != "self" and parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    message = f"{called.__qualname__}{inspect.signature(called)} moved in dagster {dagster.__version__}"
    assert [name for name in present if name in parameters] == parameters, message
    assert set(required) <= set(parameters), f"{message}: it asks for more than we give"


def test_attributes() -> None:
    """Attributes that no signature shows; each is read or replaced by slots.py or event_log.py."""
    with dagster.DagsterInstance.ephemeral() as instance:
        assert hasattr(instance, "_event_storage"), f"DagsterInstance._event_storage moved in {dagster.__version__}"

        @dagster.job
        def empty() -> None: ...

        context = InstanceConcurrencyContext(instance, instance.create_run_for_job(empty))
        for name in ("_claims", "_pending_timeouts", "_pending_claims", "_run_id", "_instance"):
            assert hasattr(context, name), f"InstanceConcurrencyContext.{name} moved in {dagster.__version__}"
    assert "ready_outputs" in KnownExecutionState._fields


def test_the_local_event_log_has_what_is_replaced(tmp_path: Any) -> None:
    storage = SqliteEventLogStorage(str(tmp_path))
    for name in ("_base_dir", "_db_lock"):
        assert hasattr(storage, name), f"SqliteEventLogStorage.{name} moved in {dagster.__version__}"


def test_columns() -> None:
    """What a slot's move from one step to the next goes by."""
    common = {"id", "concurrency_key", "run_id", "step_key", "create_timestamp"}
    assert {*ConcurrencySlotsTable.c.keys()} == common | {"deleted"}
    assert {*PendingStepsTable.c.keys()} == common | {"priority", "assigned_timestamp"}


def test_an_instance_uses_the_plain_local_event_log(tmp_path: Any) -> None:
    """Red if Dagster puts another class in its place: runs would then still be right, but slow."""
    with dagster.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert type(instance.event_log_storage) is SqliteEventLogStorage
