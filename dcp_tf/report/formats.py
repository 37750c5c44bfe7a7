"""Number formats, the same on the terminal and on the page."""

import json
import math
import numbers
from collections.abc import Mapping
from typing import Any

ABSENT = "-"
_LARGEST_CHANGE = 100  # times the value: larger changes are not shown as percentages


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number, of Python or NumPy; booleans are not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def percent(fraction: float | None) -> str:
    """An accuracy or another fraction of 1: `0.9833` is "98.33%"."""
    return f"{100 * fraction:.2f}%" if is_number(fraction) else ABSENT


def points(before: float | None, after: float | None) -> str:
    """The difference of two accuracies in percentage points: "-0.28 points"."""
    if not (is_number(before) and is_number(after)):
        return ABSENT
    return f"{_signed(100 * (after - before))} points"


def change(before: float | None, after: float | None) -> str:
    """The relative change of a cost: "-50.12%"; the difference if it was nearly zero before."""
    if not (is_number(before) and is_number(after)) or before == 0:
        return ABSENT
    if abs(after - before) > _LARGEST_CHANGE * abs(before):
        return difference(before, after)
    return f"{_signed(100 * (after - before) / before)}%"


def difference(before: float | None, after: float | None) -> str:
    """The difference of two values to four digits: "+0.01234"."""
    return f"{after - before:+.4g}" if is_number(before) and is_number(after) else ABSENT


def _signed(value: float) -> str:
    text = f"{value:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text


def count(value: float | None) -> str:
    """A whole number with thousands separators: "272,474"."""
    return f"{value:,.0f}" if is_number(value) else ABSENT


def short_count(value: float | None) -> str:
    """A count at a glance: "40.81 M"; below ten thousand it is exact."""
    if not is_number(value):
        return ABSENT
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "K")):
        if value >= factor:
            return f"{value / (1e3 if unit == 'K' else factor):.2f} {unit}"
    return count(value)


def size(bytes_: int | None) -> str:
    """The size of a file: "324.6 KiB", "1.27 MiB"."""
    if not is_number(bytes_):
        return ABSENT
    if bytes_ < 1024:
        return f"{bytes_:,} bytes"
    if bytes_ < 1024**2:
        return f"{bytes_ / 1024:.1f} KiB"
    return f"{bytes_ / 1024**2:,.2f} MiB"


def milliseconds(value: float) -> str:
    """A duration in ms without its unit, to about three digits: "0.42", "12.3", "123"."""
    decimals = 3 if value < 0.1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f}"


def latency(record: Mapping[str, float] | None) -> str:
    """A median with the 10th and the 90th percentile: "0.42 ms (0.41-0.45)"."""
    if not record or not is_number(record.get("median")):
        return ABSENT
    text = f"{milliseconds(record['median'])} ms"
    if is_number(record.get("p10")) and is_number(record.get("p90")):
        text += f" ({milliseconds(record['p10'])}-{milliseconds(record['p90'])})"
    return text


def decibels(value: float | None) -> str:
    """An SNR: "23.4 dB"; equal outputs have none."""
    return f"{value:.1f} dB" if is_number(value) else "equal"


def ratio(value: float | None) -> str:
    """A speedup: "1.78x"."""
    return f"{value:.2f}x" if is_number(value) else ABSENT


def interval(bounds: Any) -> str:
    """The interval of a ratio: "1.71-1.85"."""
    if not (isinstance(bounds, (list, tuple)) and len(bounds) == 2 and all(is_number(bound) for bound in bounds)):
        return ABSENT
    return f"{bounds[0]:.2f}-{bounds[1]:.2f}"


def duration(seconds: float | None) -> str:
    """A wall time: "31.2 s", "4 min 05 s", "2 h 07 min"."""
    if not is_number(seconds):
        return ABSENT
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def plain(value: Any) -> str:
    """A setting or a recorded value in full, as a user would type it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value) or "none"
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value)


def short(value: Any) -> str:
    """A measured value to four digits; whole numbers in full, "-" for anything that is not a number."""
    if not is_number(value):
        return ABSENT
    return f"{value:,}" if isinstance(value, numbers.Integral) else f"{value:.4g}"
