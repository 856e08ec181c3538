"""`tlfast compare --archs auto`: rank the backbones whose weights need no download by their features of some training images."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from ..core import Note, OnEvent, Progress, Settings, UsageError, ignore_event
from ..core.presets import NONE
from ..core.setting_checks import END_DEPTHS
from ..data import Task
from ..data.sources import open_data
from ..evaluation import RankedBackbone, log_evidence
from ..models import list_at_hand, list_names
from ..tasks import resolve_settings
from ..tasks.resolve import expand_preset
from ..training import prepare
from ..training.batch_size import use_default_batch
from ..training.features import compute_plain
from .compare import DEPTHS, ArmsRequest

AUTO = "auto"  # value of --archs, and the kind of an arm whose depth is chosen
SAMPLE, OF_EACH_CLASS = 1000, 5  # training images, stratified by class; more of many classes, so that each has several
MAX_CANDIDATES = 12
CHOSEN = 2


def choose_backbones(task: Task, settings: Settings, on_event: OnEvent = ignore_event) -> list[RankedBackbone]:
    """Return the candidates for `--archs auto`, best first, after a note with the ranking. The first CHOSEN of them are to be trained.

    Candidates are the backbones whose default weights need no download. Raises UsageError if there are fewer than two.
    """
    if settings.weights != "auto":
        raise UsageError(f"--archs auto is given with --weights {settings.weights}", "Leave out --weights: each backbone has its own")
    candidates = list_at_hand(list_names())
    if len(candidates) < CHOSEN:
        found = f"--archs auto: without a download there are weights of {len(candidates)} backbone{'s' * (len(candidates) != 1)}"
        raise UsageError(found, "Put further ones into a folder and name it in TLFAST_WEIGHTS; see tlfast archs")
    if len(candidates) > MAX_CANDIDATES:
        found = f"weights of {len(candidates)} backbones need no download; the first {MAX_CANDIDATES} by name are ranked. Name others with --archs"
        on_event(Note("ranking", found))
    sample = max(SAMPLE, OF_EACH_CLASS * len(open_data(task, settings, on_event).classes))
    settings = replace(settings, limit=min(sample, settings.limit or sample))
    ranked = sorted(_score(task, settings, candidates[:MAX_CANDIDATES], on_event), key=lambda each: -each.score)
    listed = ", ".join(f"{each.arch} {each.score:.3f}" for each in ranked)
    on_event(Note("ranking", f"LogME of {ranked[0].images:,} training images: {listed}; compared are the first {CHOSEN}"))
    return ranked


def choose_archs(task: Task, request: ArmsRequest, on_event: OnEvent = ignore_event) -> ArmsRequest:
    """Return the request with backbones in place of "auto". With `--minutes`, each of them trains to the depth that fits its share of the time.

    Raises UsageError, also if other arms are given with `--minutes`.
    """
    if list(request.archs) != [AUTO]:
        return request
    settings = resolve_settings(task, None, request.flags, request.config)
    kinds, flags, config = request.kinds, request.flags, request.config
    if settings.minutes is not None:
        if list(kinds) != list(END_DEPTHS):  # the default of --arms
            option = "--depths" if list(kinds) == [DEPTHS] else f"--arms {','.join(kinds)}"
            raise UsageError(f"{option} is given with --minutes, which chooses the depth", f"Leave out {option.split()[0]}, or leave out --minutes")
        flags = {name: value for name, value in expand_preset(flags).items() if name not in ("preset", "minutes")}
        flags |= {"preset": NONE} if "preset" in request.flags else {}  # which then applies in place of a preset of the file
        kinds, config = [AUTO], {**config, "minutes": settings.minutes / CHOSEN}
    ranking = choose_backbones(task, settings, on_event)
    return ArmsRequest(kinds, [each.arch for each in ranking[:CHOSEN]], flags, config, ranking)


def _score(task: Task, settings: Settings, archs: Sequence[str], on_event: OnEvent) -> Iterator[RankedBackbone]:
    settings = use_default_batch(settings)
    for arch in archs:
        with prepare(task, replace(settings, arch=arch), ignore_event) as session:
            rows = session.table.part("train")
            index = {label: i for i, label in enumerate(session.table.classes)}
            started, report = time.perf_counter(), partial(_report, on_event, arch, len(rows))
            features = compute_plain(session.learn.model[0], session, rows, settings, report)
            score = log_evidence(features, np.array([index[row.label] for row in rows]))
            yield RankedBackbone(arch, score, features.shape[1], len(rows), time.perf_counter() - started)


def _report(on_event: OnEvent, arch: str, total: int, done: int) -> None:
    on_event(Progress(f"ranking {arch}", done, total))
