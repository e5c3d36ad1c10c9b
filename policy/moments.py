"""Moments as an administrator writes them: a date, a time of day and a time zone.

The form is RFC 3339's with minutes alone allowed: `2026-12-01T18:00+01:00`, `2026-12-01T17:00:30Z`. The zone is
never left out, for then the machine's own would decide, which is another one after a move. A moment is counted as
the clock counts: seconds since 1970-01-01T00:00Z without leap seconds (time(7)).
"""

import re

_SHAPE = "a date, time and zone as in 2026-12-01T18:00+01:00 or 2026-12-01T17:00Z"
_DATE = r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
_TIME = r"T([0-9]{2}):([0-9]{2})(?::([0-9]{2}))?"
_ZONE = r"(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
MOMENT = re.compile(_DATE + _TIME + _ZONE)
_WITHOUT_ZONE = re.compile(_DATE + f"(?:{_TIME})?")

_DAYS_BEFORE_MONTH = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)
_DAYS_BEFORE_1970 = 719_162  # those from the year 1 on, by the calendar of today


class MomentError(ValueError):
    """Text that is no moment; the message says why."""


def parse_moment(text: str) -> int:
    """Return the moment that `text` is, in seconds since 1970. Raises MomentError."""
    match = MOMENT.fullmatch(text)
    if match is None:
        missing = ""
        if partial := _WITHOUT_ZONE.fullmatch(text):
            missing = f"the {'time zone is' if partial[4] else 'time of day and the time zone are'} missing, "
        raise MomentError(f"{missing}expected {_SHAPE}")
    year, month, day, hour, minute, second, zone_hour, zone_minute = (
        int(match[group] or 0) for group in (1, 2, 3, 4, 5, 6, 8, 9)
    )
    if year < 1 or not 1 <= month <= 12 or not 1 <= day <= _days_of(year, month):
        raise MomentError("there is no such day")
    if hour > 23 or minute > 59 or second > 59:
        raise MomentError("there is no such time of day, expected 00:00 to 23:59:59")
    if zone_hour > 23 or zone_minute > 59:
        raise MomentError("there is no such time zone")
    east = 60 * (60 * zone_hour + zone_minute) * (-1 if match[7] == "-" else 1)
    return 60 * (60 * (24 * _days_since_1970(year, month, day) + hour) + minute) + second - east


def moment_text(seconds: int) -> str:
    """Return the moment as a policy file may have it, in UTC."""
    days, rest = divmod(seconds, 86_400)
    year = 1970 + days // (366 if days > 0 else 365) - 1
    while _days_since_1970(year + 1, 1, 1) <= days:
        year += 1
    month = max(one for one in range(1, 13) if _days_since_1970(year, one, 1) <= days)
    day = days - _days_since_1970(year, month, 1) + 1
    hour, minute, second = rest // 3600, rest // 60 % 60, rest % 60
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _days_of(year: int, month: int) -> int:
    if month == 2:
        return 29 if _is_leap(year) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def _days_since_1970(year: int, month: int, day: int) -> int:
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 - _DAYS_BEFORE_1970
    leap_day = 1 if month > 2 and _is_leap(year) else 0
    return days + _DAYS_BEFORE_MONTH[month - 1] + leap_day + day - 1
