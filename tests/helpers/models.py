"""Classes and statistics of untrained networks."""

from __future__ import annotations

STATS = ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
CLASSES = ("ant", "bee", "cat")
