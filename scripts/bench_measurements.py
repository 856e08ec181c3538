"""The measurements of `scripts/bench`, each run in a process of its own, because the allocator is tuned for a whole process.

    python scripts/bench_measurements.py NAME '{"images": ..., "weights": ..., ...}'

runs the function `measure_NAME` with these arguments and prints its result as JSON. `plain_` stands for a script that a fastai user would write,
`our_` for tlfast.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARCH, SIZE, BATCH = "mobilenetv2_100", 96, 64
CLASSES = 7  # of FER2013, for the bare loop
WARM_UP = 2  # steps of the bare loop that are not timed
SETTLING = 5  # intervals of share_cores that are not timed


@dataclass(frozen=True)
class Inputs:
    """What every measurement gets.

    Attributes:
        images: folder with `train/<class>/` and `valid/<class>/`.
        weights: file of pretrained weights, "" for random ones.
    """

    images: str
    weights: str


# Loaders


def measure_plain_loader(inputs: Inputs, augment: bool, size: int, batches: int, workers: int | None) -> dict[str, float]:
    """Return images per second of fastai's loader; `workers` None keeps its default."""
    from fastai.vision.all import Normalize, imagenet_stats

    loaders = _plain_loaders(inputs.images, size, augment, workers, [Normalize.from_stats(*imagenet_stats, cuda=False)])
    return _measure_rate(loaders.train, batches)


def measure_our_loader(inputs: Inputs, augment: bool, size: int, batches: int) -> dict[str, float]:
    """Return images per second of tlfast's loader. The first call also decodes the images into the store."""
    import torch

    from tlfast import tasks
    from tlfast.data import Preprocessing, load_table, open_store
    from tlfast.models.device import pick_device
    from tlfast.models.weights import IMAGENET_STATS
    from tlfast.tasks.resolve import resolve_settings
    from tlfast.training.loaders import build_loaders

    task = tasks.get_task("fer")
    settings = resolve_settings(task, None, {"data": inputs.images, "size": size, "bs": BATCH, **({} if augment else {"augment": "none"})})
    table, store = open_store(load_table(task, settings, Path(inputs.images)), settings)
    device = torch.device(pick_device("cpu"))
    return _measure_rate(build_loaders(table, Preprocessing.from_settings(settings, IMAGENET_STATS), settings, device, store).train, batches)


def _measure_rate(loader: Any, batches: int) -> dict[str, float]:
    """Return images per second, without the first batch: worker processes take time to start."""
    count, started = -1, 0.0
    while count < batches:
        for _ in loader:
            count += 1
            if count == 0:
                started = time.perf_counter()
            if count >= batches:
                break
    return {"rate": count * loader.bs / (time.perf_counter() - started)}


# Training


def measure_plain_partial(inputs: Inputs, epochs: int, eval_mode: bool, steps: int | None = None) -> dict[str, float]:
    """Return seconds of setup and of an epoch with a frozen body, and the accuracy.

    With `eval_mode` the body is in eval mode; otherwise its BatchNorm layers train, as with fastai's `freeze`. `steps` limits an epoch; its seconds
    are extrapolated.
    """
    from fastai.vision.all import Callback

    class EvalBody(Callback):  # type: ignore[misc]  # fastai has no types
        """Keeps the BatchNorm statistics of the body, which `train_bn=False` alone does not."""

        def before_train(self) -> None:
            self.model[0].eval()

    started = time.perf_counter()
    learn, clock = _plain_learner(inputs, train_bn=not eval_mode), _build_clock(steps)
    learn.freeze()
    setup = time.perf_counter() - started
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, 1e-3, cbs=[clock, *([EvalBody()] if eval_mode else [])])
    epoch = clock.train_seconds * len(learn.dls.train) / clock.steps + clock.valid_seconds / epochs
    return {"setup": setup, "epoch": epoch, "accuracy": float(learn.recorder.values[-1][-1])}


def measure_plain_full(inputs: Inputs, epochs: int, steps: int | None = None, size: int = SIZE) -> dict[str, float]:
    """Return images per second of `fine_tune` after its frozen epoch, the final accuracy, and its number of images. `steps` limits an epoch."""
    learn, clock = _plain_learner(inputs, size), _build_clock(steps)
    with learn.no_bar(), learn.no_logging(), learn.added_cbs(clock):
        learn.fine_tune(epochs)
    rate, accuracy = clock.steps * BATCH / clock.train_seconds, float(learn.recorder.values[-1][-1])
    return {"rate": rate, "accuracy": accuracy, "images": len(learn.dls.valid_ds)}


def measure_bare_loop(inputs: Inputs, steps: int) -> dict[str, float]:
    """Return images per second of forward, backward and optimizer step with a batch in memory, the upper limit for this machine."""
    step = _build_step()
    for number in range(steps + WARM_UP):
        if number == WARM_UP:
            started = time.perf_counter()
        step()
    return {"rate": steps * BATCH / (time.perf_counter() - started)}


def _build_step() -> Callable[[], None]:
    """Return a function that trains on a batch in memory, once for each call."""
    import torch

    from tlfast.models.build import build_model
    from tlfast.models.device import pick_device

    model = build_model(ARCH, CLASSES, SIZE).to(pick_device("cpu")).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    x = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    y = torch.randint(CLASSES, (BATCH,))

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def measure_shared_loop(inputs: Inputs, competitors: int, shared: bool, seconds: float) -> dict[str, float]:
    """Return images per second of the bare loop beside processes that each use a core; `shared`: as tlfast trains, else as torch does by itself."""
    import subprocess
    from contextlib import nullcontext

    from tlfast.models.device import pick_device
    from tlfast.models.threads import INTERVAL, share_cores

    step = _build_step()
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(competitors)]
    try:
        with share_cores(pick_device("cpu")) if shared else nullcontext():
            _run_for(step, SETTLING * INTERVAL)
            return {"rate": BATCH * _run_for(step, seconds)}
    finally:
        for other in others:
            other.kill()
            other.wait()


def _run_for(step: Callable[[], None], seconds: float) -> float:
    """Run steps for some seconds. Returns steps per second."""
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        count += 1
    return count / (time.perf_counter() - started)


# Prediction


def measure_syncs(inputs: Inputs, strategy: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the calls per training step of the last phase for which the host waits for the device, and their places."""
    from sync_counter import COUNTED, FIRST, SyncCounter, count_waiting, use_stand_in

    from tlfast import tasks
    from tlfast.tasks.resolve import resolve_settings
    from tlfast.training import phase, trainer
    from tlfast.training.strategies import get_strategy

    task = tasks.get_task("fer")
    fixed = {
        "data": inputs.images,
        "arch": "test_resnet",
        "weights": "none",
        "size": 32,
        "bs": 16,
        "lr": "1e-3",
        "epochs": 9,
        "freeze_epochs": 0,
        "limit": 1000,
    }
    chosen = resolve_settings(task, strategy, {**fixed, **settings})
    counter = SyncCounter()
    with trainer.prepare(task, chosen, lambda event: None) as session:
        device = session.learn.dls.device
        if device.type == "cpu":
            use_stand_in(session.learn.dls)
        *_, plan = get_strategy(strategy).phases(session, chosen)
        with count_waiting(counter, device), plan.open(chosen) as opened, opened.learn.added_cbs(counter):
            phase.fit_phase(session, plan, opened, chosen)
    if counter.steps != FIRST + COUNTED:
        raise SystemExit(f"the training ended after {counter.steps} steps, before the steps were counted")
    return {"count": sum(counter.places.values()) / COUNTED, "places": dict(counter.places), "device": device.type}


def measure_plain_predict(inputs: Inputs, run: str, folder: str) -> dict[str, float]:
    """Return images per second of an exported fastai learner, without the time to load it."""
    from fastai.vision.all import get_image_files, load_learner

    learn, files = load_learner(Path(run) / "learner.pkl"), get_image_files(folder)
    started = time.perf_counter()
    with learn.no_bar():
        learn.get_preds(dl=learn.dls.test_dl(files))
    return {"rate": len(files) / (time.perf_counter() - started)}


def measure_our_predict(inputs: Inputs, run: str, folder: str) -> dict[str, float]:
    """Return images per second of an exported classifier, without the time to load it."""
    import tlfast
    from tlfast.data.discovery import gather_sources

    classifier, files = tlfast.load(run), list(gather_sources([folder]))
    started = time.perf_counter()
    for row in classifier.predict_iter(files):
        assert row.prediction, row.error
    return {"rate": len(files) / (time.perf_counter() - started)}


def measure_shards(inputs: Inputs, run: str, folder: str, engine: str, shards: int) -> dict[str, float]:
    """Return images per second of a sharded prediction: `engine` is local, or ray with a cluster and workers that are warm."""
    import tempfile

    from tlfast.commands.predict_shards import ShardsRequest, predict_shards
    from tlfast.core.system import count_cores

    if engine == "ray":
        import ray

        ray.init(address="local", num_cpus=count_cores(), include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    with tempfile.TemporaryDirectory() as work:
        for name in ("warm-up", "timed"):
            started = time.perf_counter()
            found = predict_shards(Path(run) / "model.onnx", "", ShardsRequest([folder], f"{work}/{name}", shards=shards, engine=engine))
        return {"rate": found.images / (time.perf_counter() - started)}


def measure_listing(inputs: Inputs, rows: int) -> dict[str, float]:
    """Return the paths per second of the list of a sharded prediction, from a CSV file of as many paths; the caller reads the peak memory."""
    import tempfile

    from tlfast.data.discovery import gather_sources
    from tlfast.inference.manifest import write_manifest

    with tempfile.TemporaryDirectory() as work:
        table = Path(work) / "list.csv"
        with table.open("w") as file:
            file.write("path\n")
            file.writelines(f"folder-{row // 1000}/image-{row}.jpg\n" for row in range(rows))
        started = time.perf_counter()
        assert write_manifest(Path(work), gather_sources([str(table)]), lambda event: None) == rows
        return {"rate": rows / (time.perf_counter() - started)}


# The plain fastai script


def _plain_loaders(images: str, size: int, augment: bool, workers: int | None, batch_tfms: list[Any]) -> Any:
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


def _plain_learner(inputs: Inputs, size: int = SIZE, **options: Any) -> Any:
    from fastai.vision.all import accuracy, vision_learner

    pretrained = {"pretrained": True, "pretrained_cfg_overlay": {"file": inputs.weights}} if inputs.weights else {"pretrained": False}
    return vision_learner(_plain_loaders(inputs.images, size, True, None, []), ARCH, metrics=accuracy, **pretrained, **options)


def _build_clock(limit: int | None) -> Any:
    """Return a callback that times the last fit. It ends the training of each epoch after `limit` steps."""
    from fastai.vision.all import Callback, CancelTrainException

    class Clock(Callback):  # type: ignore[misc]  # fastai has no types
        """Steps and seconds of training, and seconds of validation."""

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


MEASUREMENTS: dict[str, Callable[..., dict[str, float]]] = {
    name.removeprefix("measure_"): function for name, function in list(globals().items()) if name.startswith("measure_")
}


def main() -> None:
    """Run the measurement of the command line and print its result."""
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    inputs = Inputs(arguments.pop("images"), arguments.pop("weights"))
    print(json.dumps(MEASUREMENTS[name](inputs, **arguments)))


if __name__ == "__main__":
    main()
