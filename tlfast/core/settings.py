"""The settings of a run, each declared once with its default, help text and check.

`Settings` combines five groups, and a function takes the group that it reads. The options of the command line, the table in the documentation
and `run.json` follow from the declarations. To add a setting, add a field to its group.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .earlier_settings import convert_earlier
from .errors import UsageError
from .metrics import CHOICES
from .presets import NONE, PRESETS
from .setting_checks import (
    BY_SIZE,
    END_DEPTHS,
    FINDER,
    Check,
    at_least,
    between,
    check_depth,
    check_rate,
    check_regex,
    check_run_name,
    check_sizes,
    strategy_at,
)
from .setting_fields import (
    BACKBONE_RUNS_EACH_STEP,
    BACKBONE_TRAINS,
    HEAD_TRAINS,
    METRIC_CHOOSES,
    NOT_STORED,
    SEVERAL_PROCESSES,
    STAGES_TRAIN,
    STEPS_TAKE_IMAGES,
    VIEWS_DIFFER,
    Condition,
    Role,
    setting,
)
from .setting_values import check_value

STRATEGIES = (*END_DEPTHS, "depth")
AUTO_BATCH = 0  # `--bs auto`
EPOCHS_FACTOR = 2  # --minutes trains at most this many times the preset's epochs, unless --epochs is given
FOLDS = 5  # number of random folds for data without official folds
ON_ACTIVATIONS = "--depth trains on cached activations of the lower stages"


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The network, its weights and its input."""

    arch: str = setting("mobilenetv2_100", "Backbone: any timm model name.")
    head: Literal["fastai", "linear"] = setting("fastai", "Layers after the backbone: two linear layers as in fastai, or a single one.")
    weights: str = setting("auto", "Pretrained weights: auto, none, or a .safetensors or .pth file.", role=Role.PLACE)
    size: int = setting(128, "Side length of the square input image, in pixels.", check=between(8, 2048))
    crop_pct: float = setting(
        1.0,
        "Images are resized to size/crop-pct, then cropped to size: at a random place in training, at the centre otherwise.",
        check=between(0.1, 1),
    )
    resize: Literal["squish", "crop", "pad"] = setting("squish", "How to make images square: squeeze them, cut out the centre, or pad them.")

    @property
    def full_size(self) -> int:
        """Side in pixels to which an image is resized before the crop to `size`."""
        return round(self.size / self.crop_pct)


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The images: source, split, and cache of decoded images."""

    data: str = setting("", "Use these images: a folder, a zip, CSV, parquet, COCO or tar file, or hf://datasets/user/name.", role=Role.PLACE)
    path_col: str = setting("path", "Column of a CSV or parquet file with image paths, relative to that file.")
    label_col: str = setting("label", "Column with labels.")
    split_col: str = setting("split", "Column with the split: train, valid or test (optional).")
    group_col: str = setting("group", "Column with groups of images that must stay in one split (optional).")
    group_by: str = setting(
        "",
        "Regular expression for file names, whose match is the group of the image, or a grouping of the task, such as day. Groups stay in one split.",
        check=check_regex,
    )
    fold: int | None = setting(
        None, "Fold to hold out for validation: one of the official folds if the data has them, else one of 5 random folds.", check=at_least(0)
    )
    valid_pct: float = setting(0.2, "Fraction of the training images to hold out if the data has no valid split.", check=between(0.01, 0.9))
    limit: int | None = setting(None, "Use at most N images of each split, stratified by class, for quick tests.", check=at_least(2))
    train_pct: float = setting(1.0, "Fraction of the training images to use, stratified by class, for learning curves.", check=between(0.001, 1))
    store: Literal["auto", "ram", "disk", "off"] = setting(
        "auto", "Where to cache decoded images; auto: on disk, also for later runs, if there is room.", role=Role.SPEED
    )
    workers: int | None = setting(
        None, "loader processes. Default: none on a CPU, up to 8 with a GPU.", check=between(0, 256), when=NOT_STORED, role=Role.SPEED
    )


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """Data augmentation."""

    augment: Literal["none", "light", "standard", "strong"] = setting("standard", "Strength of data augmentation.")
    flip: Literal["none", "horizontal", "both"] = setting("horizontal", "Random flips (both: horizontal and vertical).")
    rotate: float | None = setting(None, "Maximum rotation in degrees. Default: that of the --augment preset.", check=between(0, 180))
    colour: bool = setting(True, "Also vary saturation and hue (no effect on grey images).")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Optimization: epochs, learning rate, batches, regularization, precision, seed."""

    preset: str = setting(
        NONE,
        "Settings for a purpose: quick (two minutes), good, or best (hours on a CPU). Options override them.",
        choices=(NONE, *PRESETS),
        role=Role.SHORTHAND,
    )
    epochs: int = setting(10, "Epochs of the layers to train (with --partial: of the head).", check=between(1, 10_000))
    freeze_epochs: int = setting(4, "epochs of the head with a frozen backbone, before other layers train.", check=between(0, 10_000), when=BACKBONE_TRAINS)
    depth: str = setting(
        "",
        "Layers to train: 0 for the head (as --partial), N for the head and the top N stages of the backbone, all (as --full), or auto.",
        check=check_depth,
    )
    minutes: float | None = setting(
        None,
        "Time budget: choose depth, views and epochs to train for about this many minutes (with --depth N only views and epochs; --epochs is the maximum).",
        check=at_least(0.1),
    )
    views: int = setting(
        2, "Number of views of each training image for a frozen backbone; the first view is not augmented.", check=between(1, 64), when=VIEWS_DIFFER
    )
    cache_gb: float | None = setting(None, "maximum size of the cached activations in GB. Default: the free disk space.", check=at_least(0), when=STAGES_TRAIN)
    cache_format: Literal["fp16", "fp32", "int8"] = setting("fp16", "Number format of cached features and activations; int8 takes half the space of fp16.")
    bs: int = setting(
        64,
        "Batch size; auto: the largest that fits and makes training of the backbone faster; --lr is then multiplied by the square root of batch size / 64.",
        check=between(1, 65_536),
        words={"auto": AUTO_BATCH},
    )
    accumulate: int = setting(
        1, "number of batches per optimizer step (gradient accumulation), at most those of an epoch.", check=between(1, 4096), when=BACKBONE_RUNS_EACH_STEP
    )
    lr: str = setting(
        "auto",
        "Learning rate; auto: the customary rate of each phase, or less if the loss climbs early in the learning-rate finder; finder: its suggestion.",
        check=check_rate,
    )
    class_weights: Literal["none", "balanced"] = setting("none", "Class weights in the loss; balanced: inversely proportional to class frequency.")
    label_smoothing: float = setting(0.0, "Label smoothing: fraction of the target that is spread evenly over all classes.", check=between(0, 0.9))
    mixup: float = setting(0.0, "Mixup strength (alpha); 0 disables mixup.", check=between(0, 10))
    teacher: str = setting("", "Runs as teachers, separated by commas: the training also learns their probabilities (distillation).", role=Role.PLACE)
    patience: int | None = setting(None, "Early stopping: stop after this many epochs without a better --metric. Default: off.", check=at_least(1))
    train_bn: bool = setting(
        False,
        "train the head on images with BatchNorm in training mode, as fastai does. Slow, because features are not cached.",
        when=HEAD_TRAINS,
        refused={"depth": f"trains on images, but {ON_ACTIVATIONS}"},
    )
    sizes: str = setting(
        "",
        "progressive resizing from these smaller sizes, such as 64,80, each for an equal share of the epochs.",
        check=check_sizes,
        when=STEPS_TAKE_IMAGES,
        refused={"depth": f"changes the images, but {ON_ACTIVATIONS}"},
    )
    ema: bool = setting(False, "evaluate and save an exponential moving average of the weights.", when=BACKBONE_RUNS_EACH_STEP)
    amp: Literal["auto", "off", "bf16", "fp16"] = setting(
        "auto", "Mixed precision, also of frozen layers; auto: whatever is clearly faster on a CPU, bf16 or fp16 on CUDA."
    )
    compile: bool = setting(False, "compile the trained layers with torch.compile.", when=BACKBONE_RUNS_EACH_STEP)
    deterministic: bool = setting(
        False, "On a GPU: use deterministic algorithms, so that the same seed gives the same metrics. They can be slower. A CPU always does."
    )
    keep: Literal["auto", "last", "best"] = setting(
        "auto", "Epoch whose weights are saved, the last or the best by --metric; auto: the last, or the best with --patience or another --metric."
    )
    metric: str = setting("accuracy", "Metric for --keep best and --patience.", choices=CHOICES, when=METRIC_CHOOSES)
    seed: int = setting(0, "Random seed.", check=between(0, 2**32 - 1))
    auto_bs: bool = setting(True, "if memory runs out, halve the batch size and double the gradient accumulation.", when=BACKBONE_RUNS_EACH_STEP)
    checkpoint_minutes: float = setting(
        10.0,
        "Minutes between checkpoints for --resume. Checkpoints are also written after epochs, at least five seconds apart.",
        check=at_least(0),
        role=Role.OUTPUT,
    )

    @property
    def rate(self) -> float | None:
        """The learning rate, None if it is chosen for each phase."""
        return None if self.lr in ("auto", FINDER) else float(self.lr)

    @property
    def keeps_best(self) -> bool:
        """Whether the weights of the best epoch are saved, in place of those of the last one."""
        return self.keep == "best" or (self.keep == "auto" and (self.patience is not None or self.metric != TrainingSettings.metric))

    @property
    def strategy(self) -> str:
        """The strategy for `depth`: partial, depth or full."""
        return strategy_at(self.depth or "0")

    @property
    def strategy_label(self) -> str:
        """The strategy with its depth, such as "partial", "full" or "depth 4"."""
        return f"depth {self.depth}" if self.strategy == "depth" else self.strategy


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Device and output."""

    onnx: bool = setting(True, "Also export model.onnx, for tlfast predict and other programs, and check it.", role=Role.OUTPUT)
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "Device to train on; auto uses a GPU if there is one.")
    gpus: int = setting(
        1,
        "number of processes, each on a GPU of its own; with --device cpu on the cores. --bs is per process.",
        check=between(1, 4096),
        when=BACKBONE_TRAINS,
        refused={"partial": "divides the batches of a backbone among GPUs, but only the head is trained, on cached features"},
    )
    sync_bn: bool = setting(False, "compute the statistics of BatchNorm from the batches of all processes.", when=SEVERAL_PROCESSES)
    out: str = setting("exports", "Folder for runs.", role=Role.PLACE)
    name: str = setting("", "Name of the run. Default: time, strategy and backbone.", check=lambda v: check_run_name(v) if v else "", role=Role.OUTPUT)
    log: str = setting("", "Experiment trackers, separated by commas: tensorboard, mlflow, wandb, trackio.", role=Role.OUTPUT)


@dataclass(frozen=True, kw_only=True)
class Internals:
    """Values without an option: those of comparisons, of `--minutes` and of `--depth auto`."""

    folds: int = FOLDS  # number of random folds
    base_seed: int | None = None  # seed of splits and augmented views if it differs from the seed of the training
    by_size: bool = True  # of folds of groups, those near --valid-pct are held out; version 0.1.0 took the first of round(1 / valid_pct)
    most_epochs: int | None = None  # with `minutes` or depth auto: maximum; `epochs` is the target when a depth is chosen


GROUPS: dict[str, type] = {
    "Model": ModelSettings,
    "Data": DataSettings,
    "Augmentation": AugmentationSettings,
    "Training": TrainingSettings,
    "Run": RunSettings,
}


@dataclass(frozen=True, kw_only=True)
class Settings(ModelSettings, DataSettings, AugmentationSettings, TrainingSettings, RunSettings):
    """All settings of a run, resolved once from declarations, task, config file and flags."""

    task: str
    internals: Internals = Internals()

    @property
    def split_seed(self) -> int:
        """Seed of splits and augmented views. `compare` keeps it fixed while it varies the seed of the training."""
        return self.seed if self.internals.base_seed is None else self.internals.base_seed

    def to_dict(self) -> dict[str, Any]:
        """Return all values in one flat dict, as in `run.json`; with the name of the strategy."""
        values = dataclasses.asdict(self)
        internals, depth = values.pop("internals"), "" if self.strategy in END_DEPTHS else self.depth
        for name, declaration in declared_settings().items():
            values[name] = next((word for word, number in declaration.words.items() if number == values[name]), values[name])
        return {"task": values.pop("task"), "strategy": self.strategy, **internals, **values, "depth": depth}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Build from the settings in a `run.json`, also of earlier versions. Raises UsageError for an unknown setting."""
        values = convert_earlier(values, declared_settings())
        strategy = values.pop("strategy", "")
        values["depth"] = END_DEPTHS.get(strategy, values.get("depth", ""))
        internals = {BY_SIZE: False} | {f.name: values.pop(f.name) for f in dataclasses.fields(Internals) if f.name in values}
        return build_settings(values, Internals(**internals))


@dataclass(frozen=True)
class Declaration:
    """A setting as declared: `type` is an annotation such as `int | None`, `group` the heading in `--help`."""

    name: str
    type: Any
    default: Any
    help: str
    group: str
    check: Check | None
    role: Role
    words: Mapping[str, int] = field(default_factory=dict)
    when: Condition | None = None
    refused: Mapping[str, str] = field(default_factory=dict)  # strategy -> reason

    @property
    def flag(self) -> str:
        """Option of the command line."""
        return flag_name(self.name)

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed words of a setting with a choice; else empty."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()


def declared_settings() -> dict[str, Declaration]:
    """Return all settings by name, in the order of `--help`."""
    declared = {}
    for group, kind in GROUPS.items():
        types = get_type_hints(kind)
        for f in dataclasses.fields(kind):
            choices = f.metadata["choices"]
            annotation = Literal[choices] if choices else types[f.name]
            facts = {name: value for name, value in f.metadata.items() if name != "choices"}
            declared[f.name] = Declaration(f.name, annotation, f.default, group=group, **facts)
    return declared


def names_with(*roles: Role, group: type = Settings) -> tuple[str, ...]:
    """Return the settings of a group with one of these roles.

    >>> names_with(Role.OUTPUT)
    ('onnx', 'name', 'log', 'checkpoint_minutes')
    """
    return tuple(f.name for f in dataclasses.fields(group) if f.metadata.get("role") in roles)


def flag_name(name: str) -> str:
    """Return the option of a setting.

    >>> flag_name("valid_pct")
    '--valid-pct'
    """
    return "--" + name.replace("_", "-")


def describe_strategy(values: Mapping[str, Any]) -> str:
    """Return the strategy in the settings of a `run.json`, also of earlier versions: "partial", "full" or such as "depth 4"."""
    return values["strategy"] if values["strategy"] in END_DEPTHS else f"depth {values['depth']}"


def build_settings(values: Mapping[str, Any], internals: Internals | None = None) -> Settings:
    """Convert and check every value. Raises UsageError with the name of the flag. `check_conflicts` checks values that a user gives."""
    internals, declared = internals or Internals(), declared_settings()
    converted = {name: value if name == "task" else check_value(name, value, declared) for name, value in values.items()}
    settings = Settings(**converted, internals=internals)
    if settings.fold is not None and settings.fold >= internals.folds:
        raise UsageError(f"--fold {settings.fold} must lie between 0 and {internals.folds - 1}")
    if settings.bs == 1 and settings.strategy != "partial":
        raise UsageError("--bs 1: BatchNorm cannot train on a single image", f"Use --bs 2 --accumulate {max(1, settings.accumulate // 2)}")
    if settings.sizes and int(settings.sizes.split(",")[-1]) >= settings.size:
        raise UsageError(f"--sizes {settings.sizes} must stay below --size {settings.size}", "Leave out the last size: the last epochs use --size anyway")
    return settings


def check_conflicts(settings: Settings, of_file: Collection[str] = ()) -> None:
    """Raise UsageError if a setting is given that the strategy refuses. `of_file` are the settings that a config file gives."""
    for name, declaration in declared_settings().items():
        if settings.strategy in declaration.refused and getattr(settings, name) != declaration.default:
            other = f", or use {declaration.when.way}" if declaration.when else ""
            off = f"--no-{declaration.flag[2:]}" if declaration.default is False else f"{declaration.flag} {declaration.default or NONE}"
            advice = f"Override the config file with {off}" if name in of_file else f"Leave out {declaration.flag}"
            raise UsageError(f"{declaration.flag} {declaration.refused[settings.strategy]}", f"{advice}{other}")


def find_unused(settings: Settings, also: Collection[str] = ()) -> list[str]:
    """Return the settings with other values than their defaults that have no effect on a training with these settings. `also` have none in any case."""
    without = [d for d in declared_settings().values() if d.name in also or (d.when and not d.when.holds(settings))]
    return [d.name for d in without if getattr(settings, d.name) != d.default]
