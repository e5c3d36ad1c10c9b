"""Moments: what they mean, held against the standard library's calendar, and what is none."""

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.moments import MomentError, parse_moment

ZONES = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(timezones=ZONES), st.sampled_from(["minutes", "seconds"]))
def test_moment_is_the_one_of_the_calendar(moment: datetime, precision: str) -> None:
    text = moment.isoformat(timespec=precision)
    assert parse_moment(text) == datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00Z", 0),
        ("1970-01-01T01:00+01:00", 0),
        ("1969-12-31T19:00:01-05:00", 1),
        ("2000-02-29T00:00Z", 951782400),
        ("2026-12-01T18:00+01:00", 1796144400),
    ],
)
def test_moment_is_counted_in_seconds_since_1970(text: str, seconds: int) -> None:
    assert parse_moment(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "now",
            "1796144400",
            "2026-12-01",
            "2026-12-01T18:00",
            "2026-12-01 18:00Z",
            "2026-12-01t18:00z",
        ),
        *("2026-12-01T18Z", "2026-12-01T18:00:00.5Z", "2026-12-01T18:00 Z", "2026-12-01T18:00+0100"),
        *("2026-12-01T18:00+1:00", "26-12-01T18:00Z", "2026-W49-2T18:00Z", "2026-12-01T18:00CET"),
        *(
            "٢٠٢٦-12-01T18:00Z",
            "2026-12-01T18:00Z\n",
            "2026-00-01T18:00Z",
            "2026-13-01T18:00Z",
            "0000-01-01T00:00Z",
        ),
        *(
            "2026-11-31T18:00Z",
            "2026-02-29T18:00Z",
            "1900-02-29T18:00Z",
            "2026-12-00T18:00Z",
            "2026-12-01T24:00Z",
        ),
        *("2026-12-01T18:60Z", "2026-12-01T18:00:60Z", "2026-12-01T18:00+24:00", "2026-12-01T18:00+01:60"),
    ],
)
def test_text_of_another_form_or_without_a_zone_is_no_moment(text: str) -> None:
    with pytest.raises(MomentError):
        parse_moment(text)
