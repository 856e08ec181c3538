"""`tlfast compare`: strategies, backbones or settings, trained and evaluated on the same images.

The steps, one section each: arms from the command line, the comparison, costs, files. The statistics are in `evaluation.comparison`, the trainings of
the arms in `comparison_trainings`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ..core import (
    DataError,
    DataSettings,
    Event,
    ImageError,
    Interrupted,
    ModelSettings,
    Note,
    OnEvent,
    Progress,
    Settings,
    UsageError,
    files,
    ignore_event,
    runs,
)
from ..core.config_files import read_config
from ..core.errors import suggest_name
from ..core.run_files import REPORT_FILE
from ..core.setting_checks import COMPARISONS, DEPTH_ENDS, END_DEPTHS
from ..core.settings import find_unused, flag_name
from ..data import ImageTable, Preprocessing, Row, Task, images
from ..data.sources import open_data
from ..distributed import Engine, LocalEngine
from ..evaluation import Arm, CompareResult, Design, RankedBackbone, plots
from ..evaluation.comparison import (
    Cost,
    build_curve,
    compare_pairs,
    find_crossings,
    measure_macro_f1,
    score_arm,
)
from ..evaluation.evaluator import are_enough, list_groups
from ..evaluation.report import render_comparison_page
from ..evaluation.verdict import describe_design, write_verdict
from ..export import metadata, onnx
from ..inference import Network, open_network
from ..models import Weights, build, find_weights, list_stages, weights
from ..tasks import resolve_settings
from ..tasks.resolve import LAYERS, chooses_layers, expand_preset, override_config
from ..training import EpochEnd, StepEnd, experiments
from ..training.distillation import describe_leaks, find_teachers
from ..training.processes import require_single
from ..training.trackers import open_tracking
from .comparison_trainings import train_arms
from .setting_notes import note_unused
from .tracked import TrackedComparison, describe_images

ARMS_FILE, DIFFERENCES_FILE, CURVE_FILE = "arms.csv", "differences.csv", "learning_curve.csv"
KNN = "knn"  # the arm of nearest neighbours
DEPTHS = "depths"  # in place of arms: partial, full and depths in between, as with --depths
KINDS = (*DEPTH_ENDS, *END_DEPTHS, "auto", KNN)  # values of --arms, besides numbers of stages and TOML files
MAX_DEPTHS = 4  # between partial and full, with --depths
DIFFERENT_IMAGES, DIFFERENT_IMAGES_HINT = "the arms are evaluated on different images", "Give all arms the same --data, --limit, --valid-pct and --seed"
LATENCY_ROUNDS = 30

# Arms


@dataclass(frozen=True)
class ArmsRequest:
    """What the arms of a comparison are built from: the arguments of `build_arms`, and the ranking that the backbones were chosen from."""

    kinds: Sequence[str]
    archs: Sequence[str]
    flags: Mapping[str, Any]
    config: Mapping[str, Any]
    ranking: Sequence[RankedBackbone] = ()


def build_arms(task: Task, kinds: Sequence[str], archs: Sequence[str], flags: Mapping[str, Any], config: Mapping[str, Any]) -> list[Arm]:
    """Return one arm for each combination of a kind (partial, full, a depth, knn, a TOML file of settings, or DEPTHS for several) and a backbone.

    `flags` are the settings of the command line, `config` those of its file. Without `archs`, the backbone follows from the settings. Raises UsageError.
    """
    if "depth" in flags or "minutes" in flags:
        raise UsageError("--depth and --minutes apply to one training", "Name the depths to compare, such as: --arms partial,2,4,full; or use --depths")
    if "gpus" in flags:
        raise UsageError("--gpus applies to one training", "Leave out --gpus; tlfast train supports it")
    arms = []
    for kind, arch in _combine(task, kinds, archs, flags, config):
        is_file = kind.endswith(".toml")
        if kind not in KINDS and not kind.isdigit() and not is_file:
            found = f"--arms '{kind}' is neither partial, full, a depth, knn nor a TOML file"
            raise UsageError(found, "Such as: --arms partial,3,full or --arms partial,mine.toml")
        of_file = read_config(kind) if is_file else {}
        _check_overrides(kind, of_file, flags, arch)
        strategy = "partial" if kind == KNN else kind if kind in END_DEPTHS else None
        depth = {} if is_file or strategy else {"depth": kind}
        settings = resolve_settings(task, strategy, {**flags, **depth, **arch}, override_config(config, of_file))
        name = Path(kind).stem if is_file or kind == KNN else settings.strategy_label
        arms.append(Arm(f"{name} {settings.arch}" if len(archs) > 1 else name, settings, kind == KNN))
    return arms


def _combine(
    task: Task, kinds: Sequence[str], archs: Sequence[str], flags: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each kind of arm with each backbone, as a setting; for DEPTHS those of the backbone. Raises UsageError."""
    for kind, arch in product(kinds, [{"arch": name} for name in archs] or [{}]):
        for each in _list_depths(task, {**flags, **arch}, config) if kind == DEPTHS else [kind]:
            yield each, arch


def _check_overrides(file: str, values: Mapping[str, Any], flags: Mapping[str, Any], arch: Mapping[str, str]) -> None:
    """Raise UsageError if a flag would override a setting in the file of an arm: then the arms would not differ as their files say.

    `arch` is a backbone of `--archs`. A preset, typed or in the file, stands for its settings. A typed one chooses the layers in place of the file.
    """
    given, of_file = {**expand_preset(flags), **arch}, expand_preset(values)
    layers = LAYERS if chooses_layers(given) else ()
    for name in sorted(of_file.keys() & {*given, *layers}):
        if str(of_file[name]) != str(given.get(name)):
            typed, value = ("archs", arch[name]) if name in arch else (name, flags[name]) if name in flags else ("preset", flags["preset"])
            written = name if name in values else "preset"
            found = f"{flag_name(typed)} {value} would override {written} = {values[written]} of the arm {file}"
            raise UsageError(found, f"Leave out {flag_name(typed)}, or remove {written} from the file")


def _list_depths(task: Task, flags: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Return kinds of arms: partial, up to four evenly spaced depths, and full. Raises UsageError if the stages are unknown."""
    settings = resolve_settings(task, None, flags, config)
    build.check_arch(settings.arch)
    count = _count_stages(settings.arch, settings.size)
    depths = {round(depth) for depth in np.linspace(1, count, min(count, MAX_DEPTHS))}
    return ["partial", *map(str, sorted(depths)), "full"]


@cache
def _count_stages(arch: str, size: int) -> int:
    """Return the number of stages above the stem. Raises UsageError for a network without declared stages."""
    return len(list_stages(build.build_body(Weights("none", arch), size), arch))


# The comparison


def compare_arms(
    task: Task,
    arms: Sequence[Arm],
    design: Design | None = None,
    on_event: OnEvent = ignore_event,
    engine: Engine | None = None,
    ranking: Sequence[RankedBackbone] = (),
) -> CompareResult:
    """Train every arm with every fold, seed and share of the design, compare the arms, and write tables, plots and a page.

    Trainings are cached, and so are checkpoints of an unfinished one, so that an interrupted comparison continues. `engine` runs the trainings, by default
    in this process. `ranking` is that from which the backbones were chosen. Raises TlfastError.
    """
    design, engine = design or Design(), engine or LocalEngine()
    _check_design(arms, design)
    for arm in arms:
        require_single(arm.settings, "compare")
    started, listen, run_id = time.perf_counter(), _filter_events(on_event), time.strftime("%Y%m%d-%H%M%S")
    first = arms[0].settings
    runs.check_writable(first.out, first.task, "")
    table = open_data(task, experiments.place_on_fold(first, design.folds, 0), on_event)
    _check_arms(task, arms, design, table, listen)
    notes = _collect_notes(arms, table, listen)
    try:
        with open_tracking(first.log, listen) as tracking:
            tracked = TrackedComparison(tracking, f"comparison-{run_id}", describe_images(tracking, table))
            predictions = train_arms(task, arms, design, table.classes, tracked, engine)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; finished trainings and checkpoints are cached", "Repeat the command to continue") from None
    rows = _list_rows(task, first, table)
    predictions = {key: replace(of_arm, groups=_list_groups(rows, of_arm.paths, listen)) for key, of_arm in predictions.items()}
    on_all_images = [predictions[arm.name, 1.0] for arm in arms]
    if any(of_arm.paths != on_all_images[0].paths for of_arm in predictions.values()):
        raise UsageError(DIFFERENT_IMAGES, DIFFERENT_IMAGES_HINT)
    costs = _measure_costs(arms, table, listen)
    f1 = [measure_macro_f1(of_arm, len(table.classes)) for of_arm in on_all_images]
    scores = [score_arm(arm, of_arm, arm_f1, costs[arm.name]) for arm, of_arm, arm_f1 in zip(arms, on_all_images, f1, strict=True)]
    differences = compare_pairs(arms, on_all_images, f1, design.baseline)
    curve = build_curve(arms, design, predictions) if len(design.shares) > 1 else []
    result = CompareResult(
        task=first.task,
        source=table.source,
        judged_on=describe_design(design, on_all_images[0]),
        arms=scores,
        differences=differences,
        verdict=write_verdict(scores, differences, design.baseline),
        curve=curve,
        crossings=find_crossings(curve),
        reused=sum(outcome.reused for of_arm in predictions.values() for outcome in of_arm.outcomes),
        seconds=time.perf_counter() - started,
        ranking=list(ranking),
        notes=notes,
    )
    return _write_comparison(result, first.out, run_id)


def _check_design(arms: Sequence[Arm], design: Design) -> None:
    """Raise UsageError if there is nothing to compare or two arms have the same name."""
    names = [arm.name for arm in arms]
    if not arms:
        raise UsageError("--arms is empty", "Such as: --arms partial,full")
    if design.seeds < 1:
        raise UsageError(f"--seeds {design.seeds} must be at least 1")
    if design.folds == 1:
        raise UsageError("--folds 1 leaves nothing to train on", "Use 2 folds or more, or 0 for the valid split")
    if not all(0 < share <= 1 for share in design.shares):
        raise UsageError(f"shares {design.shares} of the training images are not all above 0 and at most 1", "Such as: (0.1, 0.3, 1.0)")
    if len(set(names)) < len(names):
        raise UsageError(f"two arms have the same name: {', '.join(names)}", "Name each strategy and backbone once, and give files different names")
    if design.baseline and design.baseline not in names:
        raise UsageError(f"--baseline {design.baseline} is not one of the arms: {', '.join(names)}", suggest_name(design.baseline, names))
    if len(arms) < 2 and design.folds < 2 and design.seeds < 2 and len(design.shares) < 2:
        raise UsageError(f"one arm ({names[0]}) and nothing to compare it with", "Give several --arms or --archs, or --folds, --seeds or --learning-curve")
    if any(arm.settings.name for arm in arms):
        raise UsageError("--name names a run, and a comparison writes none", "Leave out --name; the folder of a comparison has the time as its name")
    if any(arm.settings.fold is not None for arm in arms):
        raise UsageError("--fold selects a single fold", "Use --folds K to compare on all of them")


def _check_arms(task: Task, arms: Sequence[Arm], design: Design, table: ImageTable, on_event: OnEvent) -> None:
    """Check, before the first training, that the arms are evaluated on the images of `table`, and have backbones with weights and stages. Raises UsageError."""
    names, first = [field.name for field in fields(DataSettings)], experiments.place_on_fold(arms[0].settings, design.folds, 0)
    valid = {row.path for row in table.part("valid")}
    for arm in arms:
        build.check_arch(arm.settings.arch)
        find_weights(arm.settings.arch, arm.settings.weights)
        _check_depth(arm.settings)
        settings = experiments.place_on_fold(arm.settings, design.folds, 0)
        is_other = settings.split_seed != first.split_seed or any(getattr(settings, name) != getattr(first, name) for name in names)
        if is_other and {row.path for row in open_data(task, settings, on_event).part("valid")} != valid:
            raise UsageError(DIFFERENT_IMAGES, DIFFERENT_IMAGES_HINT)


def _collect_notes(arms: Sequence[Arm], table: ImageTable, on_event: OnEvent) -> list[str]:
    """Send notes on settings without effect on any arm, and on teachers that were trained on images of the valid split; return the latter.

    Trainings that are cached or run by an engine send none.
    """
    unused = [find_unused(arm.settings, ["onnx"]) for arm in arms]
    note_unused([name for name in unused[0] if all(name in of_arm for of_arm in unused)], on_event)
    leaks = list(dict.fromkeys(note for arm in arms for note in describe_leaks(find_teachers(arm.settings), table)))
    for note in leaks:
        on_event(Note("data", note))
    return leaks


def _check_depth(settings: Settings) -> None:
    """Raise UsageError for a depth that the backbone does not have."""
    if not settings.depth.isdigit() or settings.depth in DEPTH_ENDS:
        return
    count = _count_stages(settings.arch, settings.size)
    if int(settings.depth) > count:
        found = f"the arm of depth {settings.depth}: {settings.arch} has {count} stages above its stem"
        raise UsageError(found, f"Use a number up to {count}, or full; --depths compares the depths that each backbone has")


def _list_rows(task: Task, settings: Settings, table: ImageTable) -> dict[str, Row]:
    """Return all images by path; `--limit` selects others in each fold."""
    rows = table.rows if settings.limit is None else open_data(task, replace(settings, limit=None)).rows
    return {row.path: row for row in rows}


def _list_groups(rows: Mapping[str, Row], paths: Sequence[str], on_event: OnEvent) -> list[str]:
    """Return the group of each image, for intervals and tests over groups; empty without enough groups."""
    groups = list_groups([rows[path] for path in paths])
    if not groups or are_enough(groups):
        return groups
    on_event(Note("comparison", f"{len(set(groups))} groups are too few for intervals and tests over groups: they are over images"))
    return []


def _filter_events(on_event: OnEvent) -> OnEvent:
    """Return a listener that passes on progress and each different note once, but no epochs, which would mix many trainings."""
    notes: set[Event] = set()

    def listen(event: Event) -> None:
        if isinstance(event, EpochEnd | StepEnd) or (isinstance(event, Note) and event in notes):
            return
        if isinstance(event, Note):
            notes.add(event)
        on_event(event)

    return listen


# Costs


@dataclass(frozen=True)
class _Architecture:
    """The settings that determine the cost of inference."""

    arch: str
    head: str
    size: int
    full_size: int
    resize: str

    @classmethod
    def of(cls, settings: ModelSettings) -> _Architecture:
        """Return the architecture of the settings."""
        return cls(settings.arch, settings.head, settings.size, settings.full_size, settings.resize)


def _measure_costs(arms: Sequence[Arm], table: ImageTable, on_event: OnEvent) -> dict[str, Cost]:
    """Return name of an arm -> its cost of inference, from an untrained network: the weights have no influence on it.

    Latency is the median over rounds, in which the networks take turns with one image.
    """
    sample = _read_sample(table.rows)[None]
    architectures = {arm.name: _Architecture.of(arm.settings) for arm in arms}
    exported: dict[_Architecture, tuple[Cost, Network]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, arm in enumerate(arms):
            on_event(Progress("timing predictions", number, len(arms)))
            if architectures[arm.name] not in exported:
                exported[architectures[arm.name]] = _export_untrained(Path(scratch) / f"{number}.onnx", arm.settings, table.classes)
        seconds: dict[_Architecture, list[float]] = {architecture: [] for architecture in exported}
        for _ in range(LATENCY_ROUNDS):
            for architecture, (_, network) in exported.items():
                started = time.perf_counter()
                network.probabilities(sample)
                seconds[architecture].append(time.perf_counter() - started)
    on_event(Progress("timing predictions", len(arms), len(arms)))
    latencies = {architecture: 1000 * statistics.median(of_network) for architecture, of_network in seconds.items()}
    return {name: replace(exported[key][0], milliseconds=latencies[key]) for name, key in architectures.items()}


def _export_untrained(path: Path, settings: Settings, classes: Sequence[str]) -> tuple[Cost, Network]:
    """Export an untrained network as ONNX. Returns its cost, with a latency of 0, and the file opened for inference."""
    model = build.build_model(settings.arch, len(classes), settings.size, settings.head)
    onnx.export_onnx(path, model, Preprocessing.from_settings(settings, weights.IMAGENET_STATS), metadata.describe_model(settings, classes, "", "", ""))
    return Cost(sum(p.numel() for p in model.parameters()), path.stat().st_size / 1e6, 0.0), open_network(path)


def _read_sample(rows: Sequence[Row]) -> np.ndarray:
    """Return the pixels `[h, w, 3]` of the first readable image."""
    for row in rows:
        with suppress(ImageError):
            return np.asarray(images.open_image(row.path))
    raise DataError("no image can be read", "The reasons are listed by: tlfast data check")


# Files


def _write_comparison(result: CompareResult, out: str, run_id: str) -> CompareResult:
    """Write the folder of the comparison, complete or not at all. Returns the result with its folder and files."""
    with runs.create_run(out, f"{result.task}/{COMPARISONS}", run_id, latest=False) as (folder, published):
        names = [runs.COMPARISON, ARMS_FILE, "pareto.png", "seconds.png"]
        files.write_json(folder / runs.COMPARISON, result.to_dict())
        files.write_csv(folder / ARMS_FILE, [replace(score, settings={}) for score in result.arms])
        plots.plot_pareto(result, folder / "pareto.png", "milliseconds")
        plots.plot_pareto(result, folder / "seconds.png", "seconds")
        if result.differences:
            names.append(DIFFERENCES_FILE)
            files.write_csv(folder / DIFFERENCES_FILE, result.differences)
        if result.curve:
            names += [CURVE_FILE, "learning_curve.png"]
            files.write_csv(folder / CURVE_FILE, result.curve)
            plots.plot_learning_curve(result, folder / "learning_curve.png")
        names.append(REPORT_FILE)
        (folder / REPORT_FILE).write_text(render_comparison_page(result.to_dict()), encoding="utf-8")
    return replace(result, folder=str(published[0]), files=[str(published[0] / name) for name in names])
