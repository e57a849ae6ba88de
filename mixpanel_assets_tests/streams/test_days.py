"""Days and ranges of days."""

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_assets.streams.days import days_between, days_per_request, ranges_of, split_date_range

pytestmark = pytest.mark.unit

# A busy machine is no finding.
STEADY = settings(deadline=None)


class TestDateRanges:
    @STEADY
    @given(first=st.dates(), days=st.integers(0, 800), chunk_days=st.integers(1, 100))
    def test_chunks_tile_the_range(self, first: datetime.date, days: int, chunk_days: int) -> None:
        last = min(first.toordinal() + days, datetime.date.max.toordinal())
        chunks = split_date_range(first.isoformat(), datetime.date.fromordinal(last).isoformat(), chunk_days)
        covered = [
            day
            for start, end in chunks
            for day in range(
                datetime.date.fromisoformat(start).toordinal(), datetime.date.fromisoformat(end).toordinal() + 1
            )
        ]
        assert covered == list(range(first.toordinal(), last + 1))
        assert {len(days_between(*chunk)) for chunk in chunks[:-1]} <= {chunk_days}

    @STEADY
    @given(st.sets(st.dates(datetime.date(2020, 1, 1), datetime.date(2020, 3, 1))))
    def test_ranges_hold_the_days_they_are_made_of(self, days: set[datetime.date]) -> None:
        ranges = ranges_of(day.isoformat() for day in days)
        assert [day for pair in ranges for day in days_between(*pair)] == sorted(day.isoformat() for day in days)
        assert len(ranges) == sum(day - datetime.timedelta(days=1) not in days for day in days)

    @pytest.mark.parametrize(
        ("days", "per_request"), [(1, 7), (7, 7), (70, 7), (71, 8), (90, 9), (365, 37), (1000, 100), (5000, 100)]
    )
    def test_a_range_is_ten_requests_unless_they_are_chosen(self, days: int, per_request: int) -> None:
        assert days_per_request(None, days) == per_request
        assert days_per_request(3, days) == 3

    @pytest.mark.parametrize(
        ("first", "last", "chunk_days", "words"),
        [
            ("2026-01-02", "2026-01-01", 7, "from_date 2026-01-02 is after to_date 2026-01-01"),
            ("2026-01-01", "2026-02-30", 7, "to_date '2026-02-30' is not a date"),
            ("20260101", "2026-01-02", 7, "from_date '20260101' is not a date"),
            ("2026-W01-1", "2026-01-02", 7, "from_date '2026-W01-1' is not a date"),
            ("2026-01-01", "2026-01-02", 0, "chunk_days must be between 1 and 100, not 0"),
            ("2026-01-01", "2026-01-02", 101, "chunk_days must be between 1 and 100, not 101"),
        ],
    )
    def test_bad_ranges_are_refused(self, first: str, last: str, chunk_days: int, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            split_date_range(first, last, chunk_days)
