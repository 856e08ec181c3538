"""Speed of this machine: decoding of JPEG files, the training loader, frozen layers and training steps, as a training uses them."""

from __future__ import annotations

import copy
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from ..core import OnEvent, Progress, cache, ignore_event
from ..core.processor import STAT, CoreUse
from ..core.system import count_cores
from ..data import Row, Task, images
from ..models.fuse_bn import fuse_bn
from ..testing import COLOURS, draw_image
from .amp import choose_pass_precision, choose_step_precision
from .loaders import BATCH, CPU_BATCH
from .profiler import run_steps, time_loading, time_passes
from .session import Session
from .trainer import prepare
from .types import MEASURES, Speed, Workload

QUALITY = 90  # of the JPEG files
IMAGES_PER_THREAD = 8  # decoded in one repetition


def measure_speeds(workload: Workload, on_event: OnEvent = ignore_event) -> tuple[torch.device, list[Speed]]:
    """Return the device that a training would use, and the speeds of all measures.

    Each measure is repeated until its share of the time is over. Images, cached results and the network are in a temporary folder, which is removed.

    >>> device, speeds = measure_speeds(Workload(seconds=10))  # doctest: +SKIP
    """
    with _open_session(workload, on_event) as session:
        device, paths = session.learn.dls.device, sorted({row.path for row in session.table.rows})
        runs, formats = _prepare_networks(session, workload)
        runs = {
            "decode_one": lambda: _time_decoding(paths, alone=True),
            "decode_all": lambda: _time_decoding(paths * math.ceil(IMAGES_PER_THREAD * count_cores() / len(paths)), alone=False),
            "loader": lambda: time_loading(session.learn),
            **runs,
        }
        return device, [_measure(name, runs[name], workload.seconds, formats.get(name, ""), on_event) for name in MEASURES]


@contextmanager
def _open_session(workload: Workload, on_event: OnEvent) -> Iterator[Session]:
    """Draw images and prepare a training with them, with a cache of its own."""
    with tempfile.TemporaryDirectory(prefix="tlfast-speed-") as name:
        folder = Path(name)
        rows = _draw_rows(folder / "images", workload, on_event)
        task = Task("speed", "drawn images", tuple(COLOURS), rows=lambda root, fold: rows)
        settings = replace(workload.settings(), data=str(folder / "images"))
        with cache.use_root(folder / "cache"), prepare(task, settings, ignore_event) as session:
            yield session


def _draw_rows(folder: Path, workload: Workload, on_event: OnEvent) -> list[Row]:
    """Draw the images, and return rows: one of each class for validation, the others repeated for some training batches."""
    rows, labels = [], list(COLOURS)
    for number in range(workload.pictures):
        on_event(Progress("drawing images", number, workload.pictures))
        label = labels[number % len(labels)]
        drawn = draw_image(folder / "drawn.png", COLOURS[label], number, workload.drawn)
        path = folder / label / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        with Image.open(drawn) as image:
            image.resize(workload.jpeg, Image.Resampling.BICUBIC).save(path, quality=QUALITY)
        rows.append(Row(str(path), label))
    on_event(Progress("drawing images", workload.pictures, workload.pictures))
    valid, train = rows[: len(labels)], rows[len(labels) :]
    repeated = train * math.ceil(4 * workload.bs / len(train))
    return [replace(row, split="train") for row in repeated] + [replace(row, split="valid") for row in valid]


def _prepare_networks(session: Session, workload: Workload) -> tuple[dict[str, Callable[[], list[float]]], dict[str, str]]:
    """Return the stopwatches of the network, and the number formats that a training would choose for them."""
    learn, settings = session.learn, workload.settings()
    device, shape = learn.dls.device, (3, workload.size, workload.size)
    body = copy.deepcopy(learn.model[0])
    frozen, trained = choose_pass_precision(body, device, settings, shape), choose_step_precision(learn.model, device, settings, shape)
    passes = time_passes(fuse_bn(body), shape, CPU_BATCH if device.type == "cpu" else BATCH, device, frozen)
    runs = {"forward": passes, "step": lambda: run_steps(learn, learn.model, shape, workload.bs, trained)}
    return runs, {"forward": _name_format(frozen), "step": _name_format(trained)}


def _name_format(precision: str) -> str:
    return "float32" if precision == "off" else precision


def _time_decoding(paths: list[str], alone: bool) -> list[float]:
    """Return the seconds per image of opening and decoding all files once, by one thread or as the store does it."""
    started = time.perf_counter()
    if alone:
        for path in paths:
            images.open_image(path)
    else:
        list(images.map_images(paths, lambda path: images.open_image(path).size, "decoding", ignore_event))
    return [(time.perf_counter() - started) / len(paths)]


def _measure(name: str, run: Callable[[], list[float]], seconds: float, precision: str, on_event: OnEvent) -> Speed:
    """Repeat a measure until its share of the seconds is over, at least once."""
    title, limit = f"measuring: {MEASURES[name].title}", MEASURES[name].share * seconds
    use = CoreUse() if STAT.exists() and hasattr(os, "sched_getaffinity") else None
    started, total, values = time.perf_counter(), max(1, round(limit)), list[float]()
    while not values or time.perf_counter() - started < limit:
        on_event(Progress(title, min(total - 1, int(time.perf_counter() - started)), total))
        values += run()
    on_event(Progress(title, total, total))
    return Speed(name, 1 / statistics.median(values), len(values), precision, round(use.taken(), 2) if use else None)
