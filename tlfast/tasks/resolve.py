"""Settings of a run from declared defaults, task presets, a config file and flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..core import Settings, UsageError
from ..core.earlier_settings import FORMER_NAMES
from ..core.presets import DEPTH_SETTINGS, NONE, PRESETS
from ..core.setting_checks import AUTO_DEPTH, BY_SIZE, DEPTH_ENDS
from ..core.settings import EPOCHS_FACTOR, STRATEGIES, Internals, build_settings
from ..data import Task


def resolve_settings(task: Task, strategy: str | None, flags: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Settings:
    """Merge and check all values. Increasing priority: declared defaults, task, task presets of the strategy, config file, `--preset`, flags.

    A preset in the config file comes before the other settings of the file.

    `flags` holds only the given flags. `--depth` and `--minutes` imply a strategy: 0 is partial, all is full, and everything else is depth.
    Raises UsageError with the name of the flag.
    """
    config, flags = dict(config or {}), dict(flags)
    config.pop("task", None)
    by_size = flags.pop(BY_SIZE, config.pop(BY_SIZE, Internals.by_size))  # of a run that is repeated
    if isinstance(config.get("full"), bool):  # named like the flag --full
        if "depth" in config:
            raise UsageError(f"the settings name both full = {str(config['full']).lower()} and depth = {config['depth']}", "Keep one of them")
        config.setdefault("strategy", "full" if config.pop("full") else "partial")
    flags, config = _apply_preset(bool(strategy), flags, config)
    configured_strategy, depth = config.pop("strategy", None), _requested_depth(flags)
    if strategy and depth and strategy != DEPTH_ENDS.get(depth, "depth"):
        raise UsageError(f"--{strategy} and {'--depth' if 'depth' in flags else '--minutes'} are both given", "Give only one of them")
    named = strategy or ("" if names_depth(config) else configured_strategy)
    depth = depth or ("" if named in DEPTH_ENDS.values() else _requested_depth(config))
    if not strategy:
        strategy = DEPTH_ENDS.get(depth, "depth") if depth else configured_strategy or "partial"
    strategy = FORMER_NAMES.get(strategy, strategy)
    if strategy not in STRATEGIES:
        raise UsageError(f"unknown strategy '{strategy}' in the config file", "Use one of: " + ", ".join(STRATEGIES))
    ends = {name: end for end, name in DEPTH_ENDS.items()}
    if strategy in ends:  # the planner, which knows the time budget, has nothing to choose
        if flags.get("minutes") is not None:
            raise UsageError(f"--depth {flags['depth']} and --minutes are both given", "Give only one of them, or a --depth between 0 and all")
        config.pop("minutes", None)
    values = {**task.defaults, **task.presets(strategy), **config, **flags, "depth": ends.get(strategy, depth or AUTO_DEPTH)}
    settings = build_settings({"task": task.name, **values})
    most = None
    if settings.minutes is not None or settings.depth == AUTO_DEPTH:
        most = settings.epochs if "epochs" in {**config, **flags} else EPOCHS_FACTOR * settings.epochs
    return dataclasses.replace(settings, internals=Internals(by_size=by_size, most_epochs=most))


def _apply_preset(strategy_given: bool, flags: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Return the flags and the values of the config file, with the settings of the preset that one of them names.

    The other settings in the same place override those of the preset.

    Raises UsageError if nothing of a preset is left.
    """
    typed, name = "preset" in flags, flags.get("preset", config.get("preset", NONE))
    if name not in PRESETS:  # none, or unknown: `build_settings` reports it
        return flags, dict(config)
    given = strategy_given or bool(_requested_depth(flags))
    preset = dict(PRESETS[name].settings)
    if given or (not typed and ("strategy" in config or _requested_depth(config))):
        preset = {setting: value for setting, value in preset.items() if setting not in DEPTH_SETTINGS}
    if given and not preset:
        raise UsageError(f"--preset {name} only chooses the layers to train, and another option does so too", "Leave out --preset, or the other option")
    if not typed:
        return flags, {**preset, **config}
    left_out = (*DEPTH_SETTINGS, "strategy") if _requested_depth(preset) else ()
    return {**preset, **flags}, {setting: value for setting, value in config.items() if setting not in left_out}


def _requested_depth(values: Mapping[str, Any]) -> str:
    """Return the value of --depth, "auto" if only --minutes is given, else ""."""
    return str(values["depth"]) if names_depth(values) else (AUTO_DEPTH if values.get("minutes") is not None else "")


def names_depth(values: Mapping[str, Any]) -> bool:
    """Return whether settings have a depth, which may be the number 0. In the file of a partial or full run it is empty."""
    return values.get("depth") not in (None, "")
