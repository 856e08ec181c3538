"""Every setting of the command line is a keyword of the same name, with the same check and the same error."""

from __future__ import annotations

import inspect
import re
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

import tlfast
from tests.helpers.command_line import invoke
from tlfast.api import keywords
from tlfast.api.keywords import Keywords, check_names, name_keywords
from tlfast.commands import train as train_command
from tlfast.commands import train_processes
from tlfast.core.settings import declared_settings

DECLARED = {name: declaration for name, declaration in declared_settings().items() if name != "data"}  # data is the first argument
# Values that differ from the default, for settings whose type allows no guess.
SAMPLES: dict[str, Any] = {"lr": 0.01, "depth": 2, "sizes": "16,24", "group_by": "^(.)", "name": "mine", "crop_pct": 0.5, "fold": 1, "minutes": 2.0}
WRONG: dict[str, Any] = {"lr": "fast", "depth": "deep", "sizes": "9,8", "group_by": "(", "name": "../x"}
UNCHECKED = {"teacher", "weights", "arch", "out", "path_col", "label_col", "split_col", "group_col", "log"}  # any text is valid until it is used


class Captured(Exception):
    """Raised in place of a training."""


@pytest.fixture
def seen(monkeypatch, tmp_path):
    """Return the settings with which a training would start, from the command line and from Python."""
    settings = []

    def capture(task, resolved, *arguments, **more):
        settings.append(resolved)
        raise Captured

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_command, "train_run", capture)
    monkeypatch.setattr(train_processes, "train_in_processes", lambda training, *arguments: capture(training.task, training.settings))
    return settings


def sample(name: str) -> Any:
    """Return a valid value of a setting that is not its default."""
    declaration = DECLARED[name]
    if name in SAMPLES:
        return SAMPLES[name]
    if declaration.choices:
        return next(word for word in declaration.choices if word != declaration.default)
    kinds = get_args(declaration.type) or (declaration.type,)
    if bool in kinds:
        return not declaration.default
    if int in kinds:
        return (declaration.default or 2) + 8
    if float in kinds:
        return 0.25
    return "other"


def as_flags(name: str, value: Any) -> list[Any]:
    flag = DECLARED[name].flag
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    return [flag, value]


@pytest.mark.parametrize("name", DECLARED)
def test_keyword_and_option_give_the_same_settings(name, seen, pictures):
    value = sample(name)
    more = {"full": True} if name in ("sizes", "ema", "gpus") else {}
    invoke("train", pictures, *as_flags(name, value), *(["--full"] if more else []))
    with pytest.raises(Captured):
        tlfast.train(pictures, **{name: value}, **more)
    by_option, by_keyword = seen
    assert by_option == by_keyword
    assert getattr(by_keyword, name) in (value, str(value))
    assert getattr(by_keyword, name) != DECLARED[name].default


@pytest.mark.parametrize("name", [name for name in DECLARED if name not in UNCHECKED and bool not in (DECLARED[name].type,)])
def test_keyword_and_option_give_the_same_error(name, seen, pictures):
    value = WRONG.get(name, "nonsense" if DECLARED[name].choices else -1)
    printed = invoke("train", pictures, *as_flags(name, value))
    with pytest.raises(tlfast.UsageError) as error:
        tlfast.train(pictures, **{name: value})
    assert printed.code == 2
    assert " ".join(error.value.message.split()) in name_keywords(" ".join(printed.err.split()), DECLARED)
    assert DECLARED[name].flag not in error.value.message + error.value.hint


def test_an_unknown_keyword_names_the_nearest_one(pictures):
    with pytest.raises(tlfast.UsageError, match="unknown keyword 'epoch'") as error:
        tlfast.train(pictures, epoch=3)
    assert error.value.hint == "Did you mean 'epochs'?"


def test_type_hints_of_keywords_are_those_of_the_declarations():
    """The dict is written out for type checkers; `declared_settings` is what counts."""
    hints = get_type_hints(Keywords)
    assert list(hints) == list(DECLARED)
    for name, declaration in DECLARED.items():
        words = set(re.findall(r"'(\w+)'", str(hints[name])))
        assert words >= set(declaration.choices) | set(declaration.words)
        for kind in get_args(declaration.type) or (declaration.type,):
            if isinstance(kind, type):
                assert kind in (get_args(hints[name]) or (hints[name],)), name


@pytest.mark.parametrize("function", [tlfast.train, tlfast.plan, tlfast.lr_find, tlfast.learner, tlfast.compare])
def test_signature_lists_all_settings(function):
    parameters = inspect.signature(function).parameters
    assert set(DECLARED) <= set(parameters)
    assert parameters["epochs"].default == DECLARED["epochs"].default


def test_numbers_of_numpy_are_numbers():
    found = check_names({"size": np.int64(32), "lr": np.float32(0.25), "ema": np.bool_(True)})
    assert found == {"size": 32, "lr": 0.25, "ema": True} and list(map(type, found.values())) == [int, float, bool]


def public_calls() -> dict[str, Any]:
    """Return the public functions and methods with parameters, by name."""
    names = {tlfast: tlfast.__all__, **{kind: dir(kind) for kind in (tlfast.Run, tlfast.Dataset, tlfast.Cleaner, tlfast.Comparison)}}
    found = {f"{owner.__name__}.{name}": getattr(owner, name) for owner in names for name in names[owner] if not name.startswith("_")}
    calls = {name: getattr(call, "__func__", call) for name, call in found.items() if inspect.isfunction(call) or inspect.ismethod(call)}
    return {name: call for name, call in calls.items() if set(inspect.signature(call).parameters) - {"self"}}


@pytest.mark.parametrize("name", [name for name in public_calls() if name != "tlfast.load"])
def test_the_messages_of_all_public_calls_name_keywords(name):
    def rewrites(function):
        return function.__code__.co_filename == keywords.__file__

    assert rewrites(inspect.unwrap(public_calls()[name], stop=rewrites))


def test_the_messages_of_load_name_keywords(trained_run):
    with pytest.raises(tlfast.UsageError, match="^tta='rot' is not one of"):
        tlfast.load(trained_run.partial, tta="rot")


def test_values_in_messages_can_be_typed():
    assert name_keywords("Resume it with --resume ctrlc1220, or --lr 1e-3", ["resume", "lr"]) == 'Resume it with resume="ctrlc1220", or lr=1e-3'
    assert name_keywords("--sizes 64,80, --data PATH", ["sizes", "data"]) == 'sizes="64,80", data=PATH'
    assert name_keywords("Override the config file with --sizes none, or leave it", ["sizes"]) == 'Override the config file with sizes="none", or leave it'
    assert name_keywords("--config v2/mine.toml: no such file", ["config"]) == 'config="v2/mine.toml": no such file'
    command = "tlfast evaluate '/data/a (copy), b' --split test"
    assert name_keywords(f"Run first: {command}; --split test", ["split"]) == f"Run first: {command}; split test"
    hint = "Give several --arms, or --learning-curve; --depths compares the depths"
    assert name_keywords(hint, ["arms", "shares"]) == 'Give several arms, or shares; arms="depths" compares the depths'
    assert name_keywords(hint, ["split"]) == hint


def test_numbers_of_numpy_are_numbers_in_all_calls(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tlfast.clear_cache("unpacked", days=np.int64(400)).empty
    with pytest.raises(tlfast.UsageError, match="folds=1 leaves nothing to train on"):
        tlfast.compare(pictures, folds=np.int64(1))
    with pytest.raises(tlfast.UsageError, match="full=False and depth are both given"):
        tlfast.train(pictures, full=False, depth=1)


def test_wrong_values_follow_their_keyword_in_messages():
    names = ["onnx", "epochs", "ema"]
    assert name_keywords("--onnx 'no' is not true or false", names) == "onnx='no' is not true or false"
    assert name_keywords("--epochs True is not a whole number", names) == "epochs=True is not a whole number"
    assert name_keywords("--no-onnx and --ema are both given", names) == "onnx=False and ema=True are both given"
