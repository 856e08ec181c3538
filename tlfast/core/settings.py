"""Every setting of a run, declared once with its default, meaning and check.

`Settings` combines five groups, each of which is a type of its own: a function takes the group that it reads. The options of the command line,
the README's table and `run.json` follow from the declarations.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .errors import UsageError, suggest_name

STRATEGIES = ("partial", "depth", "full")
FORMER_NAMES = {"middle": "depth"}  # names of strategies in runs and configurations of earlier versions
DEPTH_ENDS = {"0": "partial", "all": "full"}  # the ends of the scale of --depth
EPOCHS_FACTOR = 2  # --minutes trains at most this many times the preset's epochs, unless --epochs is given
FOLDS = 5  # drawn folds, where the data has none of its own

Check = Callable[[Any], str]  # returns what is wrong with a value, or ""


def setting(default: Any, help: str, *, check: Check | None = None, choices: tuple[str, ...] = ()) -> Any:
    """Declare one setting: a dataclass field with its help text, and its check or the words to choose from."""
    return field(default=default, metadata={"help": help, "check": check, "choices": choices})


def at_least(low: float) -> Check:
    return lambda value: "" if value >= low and math.isfinite(value) else f"must be at least {low:g}"


def between(low: float, high: float) -> Check:
    return lambda value: "" if low <= value <= high else f"must lie between {low} and {high}"


def _check_rate(value: str) -> str:
    if value == "auto":
        return ""
    try:
        rate = float(value)
    except ValueError:
        return "must be auto or a number such as 1e-3"
    return "" if 0 < rate <= 10 else "must be above 0 and at most 10"


def _check_sizes(value: str) -> str:
    numbers = [int(part) if part.strip().isdigit() else 0 for part in value.split(",")] if value else [8]
    return "" if min(numbers) >= 8 and numbers == sorted(set(numbers)) else "must be growing numbers of at least 8, such as 64,80"


def _check_depth(value: str) -> str:
    return "" if value in ("", "auto", *DEPTH_ENDS) or re.fullmatch(r"[1-9]\d?", value) else "must be 0, a number of stages such as 3, all, or auto"


def _check_regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        return f"is not a regular expression: {error}"
    return ""


def _check_run_name(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][\w.+-]*", value) and value != "latest":
        return ""
    return "must start with a letter or digit and hold only letters, digits, '.', '_', '+' and '-' (not 'latest')"


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The network, its weights and its input."""

    arch: str = setting("mobilenetv2_100", "Backbone: any timm name.")
    weights: str = setting("auto", "Pretrained weights: auto, none, or a .safetensors/.pth file.")
    size: int = setting(128, "Side of the square image that the network sees, in pixels.", check=between(8, 2048))
    crop_pct: float = setting(
        1.0,
        "Images are resized to size/crop-pct, then cropped to size: randomly in training, centrally otherwise.",
        check=between(0.1, 1),
    )
    resize: Literal["squish", "crop", "pad"] = setting("squish", "How an image becomes square: squeezed, its centre cut out, or padded.")

    @property
    def full_size(self) -> int:
        """Side in pixels to which an image is resized before the crop to `size`."""
        return round(self.size / self.crop_pct)


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The images: where they are, how they are split, where decoded ones are kept."""

    data: str = setting("", "Use these images instead: a folder, a zip or a CSV file; nothing is copied.")
    path_col: str = setting("path", "CSV column of image paths, relative to the CSV file.")
    label_col: str = setting("label", "CSV column of labels.")
    split_col: str = setting("split", "CSV column of train/valid/test, if there is one.")
    group_col: str = setting("group", "CSV column of groups that no split may divide, if there is one.")
    group_by: str = setting("", "Regular expression on the file name; what it matches is the image's group.", check=_check_regex)
    fold: int | None = setting(None, "Which fold to hold out: the data's own folds where it has some, else one of 5 drawn folds.", check=at_least(0))
    valid_pct: float = setting(0.2, "Share of the training images held out where the data has no valid part.", check=between(0.01, 0.9))
    limit: int | None = setting(None, "At most N images of each part, classes in proportion: for prototyping.", check=at_least(2))
    train_pct: float = setting(1.0, "Share of the training images that are used, classes in proportion: for learning curves.", check=between(0.001, 1))
    store: Literal["auto", "ram", "disk", "off"] = setting("auto", "Where decoded images are kept; auto: on disk for the next run too, where there is room.")
    workers: int | None = setting(None, "Loader processes with --store off; by default none on a CPU, up to 8 beside a GPU.", check=between(0, 256))


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """Random changes of training images."""

    augment: Literal["none", "light", "standard", "strong"] = setting("standard", "How much training images are varied.")
    flip: Literal["none", "horizontal", "both"] = setting("horizontal", "Mirrorings that keep the label (both: also vertical).")
    rotate: float | None = setting(None, "Largest rotation in degrees; by default what the augment preset says.", check=between(0, 180))
    colour: bool = setting(True, "Vary saturation and hue too (of no use on grey images).")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Optimization: epochs, rates, batches, regularization, precision, seed."""

    epochs: int = setting(10, "Epochs of the strategy's own phase (partial: of the classifier).", check=between(1, 10_000))
    freeze_epochs: int = setting(
        4, "With --full or --depth: epochs of the classifier alone, backbone frozen, before other layers train.", check=between(0, 10_000)
    )
    depth: str = setting(
        "",
        "How deep to train: the classifier (0, as --partial), also the backbone's topmost N stages, all of it (as --full), or auto.",
        check=_check_depth,
    )
    minutes: float | None = setting(
        None,
        "Choose depth, views and epochs (with --depth N views and epochs; --epochs N at most) so that the training ends in about so many minutes.",
        check=at_least(0.1),
    )
    views: int = setting(2, "Views of each training image that the frozen backbone is run on, the first one plain, the others augmented.", check=between(1, 64))
    cache_gb: float | None = setting(None, "With --depth: most gigabytes of stored activations; by default what the disk has to spare.", check=at_least(0))
    cache_format: Literal["fp16", "fp32", "int8"] = setting("fp16", "Number format of what is kept of a frozen backbone's output; int8 takes half the room.")
    bs: int = setting(64, "Images in a batch.", check=between(1, 65_536))
    accumulate: int = setting(1, "Batches whose gradients are added up before a step.", check=between(1, 4096))
    lr: str = setting("auto", "Learning rate; auto asks the learning-rate finder before each phase.", check=_check_rate)
    class_weights: Literal["none", "balanced"] = setting("none", "Weigh rare classes up in the loss.")
    label_smoothing: float = setting(0.0, "Share of the label spread over the other classes.", check=between(0, 0.9))
    mixup: float = setting(0.0, "Mixup strength (alpha); 0 is off.", check=between(0, 10))
    patience: int | None = setting(None, "Stop after this many epochs without a better metric.", check=at_least(1))
    train_bn: bool = setting(False, "With --partial: train the classifier on images, BatchNorm adapting, as fastai does; slow, for nothing is kept.")
    sizes: str = setting("", "With --full: smaller sizes to begin with, each for its share of the epochs, such as 64,80.", check=_check_sizes)
    ema: bool = setting(False, "With --full or --depth: judge and keep a moving average of the weights.")
    amp: Literal["auto", "off", "bf16", "fp16"] = setting(
        "auto", "With --full or --depth: number format; auto takes the faster on a CPU, bf16 or fp16 on a GPU."
    )
    compile: bool = setting(False, "With --full or --depth: compile what trains (torch.compile).")
    metric: str = setting("accuracy", "Judges which epoch is best; the best epoch is what is kept.")
    seed: int = setting(0, "Seed of every random choice.", check=between(0, 2**32 - 1))
    auto_bs: bool = setting(True, "With --full or --depth: where a GPU's memory does not suffice, halve the batch and add up twice as many.")
    checkpoint_minutes: float = setting(
        10.0, "Keep the state of the training this often, for --resume; also after epochs, at least five seconds apart.", check=at_least(0)
    )

    @property
    def rate(self) -> float | None:
        """The learning rate, or None where the finder chooses it."""
        return None if self.lr == "auto" else float(self.lr)

    @property
    def strategy(self) -> str:
        """The strategy that follows from `depth`: partial, depth or full."""
        return DEPTH_ENDS.get(self.depth or "0", "depth")

    @property
    def tuning(self) -> str:
        """The strategy in words: partial, full, or such as "depth 4"."""
        return f"depth {self.depth}" if self.strategy == "depth" else self.strategy


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Device and output."""

    onnx: bool = setting(True, "Also export model.onnx, which tlfast predict and other programs use, and check it.")
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "Where to train; auto takes a GPU where there is one.")
    out: str = setting("exports", "Folder that holds the runs.")
    name: str = setting("", "Name of this run; by default time, strategy and arch.", check=lambda v: _check_run_name(v) if v else "")


@dataclass(frozen=True, kw_only=True)
class Internals:
    """Values that no user sets: those of comparisons and of `--minutes`."""

    folds: int = FOLDS  # drawn folds
    base_seed: int | None = None  # seed of splits and augmented views, where the seed of the training varies
    most_epochs: int | None = None  # with `minutes`: most epochs; `epochs` is what the choice of a depth aims at


GROUPS: dict[str, type] = {
    "Model": ModelSettings,
    "Data": DataSettings,
    "Augmentation": AugmentationSettings,
    "Training": TrainingSettings,
    "Run": RunSettings,
}


@dataclass(frozen=True, kw_only=True)
class Settings(ModelSettings, DataSettings, AugmentationSettings, TrainingSettings, RunSettings):
    """Everything that a run depends on, resolved once; nothing below the command line reads a flag."""

    task: str
    internals: Internals = Internals()

    @property
    def split_seed(self) -> int:
        """Seed of splits and of augmented views, which stay the same while `compare` varies the seed of the training."""
        return self.seed if self.internals.base_seed is None else self.internals.base_seed

    def to_dict(self) -> dict[str, Any]:
        """Return all values in one flat dict, as `run.json` holds them; the strategy is written in words."""
        values = dataclasses.asdict(self)
        internals, depth = values.pop("internals"), "" if self.strategy in DEPTH_ENDS.values() else self.depth
        return {"task": values.pop("task"), "strategy": self.strategy, **internals, **values, "depth": depth}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Rebuild from `run.json`, also of earlier versions. Raises UsageError for an unknown setting."""
        values = dict(values)
        strategy = values.pop("strategy", "")
        ends = {name: depth for depth, name in DEPTH_ENDS.items()}
        values["depth"] = ends.get(strategy, values.get("depth", ""))
        names = [f.name for f in dataclasses.fields(Internals)]
        return build_settings(values, Internals(**{name: values.pop(name) for name in names if name in values}))


@dataclass(frozen=True)
class Declaration:
    """One setting as the user meets it: `type` is an annotation such as `int | None`, `group` its heading in `--help`."""

    name: str
    type: Any
    default: Any
    help: str
    group: str
    check: Check | None

    @property
    def flag(self) -> str:
        return flag_name(self.name)

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed words of a setting that is one of several; else empty."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()


def declared_settings() -> dict[str, Declaration]:
    """Return the settings that a user may give, by name, in the order of `--help`."""
    found = {}
    for group, kind in GROUPS.items():
        types = get_type_hints(kind)
        for f in dataclasses.fields(kind):
            choices = f.metadata["choices"]
            annotation = Literal[choices] if choices else types[f.name]
            found[f.name] = Declaration(f.name, annotation, f.default, f.metadata["help"], group, f.metadata["check"])
    return found


def flag_name(name: str) -> str:
    """Return the option of a setting: `--weight-decay` for weight_decay."""
    return "--" + name.replace("_", "-")


def describe_strategy(values: Mapping[str, Any]) -> str:
    """Return the strategy of a `run.json`'s settings in words, also of earlier versions: partial, full, or such as "depth 4"."""
    return values["strategy"] if values["strategy"] in DEPTH_ENDS.values() else f"depth {values['depth']}"


def build_settings(values: Mapping[str, Any], internals: Internals | None = None) -> Settings:
    """Convert and check every value. Raises UsageError that names the flag."""
    internals, declared = internals or Internals(), declared_settings()
    converted = {name: value if name == "task" else _check_value(name, value, declared) for name, value in values.items()}
    settings = Settings(**converted, internals=internals)
    if settings.fold is not None and settings.fold >= internals.folds:
        raise UsageError(f"--fold {settings.fold} must lie between 0 and {internals.folds - 1}")
    if settings.sizes and int(settings.sizes.split(",")[-1]) >= settings.size:
        raise UsageError(f"--sizes {settings.sizes} must stay below --size {settings.size}", "The last epochs are at --size by themselves")
    for name, (reason, way) in CONFLICTS.get(settings.strategy, {}).items():
        if getattr(settings, name):
            raise UsageError(f"{flag_name(name)} {reason}", f"Leave out {flag_name(name)}, or use {way}")
    return settings


# Strategy -> settings that it cannot honour: the reason, and the strategy to use instead.
CONFLICTS = {
    "depth": {
        "sizes": ("changes the images, but --depth trains on cached activations of the lower stages", "--full"),
        "train_bn": ("trains on images, but --depth trains on cached activations of the lower stages", "--partial"),
    }
}


def _check_value(name: str, value: Any, declared: Mapping[str, Declaration]) -> Any:
    """Return a value as its declared type. Raises UsageError."""
    if name not in declared:
        raise UsageError(f"unknown setting '{name}'", suggest_name(name, sorted(declared)) or "See tlfast train --help")
    own = declared[name]
    value = _convert(name, value, own.type)
    problem = own.check(value) if own.check and value is not None else ""
    if problem:
        ways = f"; by default it is {own.default!r}" if own.default not in ("", None) else ", or leave it out"
        raise UsageError(f"{own.flag} {value!s} {problem}", f"Give another value{ways}")
    return value


def _convert(name: str, value: Any, hint: Any) -> Any:
    """Return `value` as the declared type, or raise UsageError: a config file can hold anything."""
    if get_origin(hint) is Literal:
        return _check_choice(name, value, get_args(hint))
    wanted = next(t for t in _union_members(hint) if t is not type(None))
    if value is None and type(None) in _union_members(hint):
        return None
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise UsageError(f"{flag_name(name)} {value!r} is not {_describe_type(wanted)}")
    return value


def _check_choice(name: str, value: Any, choices: Iterable[str]) -> Any:
    if value not in choices:
        raise UsageError(f"{flag_name(name)} '{value}' is not one of: {', '.join(choices)}", suggest_name(str(value), list(choices)))
    return value


def _union_members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) or (hint,)


def _describe_type(wanted: type) -> str:
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}[wanted]
