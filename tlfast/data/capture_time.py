"""Images taken at nearly the same time, by the time stamps in their file names: they often show the same object."""

from __future__ import annotations

import os
import re
from bisect import bisect
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from .duplicates import make_finding
from .types import Finding, Row

STAMP = re.compile(r"(?<!\d)(\d{8})[-_T]?(\d{6})(?!\d)")
NEAR_SECONDS = 5.0


def read_capture_time(path: str) -> tuple[str, datetime] | None:
    """Return what precedes the time stamp in a file name, and the time; None without a valid stamp.

    >>> read_capture_time("images/20170914-100337-3.jpg")
    ('', datetime.datetime(2017, 9, 14, 10, 3, 37))
    """
    name = os.path.basename(path)
    match = STAMP.search(name)
    try:
        return (name[: match.start()], datetime.strptime("".join(match.groups()), "%Y%m%d%H%M%S")) if match else None
    except ValueError:  # digits that are no time
        return None


def find_near_in_time(rows: Sequence[Row]) -> list[Finding]:
    """Return the valid and test images that were taken within NEAR_SECONDS of a training image.

    Only images with the same text before the time stamp are compared, such as the name of a site. Each finding refers to the nearest training
    image; its value is the difference in seconds.
    """
    times = {row.path: taken for row in rows if (taken := read_capture_time(row.path))}
    training: dict[str, list[tuple[datetime, int]]] = defaultdict(list)
    for i, row in enumerate(rows):
        if row.split == "train" and row.path in times:
            prefix, time = times[row.path]
            training[prefix].append((time, i))
    for stamps in training.values():
        stamps.sort()
    findings = []
    for row in rows:
        if row.split in ("valid", "test") and row.path in times:
            prefix, time = times[row.path]
            place = bisect(training[prefix], (time, len(rows)))
            differences = [(abs((time - other).total_seconds()), i) for other, i in training[prefix][max(0, place - 1) : place + 1]]
            seconds, nearest = min(differences, default=(NEAR_SECONDS + 1, 0))
            if seconds <= NEAR_SECONDS:
                findings.append(make_finding("near in time", row, rows[nearest], seconds))
    return findings
