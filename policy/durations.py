"""How long something lasts, as it is written: a whole number and one unit, as in 30m."""

import re

# Seconds of each unit, the largest first.
UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}

# An expression as text: few policies need it, and to compile it would delay every start.
DURATION = r"([1-9][0-9]{0,8})([smhd])"


def parse_duration(text: str) -> int | None:
    """Return the seconds that `text` means; None where it is no duration."""
    match = re.fullmatch(DURATION, text)
    return int(match[1]) * UNITS[match[2]] if match else None


def duration_text(seconds: int) -> str:
    """Return `seconds` in the largest unit that needs no fraction."""
    unit = next(unit for unit, size in UNITS.items() if seconds % size == 0)
    return f"{seconds // UNITS[unit]}{unit}"
