"""Table `identity_links`: pairs of ids that events say belong together, for each day.

day                     the events' day
former_id, later_id     the pair; Mixpanel goes by the later one, as far as the event tells
is_proof                whether Mixpanel itself has merged them: it served an event under `later_id` that was sent as
                        `former_id`. The rest are requests to merge, which Mixpanel may have refused
said_at                 when: of a proof when the event was asked for, of a request when it was sent

Source: https://docs.mixpanel.com/docs/tracking-methods/id-management (`$identify`, `$create_alias`, `$merge`), and
`$distinct_id_before_identity` of exported events.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import duckdb

from mixpanel_assets.properties import changed_days
from mixpanel_assets.properties.sources import EVENTS
from mixpanel_assets.properties.wide_views import pointer

LINKS = "identity_links"
_SEEN = "identity_linked_days"
# Raise it with any change to what follows: days read before are read anew.
_REVISION = "1"
_BEFORE, _IDENTIFIED, _ANON, _ALIAS, _MERGED = range(1, 6)
_NAMES = ("$distinct_id_before_identity", "$identified_id", "$anon_id", "alias", "$distinct_ids")
_VERBS = "('$identify', '$create_alias', '$merge')"


def update(connection: duckdb.DuckDBPyConnection) -> None:
    """Read the days of events that changed, within the caller's transaction."""
    connection.execute(
        f"create table if not exists {LINKS} "
        "(day date, former_id varchar, later_id varchar, is_proof boolean, said_at timestamptz)"
    )
    changed_days.update(connection, LINKS, _SEEN, _REVISION, _links)


def _links(day: str, chosen: str) -> str:
    named = ", ".join(map(pointer, _NAMES))
    verb = f"case when event_name in {_VERBS} then event_name end"
    return f"""
        select day, link.former_id, link.later_id, link.is_proof, max(link.said_at)
        from (
            select day, unnest([
                {_link("true", f"named[{_BEFORE}]", "distinct_id", "synced_at")},
                {_link("verb = '$identify'", f"named[{_ANON}]", f"named[{_IDENTIFIED}]", "sent_at", proof=False)},
                {_link("verb = '$create_alias'", f"named[{_ALIAS}]", "distinct_id", "sent_at", proof=False)}
            ] || [
                {_link("true", "id", "ids[1]", "sent_at", proof=False)} for id in ids[2:]
            ]) as link
            from (
                select *, case when verb = '$merge' then coalesce(try_cast(named[{_MERGED}] as varchar[]), []) else []
                          end as ids
                from (
                    select {day} as day, distinct_id, synced_at, timezone('UTC', event_time) as sent_at,
                           {verb} as verb, json_extract_string(properties, [{named}]) as named
                    from {EVENTS.table} {chosen}
                )
                where verb is not null or named[{_BEFORE}] is not null
            )
        )
        where link.former_id <> link.later_id and link.former_id <> '' and link.later_id <> ''
        group by all
    """


def _link(condition: str, former: str, later: str, said_at: str, *, proof: bool = True) -> str:
    former = former if condition == "true" else f"case when {condition} then {former} end"
    return f"{{'former_id': {former}, 'later_id': {later}, 'is_proof': {str(proof).lower()}, 'said_at': {said_at}}}"
