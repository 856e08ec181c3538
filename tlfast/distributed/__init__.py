"""Engines that run independent pieces of work: in this process, or on the machines of a Ray cluster.

To add an engine, write a class in `engines` and add it to `ENGINES`.
"""

from __future__ import annotations

from .engines import ENGINES, Engine, LocalEngine, RayEngine, open_engine

__all__ = ["ENGINES", "Engine", "LocalEngine", "RayEngine", "open_engine"]
