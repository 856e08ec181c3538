"""Every setting of a run, declared once: its default, meaning and check.

The command line, the README's table and `run.json` follow from the declarations in `Settings`.
A `Task` brings its own defaults; `resolve` merges them all, once, into a frozen `Settings`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .errors import UsageError, suggest_name

STRATEGIES = ("partial", "middle", "full")
DEPTH_ENDS = {"0": "partial", "all": "full"}  # of the scale of --depth, and what each is called

Check = Callable[[Any], str]  # returns what is wrong with a value, or ""


def setting(default: Any, help: str, *, group: str, check: Check | None = None) -> Any:
    """Declare one setting: a dataclass field that carries its help text, its group in `--help` and its check."""
    return field(default=default, metadata={"help": help, "group": group, "check": check})


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
    return "" if value in ("", "auto") or re.fullmatch(r"[1-9]\d?", value) else "must be 0, a number of stages such as 3, all, or auto"


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


EPOCHS_FACTOR = 2  # times the preset's epochs that --minutes may come to, unless epochs were typed


@dataclass(frozen=True)
class Settings:
    """Everything that a run depends on, resolved once; nothing below the command line reads a flag."""

    task: str
    strategy: Literal["partial", "middle", "full"] = "partial"
    # Of `compare`, which says them with its own options: how many folds are drawn, and the seed of splits and views where the training's varies.
    folds: int = 5
    base_seed: int | None = None
    # With `minutes`: so many epochs where the time allows it, `epochs` those that the choice of a depth aims at.
    most_epochs: int | None = None

    arch: str = setting("mobilenetv2_100", "Backbone: any timm name.", group="Model")
    weights: str = setting("auto", "Pretrained weights: auto, none, or a .safetensors/.pth file.", group="Model")
    size: int = setting(128, "Side of the square image that the network sees, in pixels.", group="Model", check=between(8, 2048))
    crop_pct: float = setting(
        1.0,
        "Images are resized to size/crop-pct, then cropped to size: randomly in training, centrally otherwise.",
        group="Model",
        check=between(0.1, 1),
    )
    resize: Literal["squish", "crop", "pad"] = setting("squish", "How an image becomes square: squeezed, its centre cut out, or padded.", group="Model")

    data: str = setting("", "Use these images instead: a folder, a zip or a CSV file; nothing is copied.", group="Data")
    path_col: str = setting("path", "CSV column of image paths, relative to the CSV file.", group="Data")
    label_col: str = setting("label", "CSV column of labels.", group="Data")
    split_col: str = setting("split", "CSV column of train/valid/test, if there is one.", group="Data")
    group_col: str = setting("group", "CSV column of groups that no split may divide, if there is one.", group="Data")
    group_by: str = setting("", "Regular expression on the file name; what it matches is the image's group.", group="Data", check=_check_regex)
    fold: int | None = setting(
        None, "Which fold to hold out: the data's own folds where it has some, else one of 5 drawn folds.", group="Data", check=at_least(0)
    )
    valid_pct: float = setting(0.2, "Share of the training images held out where the data has no valid part.", group="Data", check=between(0.01, 0.9))
    limit: int | None = setting(None, "At most N images of each part, classes in proportion: for prototyping.", group="Data", check=at_least(2))
    train_pct: float = setting(
        1.0, "Share of the training images that are used, classes in proportion: for learning curves.", group="Data", check=between(0.001, 1)
    )
    store: Literal["auto", "ram", "disk", "off"] = setting(
        "auto", "Where decoded images are kept; auto: on disk for the next run too, where there is room.", group="Data"
    )
    workers: int | None = setting(
        None, "Loader processes with --store off; by default none on a CPU, up to 8 beside a GPU.", group="Data", check=between(0, 256)
    )

    augment: Literal["none", "light", "standard", "strong"] = setting("standard", "How much training images are varied.", group="Augmentation")
    flip: Literal["none", "horizontal", "both"] = setting("horizontal", "Mirrorings that keep the label (both: also vertical).", group="Augmentation")
    rotate: float | None = setting(None, "Largest rotation in degrees; by default what the augment preset says.", group="Augmentation", check=between(0, 180))
    colour: bool = setting(True, "Vary saturation and hue too (of no use on grey images).", group="Augmentation")

    epochs: int = setting(10, "Epochs of the strategy's own phase (partial: of the classifier).", group="Training", check=between(1, 10_000))
    freeze_epochs: int = setting(
        4, "With --full or --depth: epochs of the classifier alone, backbone frozen, before other layers train.", group="Training", check=between(0, 10_000)
    )
    depth: str = setting(
        "",
        "How deep to train: the classifier (0, as --partial), also the backbone's topmost N stages, all of it (as --full), or auto.",
        group="Training",
        check=_check_depth,
    )
    minutes: float | None = setting(
        None,
        "Choose depth, views and epochs (with --depth N views and epochs; --epochs N at most) so that the training ends in about so many minutes.",
        group="Training",
        check=at_least(0.1),
    )
    views: int = setting(
        2, "Views of each training image that the frozen backbone is run on, the first one plain, the others augmented.", group="Training", check=between(1, 64)
    )
    cache_gb: float | None = setting(
        None, "With --depth: most gigabytes of stored activations; by default what the disk has to spare.", group="Training", check=at_least(0)
    )
    cache_format: Literal["fp16", "fp32", "int8"] = setting(
        "fp16", "Number format of what is kept of a frozen backbone's output; int8 takes half the room.", group="Training"
    )
    bs: int = setting(64, "Images in a batch.", group="Training", check=between(1, 65_536))
    accumulate: int = setting(1, "Batches whose gradients are added up before a step.", group="Training", check=between(1, 4096))
    lr: str = setting("auto", "Learning rate; auto asks the learning-rate finder before each phase.", group="Training", check=_check_rate)
    class_weights: Literal["none", "balanced"] = setting("none", "Weigh rare classes up in the loss.", group="Training")
    label_smoothing: float = setting(0.0, "Share of the label spread over the other classes.", group="Training", check=between(0, 0.9))
    mixup: float = setting(0.0, "Mixup strength (alpha); 0 is off.", group="Training", check=between(0, 10))
    patience: int | None = setting(None, "Stop after this many epochs without a better metric.", group="Training", check=at_least(1))
    train_bn: bool = setting(
        False, "With --partial: train the classifier on images, BatchNorm adapting, as fastai does; slow, for nothing is kept.", group="Training"
    )
    sizes: str = setting("", "With --full: smaller sizes to begin with, each for its share of the epochs, such as 64,80.", group="Training", check=_check_sizes)
    ema: bool = setting(False, "With --full or --depth: judge and keep a moving average of the weights.", group="Training")
    amp: Literal["auto", "off", "bf16", "fp16"] = setting(
        "auto", "With --full or --depth: number format; auto takes the faster on a CPU, bf16 or fp16 on a GPU.", group="Training"
    )
    compile: bool = setting(False, "With --full or --depth: compile what trains (torch.compile).", group="Training")
    metric: Literal["accuracy", "macro_f1", "balanced_accuracy", "valid_loss"] = setting(
        "accuracy", "Judges which epoch is best; the best epoch is what is kept.", group="Training"
    )
    seed: int = setting(0, "Seed of every random choice.", group="Training", check=between(0, 2**32 - 1))
    auto_bs: bool = setting(True, "With --full or --depth: where a GPU's memory does not suffice, halve the batch and add up twice as many.", group="Training")
    checkpoint_minutes: float = setting(
        10.0, "Keep the state of the training this often, for --resume; also after epochs, at least five seconds apart.", group="Training", check=at_least(0)
    )

    onnx: bool = setting(True, "Also export model.onnx, which tlfast predict and other programs use, and check it.", group="Run")
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "Where to train; auto takes a GPU where there is one.", group="Run")
    out: str = setting("exports", "Folder that holds the runs.", group="Run")
    name: str = setting("", "Name of this run; by default time, strategy and arch.", group="Run", check=lambda v: _check_run_name(v) if v else "")

    @property
    def rate(self) -> float | None:
        """The learning rate, or None where the finder is to choose it."""
        return None if self.lr == "auto" else float(self.lr)

    @property
    def tuning(self) -> str:
        """How deep it trains, in words: partial, full, or such as "depth 4"."""
        return f"depth {self.depth}" if self.strategy == "middle" else self.strategy

    @property
    def fixed_seed(self) -> int:
        """The seed of what stays the same while `compare` trains with several seeds: splits, and the views that the backbone is run on."""
        return self.seed if self.base_seed is None else self.base_seed

    @property
    def full_size(self) -> int:
        """Side in pixels to which an image is resized before the crop to `size`."""
        return round(self.size / self.crop_pct)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Rebuild from `run.json`; settings that this version does not know are an error, not a loss."""
        return build_settings(dict(values))


def declared_settings() -> dict[str, dataclasses.Field]:
    """Return the settings that a user may give, by name: all fields with a declaration."""
    return {f.name: f for f in dataclasses.fields(Settings) if "help" in f.metadata}


def setting_types() -> dict[str, Any]:
    """Return each setting's type, by name."""
    return get_type_hints(Settings)


def flag_name(name: str) -> str:
    return "--" + name.replace("_", "-")


def build_settings(values: dict[str, Any]) -> Settings:
    known = {f.name for f in dataclasses.fields(Settings)}
    for name in values:
        if name not in known:
            raise UsageError(f"unknown setting '{name}'", suggest_name(name, sorted(known)) or "See tlfast train --help")
    fields, hints = declared_settings(), setting_types()
    for name, value in values.items():
        if name in fields:
            values[name] = _convert(name, value, hints[name])
            check = fields[name].metadata["check"]
            problem = check(values[name]) if check and values[name] is not None else ""
            if problem:
                default = fields[name].default
                ways = f"; by default it is {default!r}" if default not in ("", None) else ", or leave it out"
                raise UsageError(f"{flag_name(name)} {value!s} {problem}", f"Give another value{ways}")
    settings = Settings(**values)
    if settings.fold is not None and settings.fold >= settings.folds:
        raise UsageError(f"--fold {settings.fold} must lie between 0 and {settings.folds - 1}")
    if settings.sizes and settings.strategy == "middle":
        raise UsageError("--sizes changes images, of which --depth keeps what the lower stages made", "Leave out --sizes, or use --full")
    if settings.train_bn and settings.strategy == "middle":
        raise UsageError("--train-bn trains on images, of which --depth keeps what the lower stages made", "Leave out --train-bn, or use --partial")
    if settings.sizes and int(settings.sizes.split(",")[-1]) >= settings.size:
        raise UsageError(f"--sizes {settings.sizes} must stay below --size {settings.size}", "The last epochs are at --size by themselves")
    return settings


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
