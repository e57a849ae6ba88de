"""Who may start a step of a pool, and when.

Belongs here: slots claimed and freed over all runs of an instance, and the slots of dead runs. Does not belong here:
how the claims are stored (Dagster's event log storage, see event_log.py).

The slots are Dagster's: the UI shows them, and other executors keep to them. What differs from Dagster's own way:
- a waiting run looks again every `LOOK_EVERY_SECONDS`, not after 1 to 15 seconds;
- a run's next step takes the slot of the one that ended, if nobody else waits;
- a run waits with one step per pool at a time. Slots go to whoever waits longest, so runs take turns, and a run with
  sixty pages does not queue all of them before another run's first;
- a limit beyond what the code location allows is lowered when a run starts, and a run by itself never exceeds it;
- slots of runs that are dead or over are freed by whoever waits for one.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from dagster import DagsterInstance, DagsterRun
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext

from mixpanel_assets.executor.event_log import exclusively, transfer_slot
from mixpanel_assets.executor.run_locks import RunLocks, fail_and_release

# A look costs some 3 ms. The executor's loop comes by every 0.1 s, so this means every time.
LOOK_EVERY_SECONDS = 0.08

# A look at who holds the slots costs some 10 ms.
FAIL_DEAD_RUNS_EVERY_SECONDS = 1.0

# A slot that is set aside for a step that does not fetch it goes back to the queue. Our own runs look far more often;
# Dagster's executors look every 1 to 15 s, and simply queue again.
SET_ASIDE_SECONDS = 3.0


@dataclass
class AwaitedSlot:
    """The step that waits for a slot of a pool; times are of the monotonic clock."""

    step_key: str
    look_again_at: float


class PoolSlots(InstanceConcurrencyContext):
    """The slots of one run, behind the interface through which ActiveExecution asks for them. For one thread only."""

    def __init__(
        self,
        instance: DagsterInstance,
        run: DagsterRun,
        limits: Mapping[str, int],
        ceilings: Mapping[str, int],
        locks: RunLocks | None = None,
    ):
        super().__init__(instance, run)
        self._storage = instance.event_log_storage
        self._limits = limits
        self._ceilings = ceilings
        # What this run alone keeps to: where the instance counts, a person may have raised the limit.
        self._own_most = ceilings if self._storage.supports_global_concurrency_limits else limits
        self._locks = locks
        self._holding: dict[str, str] = {}  # step key -> pool
        self._spare: dict[str, str] = {}  # step key -> pool: ended, and their slots not given up yet
        self._awaited: dict[str, AwaitedSlot] = {}  # pool -> who waits for it
        self._failed_dead_runs_at = float("-inf")
        self._set_aside_since: dict[tuple[str, str], float] = {}  # (run id, step key) -> first seen

    def __enter__(self) -> "PoolSlots":
        super().__enter__()
        if self._storage.supports_global_concurrency_limits:
            self._write_own_limits()
            if self._locks:
                self._locks.fail_dead_runs(self._instance)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(exc_type, exc_value, traceback)
        if self._storage.supports_global_concurrency_limits:
            self._storage.free_concurrency_slots_for_run(self._run_id)

    def _write_own_limits(self) -> None:
        """A limit that a person has set stays, up to the ceiling; the instance's default gives way to ours."""
        with exclusively(self._instance):
            set_by_hand = {row.name: row.limit for row in self._storage.get_pool_limits() if not row.from_default}
            for pool, limit in self._limits.items():
                if pool not in set_by_hand:
                    self._storage.set_concurrency_slots(pool, limit)
                elif set_by_hand[pool] > self._ceilings[pool]:
                    self._storage.set_concurrency_slots(pool, self._ceilings[pool])

    def claim(self, concurrency_key: str, step_key: str, step_priority: int = 0) -> bool:
        """Whether the step may start now. If not, ask again: `ActiveExecution` does so for every ready step."""
        if self._is_full(concurrency_key) or not self._is_its_turn(concurrency_key, step_key):
            return False
        if self._reuses_slot(concurrency_key, step_key):
            return True
        self._pending_timeouts[step_key] = 0.0  # Dagster's own pause between two looks; ours is in the awaited slot.
        with exclusively(self._instance):
            claimed = super().claim(concurrency_key, step_key, step_priority)
        if claimed:
            self._holding[step_key] = concurrency_key
            self._awaited.pop(concurrency_key, None)
        else:
            self._wait_for_slot(concurrency_key, step_key)
        return claimed

    def free_step(self, step_key: str) -> None:
        """The step has ended. Its slot is kept for the next step of this run until `free_spare`."""
        pool = self._holding.pop(step_key, None)
        if pool is not None:
            self._spare[step_key] = pool

    def free_spare(self) -> None:
        """Free the slots that no step of this run has taken over."""
        for step_key in [*self._spare]:
            self._free(step_key)

    def _free(self, ended: str) -> None:
        del self._spare[ended]
        with exclusively(self._instance):
            super().free_step(ended)

    def _reuses_slot(self, pool: str, step_key: str) -> bool:
        """Whether the step got the slot of one that ended. If it may not have it, that slot is freed."""
        if step_key in self._spare:  # It is tried again, and the storage knows a step once.
            self._free(step_key)
        ended = next((ended for ended, its_pool in self._spare.items() if its_pool == pool), None)
        if ended is None:
            return False
        # Who waits already has its place in the queue.
        if pool in self._awaited or not transfer_slot(self._instance, pool, ended, step_key):
            self._free(ended)
            return False
        del self._spare[ended]
        self._claims.remove(ended)
        self._claims.add(step_key)
        self._holding[step_key] = pool
        return True

    def withdraw(self) -> None:
        """Stop waiting: nobody here could use a slot now, and none should be set aside for us."""
        for awaited in self._awaited.values():
            self._storage.free_concurrency_slot_for_step(self._run_id, awaited.step_key)
            self._pending_claims.discard(awaited.step_key)
        self._awaited.clear()

    def _is_full(self, pool: str) -> bool:
        limit = self._own_most.get(pool)
        return limit is not None and sum(held == pool for held in self._holding.values()) >= limit

    def _is_its_turn(self, pool: str, step_key: str) -> bool:
        awaited = self._awaited.get(pool)
        return awaited is None or (awaited.step_key == step_key and time.monotonic() >= awaited.look_again_at)

    def _wait_for_slot(self, pool: str, step_key: str) -> None:
        now = time.monotonic()
        self._awaited[pool] = AwaitedSlot(step_key, now + LOOK_EVERY_SECONDS)
        if now >= self._failed_dead_runs_at + FAIL_DEAD_RUNS_EVERY_SECONDS:
            self._failed_dead_runs_at = now
            if self._locks:
                self._locks.fail_dead_runs(self._instance)
            self._free_what_is_over(pool)
            self._return_what_is_not_fetched(pool)

    def _free_what_is_over(self, pool: str) -> None:
        """Free what belongs to runs that are finished or unknown, unless a living process still works for them."""
        info = self._storage.get_concurrency_info(pool)
        holders = {row.run_id for row in info.claimed_slots} | {row.run_id for row in info.pending_steps}
        for run_id in holders - {self._run_id}:
            run = self._instance.get_run_by_id(run_id)
            if (run is None or run.is_finished) and not (self._locks and self._locks.may_live(run_id)):
                fail_and_release(self._instance, run_id)

    def _return_what_is_not_fetched(self, pool: str) -> None:
        """Take back slots that were set aside for a step whose run does not look."""
        info = self._storage.get_concurrency_info(pool)
        claimed = {(row.run_id, row.step_key) for row in info.claimed_slots}
        set_aside = {
            (row.run_id, row.step_key)
            for row in info.pending_steps
            if row.assigned_timestamp and row.run_id != self._run_id
        } - claimed
        now = time.monotonic()
        self._set_aside_since = {key: self._set_aside_since.get(key, now) for key in set_aside}
        for (run_id, step_key), since in self._set_aside_since.items():
            if now - since >= SET_ASIDE_SECONDS:
                self._return(pool, run_id, step_key)

    def _return(self, pool: str, run_id: str, step_key: str) -> None:
        """Take it back, unless its step has fetched it since."""
        with exclusively(self._instance):
            claimed = self._storage.get_concurrency_info(pool).claimed_slots
            if (run_id, step_key) not in {(row.run_id, row.step_key) for row in claimed}:
                self._storage.free_concurrency_slot_for_step(run_id, step_key)
