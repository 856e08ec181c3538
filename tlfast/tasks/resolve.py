"""Settings of a run from declared defaults, task presets, a config file and flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..core import Settings, UsageError
from ..core.earlier_settings import FORMER_NAMES
from ..core.presets import DEPTH_SETTINGS, NONE, PRESETS
from ..core.setting_checks import AUTO_DEPTH, BY_SIZE, END_DEPTHS, strategy_at
from ..core.settings import EPOCHS_FACTOR, STRATEGIES, Internals, build_settings
from ..data import Task


def resolve_settings(task: Task, strategy: str | None, flags: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Settings:
    """Merge and check all values. Increasing priority: declared defaults, task, task presets of the strategy, config file, `--preset`, flags.

    A preset in the config file comes before the other settings of the file.

    `flags` holds only the given flags. `--depth` and `--minutes` imply a strategy: 0 is partial, all is full, and everything else is depth.
    Raises UsageError with the name of the flag.
    """
    flags, config = dict(flags), {name: value for name, value in (config or {}).items() if name != "task"}
    by_size = flags.pop(BY_SIZE, config.pop(BY_SIZE, Internals.by_size))  # of a run that is repeated
    flags, config = _apply_preset(bool(strategy), flags, _rename_full(config))
    strategy, depth = _choose_strategy(strategy, flags, config)
    config.pop("strategy", None)
    if strategy in END_DEPTHS:  # the planner, which knows the time budget, has nothing to choose
        if flags.get("minutes") is not None:
            raise UsageError(f"--depth {depth} and --minutes are both given", "Give only one of them, or a --depth between 0 and all")
        config.pop("minutes", None)
    settings = build_settings({"task": task.name, **task.defaults, **task.presets(strategy), **config, **flags, "depth": depth})
    most = None
    if settings.minutes is not None or settings.depth == AUTO_DEPTH:
        most = settings.epochs if "epochs" in {**config, **flags} else EPOCHS_FACTOR * settings.epochs
    return dataclasses.replace(settings, internals=Internals(by_size=by_size, most_epochs=most))


def _rename_full(config: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a config file, in which `full`, named like the flag --full, has become a strategy. Raises UsageError if a depth is there too."""
    if not isinstance(config.get("full"), bool):
        return config
    if "depth" in config:
        raise UsageError(f"the settings name both full = {str(config['full']).lower()} and depth = {config['depth']}", "Keep one of them")
    rest = dict(config)
    return {"strategy": "full" if rest.pop("full") else "partial", **rest}


def _choose_strategy(strategy: str | None, flags: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, str]:
    """Return the strategy and its depth, from the first of: --full or --partial, another flag, the depth, strategy and minutes of the config file.

    Raises UsageError if two flags differ, or the file names an unknown strategy.
    """
    requested, configured = _requested_depth(flags), str(config.get("strategy") or "")
    configured = FORMER_NAMES.get(configured, configured)
    if strategy:
        if requested and strategy != strategy_at(requested):
            raise UsageError(f"--{strategy} and {'--depth' if 'depth' in flags else '--minutes'} are both given", "Give only one of them")
    elif not requested and configured in END_DEPTHS and not names_depth(config):
        strategy = configured
    else:
        requested = requested or _requested_depth(config)
        strategy = strategy_at(requested) if requested else configured or "partial"
    if strategy not in STRATEGIES:
        raise UsageError(f"unknown strategy '{strategy}' in the config file", "Use one of: " + ", ".join(STRATEGIES))
    return strategy, END_DEPTHS.get(strategy, requested or AUTO_DEPTH)


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
