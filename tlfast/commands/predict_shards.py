"""`tlfast predict --out-dir`: predictions in parts, by any number of processes, continued by repeating the command. Loads no torch."""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..core import Note, OnEvent, Progress, UsageError, ignore_event
from ..core.files import convert_os_errors, hash_file, wait_for_lock
from ..data.discovery import STDIN, find_missing, gather_sources
from ..data.left_out import LeftOut
from ..distributed import Engine, open_engine
from ..inference import open_network
from ..inference.manifest import CHUNK, FOLDER, finish_manifest, is_manifest, write_chunks, write_manifest
from ..inference.shards import (
    DESCRIPTION,
    ShardedWork,
    ShardResult,
    predict_listed,
    predict_shard,
    read_description,
    read_part,
    rename_drafts,
    write_description,
)
from .predict import describe_sources

LOCK = ".lock"
MAX_SHARDS = 99_999  # names of parts have five digits
STALE_SECONDS = 24 * 3600.0  # age of unfinished parts of killed processes


@dataclass(frozen=True)
class ShardsRequest:
    """What to predict in parts.

    Attributes:
        sources: files, folders, zips, tars, patterns, tables, URLs, or "-" for a list on stdin.
        out_dir: folder for the parts.
        column: column of paths in tables.
        shards: number of parts, 0 for one for each 10,000 images, which are predicted while further images are listed.
        shard: "K/N" for part K of N only, "" for all.
        min_prob: probability below which the label is "unsure".
        network: allow downloads, and lists of remote folders.
        allow_private: allow downloads from private networks.
        engine: local or ray.
        address: address of a Ray cluster.
        cpus: cores for each task of Ray.
    """

    sources: Sequence[str]
    out_dir: str
    column: str = "path"
    shards: int = 0
    shard: str = ""
    min_prob: float = 0.0
    network: bool = True
    allow_private: bool = False
    engine: str = "local"
    address: str = ""
    cpus: int = 1


@dataclass(frozen=True)
class ShardsResult:
    """Result of a sharded prediction.

    Attributes:
        folder: folder of the parts.
        images: number of images in the parts of this command.
        shards: number of these parts.
        of: number of all parts.
        reused: number of parts that an earlier command had written.
        labels: number of images of each label, most frequent first.
        failed: number of unreadable images.
    """

    folder: str
    images: int
    shards: int
    of: int
    reused: int
    labels: dict[str, int]
    failed: int

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON types."""
        return asdict(self)


def predict_shards(model: Path, run: str, request: ShardsRequest, on_event: OnEvent = ignore_event) -> ShardsResult:
    """Predict all images of the request, or those of one shard, with the ONNX file `model`; valid parts of earlier commands are kept.

    The first command lists the images. Without a number of shards, each file of the list is predicted as soon as it is written. Raises UsageError if
    the folder belongs to another request, DataError, or TlfastError.
    """
    _check_values(request)
    number, shards = _parse_shard(request)
    engine = open_engine(request.engine, request.address, request.cpus)
    folder, results = Path(request.out_dir).expanduser(), list[ShardResult]()
    if not folder.exists():  # so that no empty folder is left
        _refuse_missing(request.sources)
    with convert_os_errors(folder, "--out-dir"):
        folder.mkdir(parents=True, exist_ok=True)
        waiting = Note("listing images", "another process is listing the images; waiting for it")
        with wait_for_lock(folder / LOCK, lambda: on_event(waiting)):
            work = _open_work(folder, model, run, replace(request, shards=shards))
            if not work.images:
                images, results = _list_images(folder, model, work, engine, on_event)
                work = replace(work, images=images, shards=work.shards or -(-images // CHUNK), per_shard=0 if work.shards else CHUNK)
                write_description(folder, work)
            rename_drafts(folder, work)
        _remove_stale(folder)
    wanted = range(work.shards) if number is None else [number]
    if not results:
        results = [result for shard in wanted if (result := read_part(folder, work, shard))]
        if results:
            on_event(Note("predicting", f"{len(results):,} of {len(wanted):,} parts are there already"))
    missing = sorted(set(wanted).difference(result.shard for result in results))
    results += _run_engine(engine, folder, model, work, missing, on_event)
    labels = sum((Counter(result.labels) for result in results), Counter[str]())
    images, reused = sum(stop - start for start, stop in map(work.range_of, wanted)), sum(result.reused for result in results)
    return ShardsResult(str(folder), images, len(wanted), work.shards, reused, dict(labels.most_common()), sum(result.failed for result in results))


def _check_values(request: ShardsRequest) -> None:
    """Raise UsageError for values of wrong types or outside their range."""
    if not request.out_dir.strip():
        raise UsageError("--out-dir is empty", "Name the folder for the parts: --out-dir answers")
    if isinstance(request.shards, bool) or not isinstance(request.shards, int) or not 0 <= request.shards <= MAX_SHARDS:
        raise UsageError(f"--shards {request.shards!r} is not a whole number from 1 to {MAX_SHARDS:,}")
    if not isinstance(request.shard, str):
        raise UsageError(f"--shard {request.shard!r} is not a text", "Such as: --shard 17/256")
    if isinstance(request.min_prob, bool) or not isinstance(request.min_prob, (int, float)) or not 0 <= request.min_prob <= 1:
        raise UsageError(f"--min-prob {request.min_prob!r} is not a number from 0 to 1")
    if STDIN in request.sources:
        hint = "Write the paths to a CSV file with a column 'path', and give that: a repeated command needs the same list"
        raise UsageError("a list on stdin and --out-dir exclude each other", hint)


def _parse_shard(request: ShardsRequest) -> tuple[int | None, int]:
    """Return the number of the shard, None for all, and the number of shards, 0 if it is not given. Raises UsageError."""
    if not request.shard:
        return None, request.shards
    found = re.fullmatch(r"(\d+)/(\d+)", request.shard)
    if not found or int(found[1]) >= int(found[2]) or int(found[2]) > MAX_SHARDS:
        raise UsageError(f"--shard {request.shard} is not K/N with K from 0 to N-1, and N up to {MAX_SHARDS:,}", "Such as: --shard 17/256")
    number, shards = int(found[1]), int(found[2])
    if request.shards not in (0, shards):
        raise UsageError(f"--shard {request.shard} and --shards {request.shards} differ", "Leave out --shards")
    return number, shards


def _open_work(folder: Path, model: Path, run: str, request: ShardsRequest) -> ShardedWork:
    """Return the work in the folder, after a check that it is that of the request. Raises UsageError or DataError."""
    network = open_network(model)  # fails here for a damaged file
    wanted = ShardedWork(
        run=run or network.info.get("run", ""),
        model=hash_file(model),
        classes=network.classes,
        sources=tuple(request.sources),
        column=request.column,
        base=str(Path.cwd()),
        images=0,
        shards=request.shards,
        min_prob=request.min_prob,
        network=request.network,
        allow_private=request.allow_private,
    )
    work = read_description(folder)
    if work is None:
        others = sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and not is_manifest(path))  # lock, drafts, temporary files
        if others:
            raise UsageError(f"--out-dir {folder} holds other files, such as {others[0]}", "Give a new or an empty folder")
        return wanted
    _check_same(folder, work, wanted)
    return work


def _refuse_missing(sources: Sequence[str]) -> None:
    """Raise UsageError for a source that is not there: as an unreadable image it would stay in the parts, also once it is there."""
    if missing := find_missing(sources):
        raise UsageError(f"there is no file or folder {missing}", "Correct the path, or leave it out")


def _list_images(folder: Path, model: Path, work: ShardedWork, engine: Engine, on_event: OnEvent) -> tuple[int, list[ShardResult]]:
    """List the images, and predict them meanwhile if the number of parts is open. Returns their number, and the results.

    Raises UsageError if there are none, or if a source is missing.
    """
    _refuse_missing(work.sources)
    left_out = LeftOut()
    if (folder / FOLDER).exists():  # of a process that was killed before it described the work
        shutil.rmtree(folder / FOLDER)
    paths = gather_sources(work.sources, work.column, left_out=left_out, network=work.network)
    if work.shards:
        images, results = write_manifest(folder, paths, on_event), list[ShardResult]()
    else:
        write_description(folder, work)  # drafts of a killed process belong to it
        images, results = _predict_while_listing(folder, model, work, engine, paths, on_event)
    for note in describe_sources(work.sources, work.column, left_out):
        on_event(Note("predicting", note))
    if not images:
        (folder / DESCRIPTION).unlink(missing_ok=True)
        hint = "Give image files, folders, zips or tars of them, patterns in quotes, or a table"
        raise UsageError("no images in " + ", ".join(work.sources), hint)
    return images, results


def _predict_while_listing(
    folder: Path, model: Path, work: ShardedWork, engine: Engine, paths: Iterable[str], on_event: OnEvent
) -> tuple[int, list[ShardResult]]:
    """Predict each file of the list as soon as it is written. Returns the number of images, and the results in the order of the list."""
    listed, done = list[int](), 0  # images of each file

    def list_chunks() -> Iterator[int]:
        for number, images in enumerate(write_chunks(folder, paths)):
            listed.append(images)
            yield number

    def report(images: int) -> None:
        on_event(Progress("predicting", done + images, sum(listed)))

    predict = partial(predict_listed, folder.resolve(), model.resolve(), work, on_image=report if engine.in_process else None)
    results = []
    for result in engine.run(predict, list_chunks()):
        done += listed[result.shard]
        report(0)
        results.append(result)
    finish_manifest(folder)
    reused = sum(result.reused for result in results)
    if reused:
        on_event(Note("predicting", f"{reused:,} of {len(results):,} parts were there already"))
    return sum(listed), sorted(results, key=lambda result: result.shard)


def _check_same(folder: Path, work: ShardedWork, wanted: ShardedWork) -> None:
    """Raise UsageError if the folder belongs to another model, or to other images or options."""
    is_relative = any(not Path(source).is_absolute() and "://" not in source for source in wanted.sources)
    names = ["model", "sources", "column", "min_prob", "network", "allow_private", *(["base"] if is_relative else []), *(["shards"] if wanted.shards else [])]
    begun = {
        "model": f"another model, that of the run {work.run}",
        "sources": f"the images {' '.join(work.sources)}",
        "base": f"relative paths in {work.base}",
        "shards": f"--shards {work.shards}" if work.shards else "no --shards",
        "network": "--network" if work.network else "--no-network",
        "allow_private": "--allow-private" if work.allow_private else "no --allow-private",
    }
    for name in names:
        if getattr(work, name) != getattr(wanted, name):
            found = begun.get(name, f"--{name.replace('_', '-')} {getattr(work, name)}")
            raise UsageError(f"--out-dir {folder} was begun with {found}", f"Repeat the command as it was, see {folder / DESCRIPTION}; or give another folder")


def _remove_stale(folder: Path) -> None:
    """Remove unfinished parts of processes that were killed long ago."""
    for path in folder.glob(".part-*.tmp"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()


def _run_engine(engine: Engine, folder: Path, model: Path, work: ShardedWork, missing: Sequence[int], on_event: OnEvent) -> Iterator[ShardResult]:
    """Yield the results of the missing shards. Progress is that of images in this process, else that of finished shards."""
    total, done = sum(stop - start for start, stop in map(work.range_of, missing)), 0

    def report(images: int) -> None:
        on_event(Progress("predicting", done + images, total))

    report(0)
    predict = partial(predict_shard, folder.resolve(), model.resolve(), on_image=report if engine.in_process else None)
    for result in engine.run(predict, missing) if missing else ():
        start, stop = work.range_of(result.shard)
        done += stop - start
        report(0)
        yield result
