"""Time tlfast beside the script that a fastai user would write, in turns on the same machine; print and keep the ratios.

Every measurement is a process of its own, for the allocator is tuned for a process as a whole. Absolute times drift on shared machines,
so that only ratios of what ran in the same round count: their median, least and greatest are shown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tlfast.data.types import Preprocessing

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
BIN = Path(sys.executable).parent
ARCH, SIZE, BATCH, EPOCHS = "mobilenetv2_100", 96, 64, 10
STEPS = 150  # of the plain script's epochs, where only its seconds count: a whole epoch takes six minutes and goes on as it began
QUICK_IMAGES, QUICK_STEPS = 1500, 10
COLD_ROUNDS = 7  # of what takes seconds


@dataclass
class Line:
    """One row of the result: what was compared, the ratio in each round, and what the issue asks for."""

    group: str
    what: str
    ratios: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    unit: str = "img/s"
    remark: str = ""

    def cells(self) -> tuple[str, ...]:
        middle = f"{statistics.median(self.ratios):.2f}" if self.ratios else "-"
        spread = f"{min(self.ratios):.2f} to {max(self.ratios):.2f}" if self.ratios else "-"
        return self.group, self.what, middle, spread, _number(self.ours), _number(self.theirs), self.unit, self.remark


def _number(values: list[float]) -> str:
    return f"{statistics.median(values):,.4g}" if values else "-"


@dataclass(frozen=True)
class Bench:
    """What all measurements share: the images, the weights, a folder for what is made, and how often to repeat."""

    images: Path
    weights: Path | None
    work: Path
    rounds: int
    quick: bool

    @property
    def steps(self) -> int:
        return QUICK_STEPS if self.quick else STEPS

    def child(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Run one function of `MEASURED` in a process of its own; its answer, with `wall` seconds and `peak` MB."""
        given = {"images": str(self.images), "weights": str(self.weights or ""), **arguments}
        return _timed([sys.executable, __file__, "--measure", name, json.dumps(given)], self.environment())

    def tlfast(self, *arguments: str, cache: str = "kept") -> dict[str, Any]:
        """Run a tlfast command with --json; its answer, with `wall` seconds and `peak` MB."""
        return _timed([str(BIN / "tlfast"), *arguments, "--json", "--quiet"], self.environment(cache))

    def train(self, *arguments: str, cache: str = "kept") -> dict[str, Any]:
        weights = str(self.weights) if self.weights else "none"
        fixed = ("--data", str(self.images), "--arch", ARCH, "--weights", weights, "--size", str(SIZE), "--bs", str(BATCH))
        return self.tlfast("train", "fer", *fixed, "--out", str(self.work / "exports"), *arguments, cache=cache)

    def environment(self, cache: str = "kept") -> dict[str, str]:
        return {**os.environ, "TLFAST_CACHE": str(self.work / "cache" / cache)}


def _timed(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        text = out.read()
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{err.read()[-2000:]}")
    answer = json.JSONDecoder().raw_decode(text[text.index("{") :])[0] if "{" in text else {}
    return {**answer, "wall": wall, "peak": usage.ru_maxrss / 1024}


# What runs in a process of its own


def measure_plain_loader(images: str, weights: str, augment: bool, size: int, batches: int, workers: int | None) -> dict[str, float]:
    from fastai.vision.all import Normalize, imagenet_stats

    return _rate(_plain_loaders(images, size, augment, workers, [Normalize.from_stats(*imagenet_stats, cuda=False)]).train, batches)


def measure_our_loader(images: str, weights: str, augment: bool, size: int, batches: int) -> dict[str, float]:
    import torch

    from tlfast import tasks
    from tlfast.data import load_table, open_store
    from tlfast.models import device as device_module
    from tlfast.models import weights as weights_module
    from tlfast.tasks import resolve
    from tlfast.training.loaders import build_loaders

    task = tasks.get_task("fer")
    chosen = resolve.resolve_settings(task, None, {"data": images, "size": size, "bs": BATCH, **({} if augment else {"augment": "none"})})
    table, store = open_store(load_table(task, chosen, Path(images)), chosen)
    device = device_module.pick_device("cpu")
    return _rate(build_loaders(table, Preprocessing.from_settings(chosen, weights_module.IMAGENET_STATS), chosen, torch.device(device), store).train, batches)


def _rate(loader: Any, batches: int) -> dict[str, float]:
    """Images a second of a loader, without its first batch, for worker processes need time to start."""
    seen, started = -1, 0.0
    while seen < batches:
        for _ in loader:
            seen += 1
            if not seen:
                started = time.perf_counter()
            if seen >= batches:
                break
    return {"rate": seen * loader.bs / (time.perf_counter() - started)}


def measure_plain_partial(images: str, weights: str, epochs: int, eval_mode: bool, steps: int | None = None) -> dict[str, float]:
    """Seconds of an epoch with the body frozen: fastai's way (BatchNorm training), or with the body in eval mode."""
    from fastai.vision.all import Callback

    class Eval(Callback):
        """Keeps the body's BatchNorm as it is, which `train_bn=False` alone does not."""

        def before_train(self) -> None:
            self.model[0].eval()

    started = time.perf_counter()
    learn, clock = _plain_learner(images, weights, train_bn=not eval_mode), _clock(steps)
    learn.freeze()
    setup = time.perf_counter() - started
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, 1e-3, cbs=[clock, *([Eval()] if eval_mode else [])])
    epoch = clock.train_seconds * len(learn.dls.train) / clock.steps + clock.valid_seconds / epochs
    return {"setup": setup, "epoch": epoch, "accuracy": float(learn.recorder.values[-1][-1])}


def measure_plain_full(images: str, weights: str, epochs: int, steps: int | None = None) -> dict[str, float]:
    """Images a second of the epochs after fine_tune's frozen one, and the accuracy at its end."""
    learn, clock = _plain_learner(images, weights), _clock(steps)
    with learn.no_bar(), learn.no_logging(), learn.added_cbs(clock):
        learn.fine_tune(epochs)
    return {"rate": clock.steps * BATCH / clock.train_seconds, "accuracy": float(learn.recorder.values[-1][-1])}


def _clock(limit: int | None) -> Any:
    """Return a callback that counts the steps of the last fit and its seconds, and ends each epoch's training after `limit` steps."""
    from fastai.vision.all import Callback, CancelTrainException

    class Clock(Callback):
        order = 60

        def before_fit(self) -> None:
            self.steps, self.train_seconds, self.valid_seconds = 0, 0.0, 0.0

        def before_train(self) -> None:
            self.started = time.perf_counter()

        def after_batch(self) -> None:
            self.steps += self.training
            if self.training and limit and self.iter + 1 >= limit:
                raise CancelTrainException

        def after_train(self) -> None:
            self.train_seconds += time.perf_counter() - self.started

        def before_validate(self) -> None:
            self.started = time.perf_counter()

        def after_validate(self) -> None:
            self.valid_seconds += time.perf_counter() - self.started

    return Clock()


def measure_bare_loop(images: str, weights: str, steps: int) -> dict[str, float]:
    """Forward, backward and step on a batch that is in memory already, as fast as this machine does them."""
    import torch

    from tlfast.models import build
    from tlfast.models import device as device_module

    device = device_module.pick_device("cpu")
    model = build.build_model(ARCH, 7, SIZE).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    x = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    y = torch.randint(7, (BATCH,))
    for step in range(steps + 2):
        if step == 2:
            started = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return {"rate": steps * BATCH / (time.perf_counter() - started)}


def measure_plain_predict(images: str, weights: str, run: str, folder: str) -> dict[str, float]:
    """Images a second of an exported fastai learner, without opening it."""
    from fastai.vision.all import get_image_files, load_learner

    learn, files = load_learner(Path(run) / "learner.pkl"), get_image_files(folder)
    started = time.perf_counter()
    with learn.no_bar():
        learn.get_preds(dl=learn.dls.test_dl(files))
    return {"rate": len(files) / (time.perf_counter() - started)}


def measure_our_predict(images: str, weights: str, run: str, folder: str) -> dict[str, float]:
    import tlfast
    from tlfast.data.discovery import gather_sources

    classifier, files = tlfast.load(run), list(gather_sources([folder]))
    started = time.perf_counter()
    for row in classifier.predict_iter(files):
        assert row.prediction, row.error
    return {"rate": len(files) / (time.perf_counter() - started)}


def _plain_loaders(images: str, size: int, augment: bool, workers: int | None, batch_tfms: list) -> Any:
    from fastai.vision.all import CategoryBlock, DataBlock, GrandparentSplitter, ImageBlock, Resize, aug_transforms, get_image_files, parent_label

    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        splitter=GrandparentSplitter("train", "valid"),
        get_y=parent_label,
        item_tfms=Resize(size, method="squish"),
        batch_tfms=[*(aug_transforms() if augment else []), *batch_tfms],
    )
    return block.dataloaders(Path(images), bs=BATCH, **({} if workers is None else {"num_workers": workers}))


def _plain_learner(images: str, weights: str, **options: Any) -> Any:
    from fastai.vision.all import accuracy, vision_learner

    given = {"pretrained": True, "pretrained_cfg_overlay": {"file": weights}} if weights else {"pretrained": False}
    return vision_learner(_plain_loaders(images, SIZE, True, None, []), ARCH, metrics=accuracy, **given, **options)


MEASURED: dict[str, Callable[..., dict[str, float]]] = {
    name.removeprefix("measure_"): function for name, function in list(globals().items()) if name.startswith("measure_")
}


# What is compared


def loader(bench: Bench) -> list[Line]:
    batches = 20 if bench.quick else 100
    lines = []
    for what, augment, wanted in (("training augmentation", True, 2.5), ("no augmentation", False, 6)):
        lines.append(line := Line("loader", f"{what}, {SIZE} px; fastai with its default workers", remark=f"wanted: {wanted}"))
        lines.append(single := Line("loader", f"{what}, {SIZE} px; fastai with num_workers=0"))
        bench.child("our_loader", augment=augment, size=SIZE, batches=2)  # the store is made here, outside the measurement
        for _ in range(bench.rounds):
            ours = bench.child("our_loader", augment=augment, size=SIZE, batches=batches * 5)["rate"]
            for row, workers in ((line, None), (single, 0)):
                theirs = bench.child("plain_loader", augment=augment, size=SIZE, batches=batches, workers=workers)["rate"]
                _add(row, ours / theirs, ours, theirs)
    for size in (48, 96, 224):
        lines.append(line := Line("loader", f"host's work alone: no network, no augmentation, {size} px", remark="wanted: 10,000 img/s at 96 px"))
        bench.child("our_loader", augment=False, size=size, batches=2)
        line.ours = [bench.child("our_loader", augment=False, size=size, batches=batches * 5)["rate"] for _ in range(bench.rounds)]
    return lines


def partial(bench: Bench) -> list[Line]:
    fastai = Line("partial", f"{EPOCHS} epochs, whole command; fastai's freeze, part of an epoch measured", unit="s", remark="wanted: 20")
    plainly = Line("partial", f"{EPOCHS} epochs, whole command; body in eval mode, no cache", unit="s", remark="wanted: 10, accuracy within 0.5 points")
    again = Line("partial", "the same again with another rate, features kept; fastai's freeze", unit="s", remark="wanted: 50")
    accuracies: dict[str, float] = {}
    for number in range(bench.rounds):
        first = bench.train("--epochs", str(EPOCHS), cache=f"round{number}")
        second = bench.train("--epochs", str(EPOCHS), "--lr", "2e-3", cache=f"round{number}")
        shutil.rmtree(bench.work / "cache" / f"round{number}")
        train_bn = bench.child("plain_partial", epochs=1, eval_mode=False, steps=bench.steps)
        # The accuracy of the plain method takes all its epochs, its seconds a part of one.
        whole = number == 0 and not bench.quick
        frozen = bench.child("plain_partial", epochs=EPOCHS if whole else 1, eval_mode=True, steps=None if whole else bench.steps)
        for row, ours, theirs in ((fastai, first, train_bn), (plainly, first, frozen), (again, second, train_bn)):
            seconds = theirs["setup"] + EPOCHS * theirs["epoch"]
            _add(row, seconds / ours["wall"], ours["wall"], seconds)
        if number == 0:
            accuracies = {"ours": first["evaluation"]["accuracy"], "plainly": frozen["accuracy"]}
    if not bench.quick:
        plainly.remark += f"; {accuracies['ours']:.4f} against {accuracies['plainly']:.4f}"
    return [fastai, plainly, again]


def full(bench: Bench) -> list[Line]:
    limit = ["--limit", str(QUICK_IMAGES)] if bench.quick else []
    rate = Line("full", f"training all layers, {SIZE} px, batch {BATCH}; fastai's fine_tune", remark="wanted: 1.8")
    bare = Line("full", "training all layers; a bare loop on a batch in memory", remark="wanted: 0.9")
    memory = Line("full", "peak memory; fastai's fine_tune", unit="MB", remark="wanted: at most 1")
    for _ in range(bench.rounds):
        ours = bench.train("--full", "--epochs", "1", "--freeze-epochs", "1", *limit)
        theirs, loop = bench.child("plain_full", epochs=1, steps=bench.steps), bench.child("bare_loop", steps=10 if bench.quick else 60)
        own = ours["phases"][-1]["images_per_second"]
        _add(rate, own / theirs["rate"], own, theirs["rate"])
        _add(bare, own / loop["rate"], own, loop["rate"])
        _add(memory, ours["peak"] / theirs["peak"], ours["peak"], theirs["peak"])
    return [rate, bare, memory]


def accuracy(bench: Bench) -> list[Line]:
    """What fine_tune(3) reaches and when, against ours of as many epochs: once, for it takes most of an hour."""
    if bench.quick:
        return []
    theirs = bench.child("plain_full", epochs=3)
    ours = bench.train("--full", "--epochs", "3", cache="accuracy")
    line = Line(
        "accuracy", "seconds of fine_tune(3) over ours", unit="s", remark=f"wanted: 2; {ours['evaluation']['accuracy']:.4f} against {theirs['accuracy']:.4f}"
    )
    _add(line, theirs["wall"] / ours["wall"], ours["wall"], theirs["wall"])
    return [line]


ONE_IMAGE = """import sys
from fastai.vision.all import load_learner
learn = load_learner(sys.argv[1])
with learn.no_bar():
    print(learn.predict(sys.argv[2]))"""


def predict(bench: Bench) -> list[Line]:
    """One image by a process of its own, and all of the valid part, beside the exported fastai learner."""
    trained = bench.train("--epochs", "1", *(["--limit", str(QUICK_IMAGES)] if bench.quick else []))
    run, folder = trained["folder"], str(bench.images / "valid")
    image = str(next(path for path in sorted((bench.images / "valid").rglob("*")) if path.is_file()))
    cold = Line("predict", "one image, whole command; load_learner and predict in five lines", unit="s", remark="wanted: 12")
    memory = Line("predict", "one image, peak memory; the five lines", unit="MB", remark="wanted: at most 0.125")
    many = Line("predict", "the valid part; test_dl and get_preds", remark="wanted: 4")
    for _ in range(1 if bench.quick else COLD_ROUNDS):
        ours = bench.tlfast("predict", str(ROOT / run), image)
        theirs = _timed([sys.executable, "-W", "ignore", "-c", ONE_IMAGE, str(ROOT / run / "learner.pkl"), image], bench.environment())
        _add(cold, theirs["wall"] / ours["wall"], ours["wall"], theirs["wall"])
        _add(memory, ours["peak"] / theirs["peak"], ours["peak"], theirs["peak"])
    for _ in range(bench.rounds):
        own, other = (bench.child(name, run=str(ROOT / run), folder=folder)["rate"] for name in ("our_predict", "plain_predict"))
        _add(many, own / other, own, other)
    return [cold, memory, many]


def startup(bench: Bench) -> list[Line]:
    lines = [Line("startup", f"tlfast {name}; import fastai.vision.all", unit="s") for name in ("--help", "tasks", "runs")]
    lines[0].remark = "wanted: 0.35 s"
    for _ in range(bench.rounds):
        theirs = _timed([sys.executable, "-c", "import fastai.vision.all"], bench.environment())["wall"]
        for line in lines:
            name = line.what.split(";")[0].split()[1]
            extra = ["--out", str(bench.work / "exports")] if name == "runs" else []
            ours = _timed([str(BIN / "tlfast"), name, *extra], bench.environment())["wall"]
            _add(line, theirs / ours, ours, theirs)
    return lines


def scaling(bench: Bench) -> list[Line]:
    """Seconds and peak memory of a whole partial training as images grow; --limit takes as many of each part."""
    lines = []
    for limit in (500, 1000) if bench.quick else (1000, 4000, 16_000, 28_709):
        ours = bench.train("--limit", str(limit), "--epochs", "2", "--store", "disk", cache=f"limit{limit}")
        count = sum(sum(part.values()) for part in ours["data"]["counts"].values())
        lines.append(
            Line("scaling", f"store, features, 2 epochs and evaluation of {count:,} images", [], [ours["wall"]], [], "s", f"peak {ours['peak']:,.0f} MB")
        )
    return lines


GROUPS = {"loader": loader, "partial": partial, "full": full, "accuracy": accuracy, "predict": predict, "startup": startup, "scaling": scaling}


def _add(line: Line, ratio: float, ours: float, theirs: float) -> None:
    line.ratios.append(ratio)
    line.ours.append(ours)
    line.theirs.append(theirs)


# The data


def prepare(work: Path, quick: bool) -> tuple[Path, Path | None]:
    """Lay images out as `train/<class>/`, `valid/<class>/`: FER2013 where it is, else the digits. Return them and the weights, if there are any."""
    archive, weights = SHARED / "data" / "fer2013.zip", SHARED / "weights" / f"{ARCH}.safetensors"
    target = work / "images"
    if archive.exists():
        with zipfile.ZipFile(archive) as file:
            names = [name for name in file.namelist() if name.startswith(("train/", "valid/")) and not name.endswith("/")]
            every = max(1, len(names) // QUICK_IMAGES) if quick else 1
            file.extractall(target, names[::every])
        return target, weights if weights.exists() else None
    from tlfast import tasks

    tasks.get_task("digits").make(work / "digits")
    for i, path in enumerate(sorted((work / "digits").rglob("*.png"))):
        place = target / ("valid" if i % 5 == 0 else "train") / path.parent.name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return target, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/bench")
    parser.add_argument("group", choices=[*GROUPS, "all"])
    parser.add_argument("--quick", action="store_true", help="a small part of the images, under five minutes: to see that it runs")
    parser.add_argument("--rounds", type=int, help="how often to repeat (3; with --quick once)")
    parser.add_argument("--out", default="bench.json", help="JSON file to write")
    chosen = parser.parse_args()
    from rich.console import Console
    from rich.table import Table

    from tlfast.core.system import count_cores, package_versions, total_memory_gib

    with tempfile.TemporaryDirectory(prefix="tlfast-bench-") as folder:
        work = Path(folder)
        bench = Bench(*prepare(work, chosen.quick), work, chosen.rounds or (1 if chosen.quick else 3), chosen.quick)
        count = sum(1 for path in bench.images.rglob("*") if path.is_file())
        lines = [line for name, group in GROUPS.items() if chosen.group in (name, "all") for line in group(bench)]
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": count_cores(),
        "memory (GiB)": total_memory_gib(),
        "images": count,
        **package_versions(),
    }
    table = Table(
        *("group", "what; against what", "ratio", "spread", "tlfast", "other", "unit", "remark"), title="; ".join(f"{k} {v}" for k, v in machine.items())
    )
    for line in lines:
        table.add_row(*line.cells())
    Console(width=None if sys.stdout.isatty() else 220).print(table)
    record = {"when": f"{datetime.now():%Y-%m-%d %H:%M}", "quick": chosen.quick, "machine": machine, "lines": [asdict(line) for line in lines]}
    Path(chosen.out).write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(MEASURED[sys.argv[2]](**json.loads(sys.argv[3]))))
    else:
        main()
