"""The fields of the settings: each has a default, a help text, a check, and a condition under which it has an effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .setting_checks import Check

if TYPE_CHECKING:
    from .settings import Settings


class Role(Enum):
    """What a setting changes, where code treats all settings of a kind alike."""

    RESULT = auto()  # the trained network: `compare` trains again for another value. The images.csv of a run is made with those of the data
    SPEED = auto()  # time and memory
    OUTPUT = auto()  # what a training writes, and when. `lr-find` has no use for them
    PLACE = auto()  # where something is: its content counts. `--resume` accepts other paths of the same place
    SHORTHAND = auto()  # other settings, which are recorded too


@dataclass(frozen=True)
class Condition:
    """When a setting has an effect: the beginning of its help text, or "", and a function of the settings."""

    prefix: str
    holds: Callable[[Settings], bool]

    @property
    def way(self) -> str:
        """The options with which the setting has an effect.

        >>> Condition("With --full or --depth", bool).way
        '--full or --depth'
        """
        return self.prefix.removeprefix("With ")


def _strategy_in(*strategies: str) -> Callable[[Settings], bool]:
    return lambda settings: settings.strategy in strategies


_trains_all, _trains_backbone = _strategy_in("full"), _strategy_in("full", "depth")
BACKBONE_TRAINS = Condition("With --full or --depth", _trains_backbone)
BACKBONE_RUNS_EACH_STEP = Condition("With --full, --depth or --train-bn", lambda settings: settings.train_bn or _trains_backbone(settings))
STEPS_TAKE_IMAGES = Condition("With --full, or --partial --train-bn", lambda settings: settings.train_bn or _trains_all(settings))
STAGES_TRAIN = Condition("With --depth", _strategy_in("depth"))
HEAD_TRAINS = Condition("With --partial", _strategy_in("partial"))
NOT_STORED = Condition("With --store off", lambda settings: settings.store == "off")
SEVERAL_PROCESSES = Condition("With --gpus", lambda settings: settings.gpus > 1)
VIEWS_DIFFER = Condition("", lambda settings: settings.augment != "none" and not settings.train_bn)
METRIC_CHOOSES = Condition("", lambda settings: settings.keep != "last" or settings.patience is not None)


def setting(
    default: Any,
    help: str,
    *,
    check: Check | None = None,
    choices: tuple[str, ...] = (),
    words: Mapping[str, int] = MappingProxyType({}),
    role: Role = Role.RESULT,
    when: Condition | None = None,
    refused: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Declare a setting: a dataclass field with a help text, and a check or a choice of words. `words` can be given in place of numbers.

    `role` tells what it changes. `when` is the condition under which the setting has an effect; its `prefix` comes before the help text. `refused` has
    the strategies with which the setting is an error, and the reasons; in other cases without effect a note names the setting.
    """
    text = f"{when.prefix}: {help}" if when and when.prefix else help
    return field(default=default, metadata={"help": text, "check": check, "choices": choices, "words": words, "role": role, "when": when, "refused": refused})
