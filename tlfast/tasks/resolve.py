"""Settings of a run from declared defaults, task presets, a config file and flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..core import Settings, UsageError
from ..core.earlier_settings import FORMER_NAMES
from ..core.presets import DEPTH_SETTINGS, PRESETS
from ..core.setting_checks import AUTO_DEPTH, BY_SIZE, END_DEPTHS, strategy_at
from ..core.settings import EPOCHS_FACTOR, STRATEGIES, Internals, build_settings, check_conflicts
from ..data import Task

LAYERS = (*DEPTH_SETTINGS, "strategy", "full")  # the values of a config file that choose the layers to train


def resolve_settings(task: Task, strategy: str | None, flags: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Settings:
    """Merge and check all values. Increasing priority: declared defaults, task, task presets of the strategy, config file, `--preset`, flags.

    A preset in the config file comes before the other settings of the file.

    `flags` holds only the given flags. `--depth` and `--minutes` imply a strategy: 0 is partial, all is full, and everything else is depth.
    Raises UsageError with the name of the flag.
    """
    flags, config = dict(flags), dict(config or {})
    by_size = flags.pop(BY_SIZE, config.pop(BY_SIZE, Internals.by_size))  # of a run that is repeated
    strategy, depth, preset, config = _merge(strategy, flags, config)
    config.pop("strategy", None)
    settings = build_settings({"task": task.name, **task.defaults, **task.presets(strategy), **preset, **config, **flags, "depth": depth})
    check_conflicts(settings, config.keys() - flags.keys())
    most = None
    if settings.minutes is not None or settings.depth == AUTO_DEPTH:
        most = settings.epochs if "epochs" in {**preset, **config, **flags} else EPOCHS_FACTOR * settings.epochs
    return dataclasses.replace(settings, internals=Internals(by_size=by_size, most_epochs=most))


def list_given(strategy: str | None, flags: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given values that `resolve_settings` would use, without those of a preset and of the task.

    The depth is among them if an option or the config file names the strategy or the depth. Raises UsageError.
    """
    _, depth, _, config = _merge(strategy, flags, config)
    named = bool(strategy or config.get("strategy")) or names_depth(config) or names_depth(flags)
    given = {name: value for name, value in {**config, **flags}.items() if name not in ("depth", "strategy", BY_SIZE)}
    return {**given, "depth": depth} if named else given


def override_config(config: Mapping[str, Any], file: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a config file and of another one, which has priority: if it chooses layers to train, the choice of the first is left out."""
    expanded = expand_preset(file)
    left_out = LAYERS if chooses_layers(expanded) else ()
    return {**{name: value for name, value in config.items() if name not in left_out}, **expanded}


def expand_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values from one place with those of the preset that they name. The other values in the same place override those of the preset."""
    return {**_settings_of(values.get("preset"), chooses_layers(values)), **values}


def _settings_of(preset: Any, without_layers: bool = False) -> dict[str, Any]:
    """Return the settings of a preset, also without those that choose the layers. None or an unknown one has none: `build_settings` reports it."""
    settings = PRESETS[preset].settings if isinstance(preset, str) and preset in PRESETS else {}
    return {name: value for name, value in settings.items() if not (without_layers and name in DEPTH_SETTINGS)}


def _merge(strategy: str | None, flags: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    """Return the strategy, its depth, the settings of the preset, and the values of the config file that neither the preset nor the strategy overrides.

    Raises UsageError if two flags choose different layers, or nothing of a typed preset is left.
    """
    preset, config = _apply_preset(bool(strategy), flags, _rename_full({name: value for name, value in config.items() if name != "task"}))
    strategy, depth = _choose_strategy(strategy, flags, {**preset, **config})
    if strategy in END_DEPTHS:  # the planner, which knows the time budget, has nothing to choose
        if flags.get("minutes") is not None:
            raise UsageError(f"--depth {depth} and --minutes are both given", "Give only one of them, or a --depth between 0 and all")
        config.pop("minutes", None)
    return strategy, depth, preset, config


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


def _apply_preset(strategy_given: bool, flags: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the preset that the flags or the config file name, and the values of the file that the preset does not override.

    Flags that choose the layers override such a choice of any preset. They are an error if nothing of a typed preset is left; a preset of the file is
    then left out. Raises UsageError.
    """
    typed, name = "preset" in flags, flags.get("preset", config.get("preset"))
    chosen = strategy_given or bool(_requested_depth(flags))
    preset = _settings_of(name, chosen or (not typed and chooses_layers(config)))
    left_out: tuple[str, ...] = ()
    if chosen and not preset and _settings_of(name):
        if typed:
            raise UsageError(f"--preset {name} only chooses the layers to train, and another option does so too", "Leave out --preset, or the other option")
        left_out = ("preset",)
    elif typed:
        left_out = (*preset, *(LAYERS if chooses_layers(preset) else ()))
    return preset, {setting: value for setting, value in config.items() if setting not in left_out}


def chooses_layers(values: Mapping[str, Any]) -> bool:
    """Return whether values from one place choose the layers to train."""
    return any(values.get(name) not in (None, "") for name in LAYERS)


def _requested_depth(values: Mapping[str, Any]) -> str:
    """Return the value of --depth, "auto" if only --minutes is given, else ""."""
    return str(values["depth"]) if names_depth(values) else (AUTO_DEPTH if values.get("minutes") is not None else "")


def names_depth(values: Mapping[str, Any]) -> bool:
    """Return whether settings have a depth, which may be the number 0. In the file of a partial or full run it is empty."""
    return values.get("depth") not in (None, "")
