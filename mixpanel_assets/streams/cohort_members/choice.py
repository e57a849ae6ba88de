"""Which of the project's cohorts are asked for: those chosen, less those that their count says are empty."""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from mixpanel_assets.streams.cohort_members.query import CohortMembersQuery
from mixpanel_assets.streams.snapshot.page import Parts, Row

# Begins the name of a part that is no cohort's id: it was chosen, and Mixpanel does not list it.
UNLISTED = "not listed: "


@dataclass(frozen=True)
class _Cohort:
    id: str
    name: str | None
    is_empty: bool


def chosen(query: CohortMembersQuery, listed: Iterable[Row]) -> Parts:
    """The cohorts of a list that a query asks for, by id, in the list's order."""
    cohorts = {row.key: _cohort(row) for row in listed}
    if query.chooses_all:
        wanted = list(cohorts.values())
    else:
        ids, names = {str(number) for number in query.cohort_ids or ()}, set(query.cohort_names or ())
        wanted = [cohort for cohort in cohorts.values() if cohort.id in ids or cohort.name in names]
        there = {*(cohort.id for cohort in wanted), *(cohort.name for cohort in wanted)}
        unlisted = [f"{UNLISTED}{text}" for text in sorted({*ids, *names} - there)]
        return _parts(wanted, unlisted, are_all=False)
    return _parts(wanted, [], are_all=True)


def _parts(wanted: Iterable[_Cohort], unlisted: Iterable[str], *, are_all: bool) -> Parts:
    full = [cohort.id for cohort in wanted if not cohort.is_empty]
    empty = [cohort.id for cohort in wanted if cohort.is_empty]
    return Parts((*full, *unlisted), tuple(empty), are_all)


def _cohort(row: Row) -> _Cohort:
    members = msgspec.json.decode(row.content or "{}", type=dict[str, msgspec.Raw])
    name = _decoded(members.get("name"))
    # Only a plain zero is taken for its word: any other count may be missing or odd, and asking tells.
    return _Cohort(row.key, name if isinstance(name, str) else None, is_empty=bytes(members.get("count", b"")) == b"0")


def _decoded(text: msgspec.Raw | None) -> object:
    return None if text is None else msgspec.json.decode(text)
