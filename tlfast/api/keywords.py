"""Settings as keywords: the same names, types, checks and errors as the options of the command line."""

from __future__ import annotations

import functools
import inspect
import operator
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict, TypeVar, cast

import numpy as np

from ..core import Note, OnEvent
from ..core.errors import TlfastError, UsageError, suggest_name
from ..core.settings import declared_settings

F = TypeVar("F", bound=Callable[..., Any])
COMMAND = r"\btlfast [a-z](?:'[^']*'|[^;,()'])*"  # to type in a shell
FLAG = re.compile(COMMAND + r"|--(?P<no>no-)?(?P<name>[a-z]+(?:-[a-z]+)*)(?: (?P<value>'[^']*'|[\w.+~/\\-]*\w(?:,[\w.+-]*\w)*))?")
SHOWN = 80  # characters of a wrong value in a message
SWITCHES = ("full", "quiet")  # keywords that are True or False, besides settings
OF_TRAIN = ("full", "resume", "config")  # keywords of `tlfast.train` that are no settings, and that messages of other functions name
OTHER_NAMES = {"learning_curve": "shares", "depths": 'arms="depths"', "partial": "full=False"}  # options whose keyword has another name
LITERAL = re.compile(r"'.*'|[+-]?[\d.]+(e[+-]?\d+)?|[A-Z]+|nan|inf|True|False|None")  # as in Python; words in capitals stand for a value
VALUE = re.compile(r"'.*'|.*[\d/\\].*|.*,.*|\w+\.\w+|[A-Z]+|nan|inf|True|False|None|none")  # what is a value of a flag, and not the next word of the sentence


class HasFolder(Protocol):
    """An object with a folder, such as a run."""

    @property
    def folder(self) -> Path:
        """The folder."""
        ...


Named = str | os.PathLike[str] | HasFolder


class Keywords(TypedDict, total=False):
    """Keywords of the settings, for type checkers and editors. `declared_settings` has their help texts and checks."""

    arch: str
    head: Literal["fastai", "linear"]
    weights: str | os.PathLike[str]
    size: int
    crop_pct: float
    resize: Literal["squish", "crop", "pad"]
    path_col: str
    label_col: str
    split_col: str
    group_col: str
    group_by: str
    fold: int | None
    valid_pct: float
    limit: int | None
    train_pct: float
    store: Literal["auto", "ram", "disk", "off"]
    workers: int | None
    augment: Literal["none", "light", "standard", "strong"]
    flip: Literal["none", "horizontal", "both"]
    rotate: float | None
    colour: bool
    preset: Literal["none", "quick", "good", "best"]
    epochs: int
    freeze_epochs: int
    depth: int | str
    minutes: float | None
    views: int
    cache_gb: float | None
    cache_format: Literal["fp16", "fp32", "int8"]
    bs: int | Literal["auto"]
    accumulate: int
    lr: float | str
    class_weights: Literal["none", "balanced"]
    label_smoothing: float
    mixup: float
    teacher: Named | Sequence[Named] | None
    patience: int | None
    train_bn: bool
    sizes: str
    ema: bool
    amp: Literal["auto", "off", "bf16", "fp16"]
    compile: bool
    deterministic: bool
    keep: Literal["auto", "last", "best"]
    metric: Literal["accuracy", "macro_f1", "balanced_accuracy", "valid_loss"]
    seed: int
    auto_bs: bool
    checkpoint_minutes: float
    onnx: bool
    device: Literal["auto", "cpu", "cuda", "mps"]
    gpus: int
    sync_bn: bool
    out: str | os.PathLike[str]
    name: str
    log: str | Sequence[str]


def check_names(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords with paths, and lists of trackers and teachers, as text, and NumPy's numbers as those of Python.

    Raises UsageError for an unknown keyword, with the nearest one as hint.
    """
    declared = declared_settings()
    for name in keywords:
        if name not in declared:
            raise UsageError(f"unknown keyword '{name}'", suggest_name(name, sorted(declared)) or "help(tlfast.train) lists the keywords")
    values = {name: _to_python(value) for name, value in keywords.items()}
    texts = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in values.items()}
    return {**texts, **{name: join_names(texts[name]) for name in ("log", "teacher") if name in texts}}


def join_names(names: Named | Sequence[Named] | None) -> str:
    """Return names separated by commas; of runs, those of their folders.

    >>> join_names(["tensorboard", "mlflow"])
    'tensorboard,mlflow'
    """
    several = names if isinstance(names, list | tuple) else [] if names is None else [names]
    return ",".join(str(getattr(name, "folder", name)) for name in several)


def check_count(name: str, value: Any) -> int:
    """Return a number of images as an int. Raises UsageError unless it is a whole number above 0.

    >>> check_count("k", 9)
    9
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise UsageError(f"{name}={value!r} is not a whole number above 0", f"Give a number of images, such as {name}=9")
    return number


def check_text(name: str, value: Any, example: str) -> str:
    """Return a name or path as text. Raises UsageError for any other type."""
    if not isinstance(value, (str, os.PathLike)):
        shown = repr(value) if len(repr(value)) <= SHOWN else type(value).__name__  # a DataFrame has many lines
        raise UsageError(f"{name}={shown} is not a text", f"Give a text, such as {example}")
    return os.fspath(value)


def check_path(name: str, value: Any, example: str) -> str:
    """Return a path as text, with the home folder in place of `~`. Raises UsageError for any other type."""
    return os.path.expanduser(check_text(name, value, example))


def with_settings(function: F) -> F:
    """Replace `**settings` in the signature of a function by all declared settings, for `help` and completion in notebooks.

    Errors of the function name its keywords where those of the command line name flags.
    """
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    taken = {parameter.name for parameter in own}
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=declaration.default, annotation=declaration.type)
        for name, declaration in declared_settings().items()
        if name not in taken
    ]
    function.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    return with_keywords_in_messages(function)


_names: ContextVar[frozenset[str]] = ContextVar("names", default=frozenset())  # keywords of the running function


def with_keywords_in_notes(on_event: OnEvent) -> OnEvent:
    """Return a listener that passes events on. Its notes name keywords of the running function where those of the command line name flags."""
    names = _names.get() or frozenset((*OF_TRAIN, *declared_settings()))
    return lambda event: on_event(replace(event, note=name_keywords(event.note, names)) if isinstance(event, Note) else event)


def with_keywords_in_messages(function: F) -> F:
    """Let the errors and notes of a function name keywords, its own and settings, where those of the command line name flags.

    It receives NumPy's numbers as those of Python.
    """
    names = frozenset((*inspect.signature(function).parameters, *OF_TRAIN, *declared_settings()))

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        before = _names.set(names)
        try:
            return function(*map(_to_python, arguments), **{name: _to_python(value) for name, value in keywords.items()})
        except TlfastError as error:
            error.rewrite(functools.partial(name_keywords, names=names))
            raise
        finally:
            _names.reset(before)

    return cast(F, call)


def _to_python(value: Any) -> Any:
    """Return a number of NumPy as one of Python, and any other value as it is."""
    return value.item() if isinstance(value, np.generic) else value


def name_keywords(text: str, names: Collection[str]) -> str:
    """Return a message with keywords in place of flags, except in commands.

    >>> name_keywords("--bs 0 is too small; see --no-onnx and --train-bn", ["bs", "onnx", "train_bn"])
    'bs=0 is too small; see onnx=False and train_bn=True'
    >>> name_keywords("--bs 0 is too small: tlfast train --bs 8", ["bs"])
    'bs=0 is too small: tlfast train --bs 8'
    >>> name_keywords("use --keep best, or --arms partial,2", ["keep", "arms"])
    'use keep="best", or arms=["partial", 2]'
    """
    declared = declared_settings()

    def write(match: re.Match[str]) -> str:
        name, word = (match["name"] or "").replace("-", "_"), match["value"] or ""
        if name not in names:
            other = OTHER_NAMES.get(name, "")
            return f"{other} {word}".rstrip() if other.partition("=")[0] in names else match[0]
        if match["no"]:
            return f"{name}=False {word}".rstrip()
        is_value = VALUE.fullmatch(word) or (name in declared and word in (*declared[name].words, *declared[name].choices))
        if not is_value and (declared[name].type is bool if name in declared else name in SWITCHES):
            return f"{name}=True {word}".rstrip()
        if not is_value:
            return f"{name} {word}".rstrip()
        is_list = "," in word and name not in declared  # settings take lists as text
        return f"{name}=[{', '.join(map(_write_literal, word.split(',')))}]" if is_list else f"{name}={_write_literal(word)}"

    return FLAG.sub(write, text)


def _write_literal(word: str) -> str:
    """Return the value of an option as it is typed in Python."""
    return word if LITERAL.fullmatch(word) else f'"{word}"'
