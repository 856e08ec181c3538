"""The groups of `scripts/bench`: what is compared, in which order, and the lines of the result.

To add a group, write a function from `Bench` to a list of `Line` and add it to `GROUPS`.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench_measurements import ARCH, BATCH, SIZE

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
EPOCHS = 10
STEPS = 150  # per epoch of the plain script where only seconds count; a whole epoch takes six minutes at the same pace
QUICK_IMAGES, QUICK_STEPS = 1500, 10
COLD_ROUNDS = 7  # of commands that take seconds
ONE_IMAGE = """import sys
from fastai.vision.all import load_learner
learn = load_learner(sys.argv[1])
with learn.no_bar():
    print(learn.predict(sys.argv[2]))"""


@dataclass
class Line:
    """One line of the result.

    Attributes:
        group: name of the group.
        what: what was measured; what it is compared with.
        ratios: ratio of each round; above 1 tlfast is faster, except for memory.
        ours: values of tlfast in each round.
        theirs: values of the plain script in each round.
        unit: unit of both.
        remark: target, and further figures.
    """

    group: str
    what: str
    ratios: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    unit: str = "img/s"
    remark: str = ""

    def add(self, ratio: float, ours: float, theirs: float) -> None:
        """Add the values of one round."""
        self.ratios.append(ratio)
        self.ours.append(ours)
        self.theirs.append(theirs)

    def add_rates(self, ours: float, theirs: float) -> None:
        """Add a round of values of which more is better, such as images per second. Memory is added so too."""
        self.add(ours / theirs, ours, theirs)

    def add_seconds(self, ours: float, theirs: float) -> None:
        """Add a round of durations."""
        self.add(theirs / ours, ours, theirs)

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the table: medians, and the range of the ratios."""
        middle = f"{statistics.median(self.ratios):.2f}" if self.ratios else "-"
        spread = f"{min(self.ratios):.2f} to {max(self.ratios):.2f}" if self.ratios else "-"
        return self.group, self.what, middle, spread, _format_median(self.ours), _format_median(self.theirs), self.unit, self.remark


def _format_median(values: list[float]) -> str:
    return f"{statistics.median(values):,.4g}" if values else "-"


# Processes


@dataclass(frozen=True)
class Bench:
    """Inputs and limits of all measurements, and the ways to run one.

    Attributes:
        images: folder with `train/<class>/` and `valid/<class>/`.
        weights: file of pretrained weights; None for random ones.
        work: temporary folder for runs and caches.
        rounds: number of repetitions.
        quick: measure on few images and steps.
    """

    images: Path
    weights: Path | None
    work: Path
    rounds: int
    quick: bool

    @property
    def steps(self) -> int:
        """Steps per epoch of the plain script."""
        return QUICK_STEPS if self.quick else STEPS

    @property
    def limit(self) -> list[str]:
        """Flags that limit the training images of a quick run."""
        return ["--limit", str(QUICK_IMAGES)] if self.quick else []

    def measure(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Run a measurement in its own process. Returns its result, with `wall` seconds and `peak` memory in MB."""
        given = {"images": str(self.images), "weights": str(self.weights or ""), **arguments}
        script = str(Path(__file__).with_name("bench_measurements.py"))
        return run_timed([sys.executable, script, name, json.dumps(given)], self.environment())

    def tlfast(self, *arguments: str, cache: str = "kept") -> dict[str, Any]:
        """Run a tlfast command with --json. Returns its result, with `wall` seconds and `peak` memory in MB."""
        return run_timed([str(BIN / "tlfast"), *arguments, "--json", "--quiet"], self.environment(cache))

    def train(self, *arguments: str, cache: str = "kept") -> dict[str, Any]:
        """Run `tlfast train` on the images, with the given flags."""
        weights = str(self.weights) if self.weights else "none"
        fixed = ("--data", str(self.images), "--arch", ARCH, "--weights", weights, "--size", str(SIZE), "--bs", str(BATCH))
        return self.tlfast("train", "fer", *fixed, "--out", str(self.work / "exports"), *arguments, cache=cache)

    def environment(self, cache: str = "kept") -> dict[str, str]:
        """Return the environment of a process that uses the named cache."""
        return {**os.environ, "TLFAST_CACHE": str(self.work / "cache" / cache)}


def run_timed(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run a command. Returns the JSON object in its output, with `wall` seconds and `peak` memory in MB. Raises SystemExit if it fails."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)  # unlike `wait`, returns the peak memory of this process
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        text = out.read()
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{err.read()[-2000:]}")
    result = json.JSONDecoder().raw_decode(text[text.index("{") :])[0] if "{" in text else {}
    return {**result, "wall": wall, "peak": usage.ru_maxrss / 1024}


# Groups


def compare_loaders(bench: Bench) -> list[Line]:
    """Images per second of the loaders, without a network."""
    batches = 20 if bench.quick else 100
    lines = []
    for what, augment, wanted in (("training augmentation", True, 2.5), ("no augmentation", False, 6)):
        lines.append(default := Line("loader", f"{what}, {SIZE} px; fastai with its default workers", remark=f"wanted: {wanted}"))
        lines.append(single := Line("loader", f"{what}, {SIZE} px; fastai with num_workers=0"))
        bench.measure("our_loader", augment=augment, size=SIZE, batches=2)  # builds the store, which is not measured
        for _ in range(bench.rounds):
            ours = bench.measure("our_loader", augment=augment, size=SIZE, batches=batches * 5)["rate"]
            for line, workers in ((default, None), (single, 0)):
                line.add_rates(ours, bench.measure("plain_loader", augment=augment, size=SIZE, batches=batches, workers=workers)["rate"])
    for size in (48, 96, 224):
        lines.append(alone := Line("loader", f"host's work alone: no network, no augmentation, {size} px", remark="wanted: 10,000 img/s at 96 px"))
        bench.measure("our_loader", augment=False, size=size, batches=2)
        alone.ours = [bench.measure("our_loader", augment=False, size=size, batches=batches * 5)["rate"] for _ in range(bench.rounds)]
    return lines


def compare_partial(bench: Bench) -> list[Line]:
    """Seconds of partial fine-tuning as a whole command, first without and then with cached features."""
    fastai = Line("partial", f"{EPOCHS} epochs, whole command; fastai's freeze, part of an epoch measured", unit="s", remark="wanted: 20")
    eval_body = Line("partial", f"{EPOCHS} epochs, whole command; body in eval mode, no cache", unit="s", remark="wanted: 10, accuracy within 0.5 points")
    cached = Line("partial", "the same again with another rate, features kept; fastai's freeze", unit="s", remark="wanted: 50")
    accuracies = None
    for number in range(bench.rounds):
        first = bench.train("--epochs", str(EPOCHS), cache=f"round{number}")
        second = bench.train("--epochs", str(EPOCHS), "--lr", "2e-3", cache=f"round{number}")
        shutil.rmtree(bench.work / "cache" / f"round{number}")
        frozen = bench.measure("plain_partial", epochs=1, eval_mode=False, steps=bench.steps)
        whole = number == 0 and not bench.quick  # the accuracy of the plain script needs all epochs, its seconds a part of one
        frozen_eval = bench.measure("plain_partial", epochs=EPOCHS if whole else 1, eval_mode=True, steps=None if whole else bench.steps)
        for line, ours, theirs in ((fastai, first, frozen), (eval_body, first, frozen_eval), (cached, second, frozen)):
            line.add_seconds(ours["wall"], theirs["setup"] + EPOCHS * theirs["epoch"])
        if whole:
            accuracies = f"; {first['evaluation']['accuracy']:.4f} against {frozen_eval['accuracy']:.4f}"
    eval_body.remark += accuracies or ""
    return [fastai, eval_body, cached]


def compare_full(bench: Bench) -> list[Line]:
    """Images per second and peak memory of full fine-tuning."""
    rate = Line("full", f"training all layers, {SIZE} px, batch {BATCH}; fastai's fine_tune", remark="wanted: 1.8")
    bare = Line("full", "training all layers; a bare loop on a batch in memory", remark="wanted: 0.9")
    memory = Line("full", "peak memory; fastai's fine_tune", unit="MB", remark="wanted: at most 1")
    for _ in range(bench.rounds):
        ours = bench.train("--full", "--epochs", "1", "--freeze-epochs", "1", *bench.limit)
        theirs = bench.measure("plain_full", epochs=1, steps=bench.steps)
        loop = bench.measure("bare_loop", steps=10 if bench.quick else 60)
        our_rate = ours["phases"][-1]["images_per_second"]
        rate.add_rates(our_rate, theirs["rate"])
        bare.add_rates(our_rate, loop["rate"])
        memory.add_rates(ours["peak"], theirs["peak"])
    return [rate, bare, memory]


def compare_accuracy(bench: Bench) -> list[Line]:
    """Seconds and accuracy of `fine_tune(3)` and of our full fine-tuning with as many epochs. One round, because it takes most of an hour."""
    if bench.quick:
        return []
    theirs = bench.measure("plain_full", epochs=3)
    ours = bench.train("--full", "--epochs", "3", cache="accuracy")
    accuracies = f"{ours['evaluation']['accuracy']:.4f} against {theirs['accuracy']:.4f}"
    line = Line("accuracy", "seconds of fine_tune(3) over ours", unit="s", remark=f"wanted: 2; {accuracies}")
    line.add_seconds(ours["wall"], theirs["wall"])
    return [line]


def compare_predict(bench: Bench) -> list[Line]:
    """Prediction of one image as a whole command, and of the valid split, beside the exported fastai learner."""
    run = str(ROOT / bench.train("--epochs", "1", *bench.limit)["folder"])
    folder = bench.images / "valid"
    image = str(next(path for path in sorted(folder.rglob("*")) if path.is_file()))
    cold = Line("predict", "one image, whole command; load_learner and predict in five lines", unit="s", remark="wanted: 12")
    memory = Line("predict", "one image, peak memory; the five lines", unit="MB", remark="wanted: at most 0.125")
    many = Line("predict", "the valid part; test_dl and get_preds", remark="wanted: 4")
    for _ in range(1 if bench.quick else COLD_ROUNDS):
        ours = bench.tlfast("predict", run, image)
        theirs = run_timed([sys.executable, "-W", "ignore", "-c", ONE_IMAGE, f"{run}/learner.pkl", image], bench.environment())
        cold.add_seconds(ours["wall"], theirs["wall"])
        memory.add_rates(ours["peak"], theirs["peak"])
    for _ in range(bench.rounds):
        many.add_rates(*(bench.measure(name, run=run, folder=str(folder))["rate"] for name in ("our_predict", "plain_predict")))
    return [cold, memory, many]


def compare_startup(bench: Bench) -> list[Line]:
    """Seconds of commands that need no network, beside the import of fastai."""
    commands = {"--help": [], "tasks": [], "runs": ["--out", str(bench.work / "exports")]}
    lines = {name: Line("startup", f"tlfast {name}; import fastai.vision.all", unit="s") for name in commands}
    lines["--help"].remark = "wanted: 0.35 s"
    for _ in range(bench.rounds):
        theirs = run_timed([sys.executable, "-c", "import fastai.vision.all"], bench.environment())["wall"]
        for name, flags in commands.items():
            lines[name].add_seconds(run_timed([str(BIN / "tlfast"), name, *flags], bench.environment())["wall"], theirs)
    return list(lines.values())


def compare_busy(bench: Bench) -> list[Line]:
    """Images per second of training steps beside none, one and two processes that each use a core, in turns."""
    seconds = 3 if bench.quick else 10
    lines = [Line("busy", f"training steps, competing processes: {count}; the same without share_cores") for count in range(3)]
    for _ in range(bench.rounds):
        for competitors, line in enumerate(lines):
            line.add_rates(*(bench.measure("shared_loop", competitors=competitors, shared=shared, seconds=seconds)["rate"] for shared in (True, False)))
    quiet = statistics.median(lines[0].ours)
    lines[0].remark = "wanted: at least 0.97"
    for line, wanted in ((lines[1], "; wanted: 0.5"), (lines[2], "")):
        line.remark = f"{statistics.median(line.ours) / quiet:.2f} of the speed without competitors{wanted}"
    return lines


STEPS_COUNTED = {
    "full": ("full", {}),
    "full, strong augmentation, crops, accumulation, EMA": ("full", {"augment": "strong", "crop_pct": 0.8, "accumulate": 2, "ema": True, "colour": True}),
    "full, mixup": ("full", {"mixup": 0.4}),
    "depth 1": ("depth", {"depth": "1"}),
    "depth 1, int8": ("depth", {"depth": "1", "cache_format": "int8"}),
    "partial": ("partial", {}),
}


def count_syncs(bench: Bench) -> list[Line]:
    """Calls per training step for which the host waits for the GPU; without one, those that would wait."""
    lines = []
    for what, (strategy, settings) in STEPS_COUNTED.items():
        found = bench.measure("syncs", strategy=strategy, settings=settings)
        measured = "by CUDA" if found["device"] == "cuda" else "with a stand-in for the GPU"
        remark = f"counted {measured}; wanted: 0" + "".join(f"; {place}: {count}" for place, count in found["places"].items())
        lines.append(Line("syncs", f"waiting calls in a step: {what}", ours=[found["count"]], unit="/step", remark=remark))
    return lines


def measure_scaling(bench: Bench) -> list[Line]:
    """Seconds and peak memory of a partial training by number of images. --limit takes that many of each split."""
    lines = []
    for limit in (500, 1000) if bench.quick else (1000, 4000, 16_000, 28_709):
        ours = bench.train("--limit", str(limit), "--epochs", "2", "--store", "disk", cache=f"limit{limit}")
        count = sum(sum(by_label.values()) for by_label in ours["data"]["counts"].values())
        what = f"store, features, 2 epochs and evaluation of {count:,} images"
        lines.append(Line("scaling", what, ours=[ours["wall"]], unit="s", remark=f"peak {ours['peak']:,.0f} MB"))
    return lines


def compare_engines(bench: Bench) -> list[Line]:
    """Sharded predictions of the valid split as Ray tasks and in one process, and the memory of the process that lists the images."""
    run = str(ROOT / bench.train("--epochs", "1", *bench.limit)["folder"])
    folder, shards = str(bench.images / "valid"), 16
    line = Line("scale", f"the valid part in {shards} parts, Ray tasks on all cores; one process", remark="wanted: 0.85")
    for _ in range(bench.rounds):
        line.add_rates(*(bench.measure("shards", run=run, folder=folder, engine=engine, shards=shards)["rate"] for engine in ("ray", "local")))
    lines = [line]
    for rows in (10_000, 100_000) if bench.quick else (10_000, 100_000, 1_000_000):
        found = bench.measure("listing", rows=rows)
        lines.append(Line("scale", f"list of {rows:,} images", ours=[found["rate"]], unit="rows/s", remark=f"peak {found['peak']:,.0f} MB"))
    return lines


GROUPS: dict[str, Callable[[Bench], list[Line]]] = {
    "loader": compare_loaders,
    "partial": compare_partial,
    "full": compare_full,
    "accuracy": compare_accuracy,
    "predict": compare_predict,
    "startup": compare_startup,
    "busy": compare_busy,
    "scaling": measure_scaling,
    "scale": compare_engines,
    "syncs": count_syncs,
}
