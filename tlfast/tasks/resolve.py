"""Merge declared defaults, task presets, a config file and flags into `Settings`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..core.errors import UsageError
from ..core.settings import DEPTH_ENDS, EPOCHS_FACTOR, FORMER_NAMES, STRATEGIES, Internals, Settings, build_settings
from ..data.task import Task


def resolve_settings(task: Task, strategy: str | None, flags: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Settings:
    """Merge declaration < task < task's preset for the strategy < config file < flags, and check every value.

    `flags` holds only what was typed. `--depth` is one scale with the strategies at its ends. Raises UsageError naming the flag.
    """
    config = dict(config or {})
    config.pop("task", None)
    if isinstance(config.get("full"), bool):  # as the flag is called
        config.setdefault("strategy", "full" if config.pop("full") else "partial")
    configured, depth = config.pop("strategy", None), _requested_depth(flags)
    if strategy and depth and strategy != DEPTH_ENDS.get(depth, "depth"):
        raise UsageError(f"--{strategy} and {'--depth' if 'depth' in flags else '--minutes'} are both given", "Leave one of them out")
    depth = depth or ("" if strategy in DEPTH_ENDS.values() else _requested_depth(config))
    if not strategy:
        strategy = DEPTH_ENDS.get(depth, "depth") if depth else configured or "partial"
    strategy = FORMER_NAMES.get(strategy, strategy)
    if strategy not in STRATEGIES:
        raise UsageError(f"strategy is '{strategy}'", "Use one of: " + ", ".join(STRATEGIES))
    ends = {name: end for end, name in DEPTH_ENDS.items()}
    values = {**task.defaults, **task.presets(strategy), **config, **flags, "depth": ends.get(strategy, depth or "auto")}
    settings = build_settings({"task": task.name, **values})
    if settings.minutes is not None and "epochs" not in {**config, **flags}:
        return dataclasses.replace(settings, internals=Internals(most_epochs=EPOCHS_FACTOR * settings.epochs))
    return settings


def _requested_depth(values: Mapping[str, Any]) -> str:
    return str(values.get("depth") or ("auto" if values.get("minutes") is not None else ""))
