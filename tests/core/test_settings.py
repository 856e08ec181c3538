from __future__ import annotations

import pytest

from tlfast import tasks
from tlfast.core import config_files, settings
from tlfast.core.errors import UsageError
from tlfast.tasks import resolve

FER = tasks.get_task("fer")


def test_order_of_precedence():
    own = resolve.resolve_settings(FER, None, {})
    assert (own.size, own.bs, own.epochs) == (96, 64, 10)
    assert resolve.resolve_settings(FER, "full", {}).epochs == 8
    assert resolve.resolve_settings(FER, None, {}, {"size": 80}).size == 80
    assert resolve.resolve_settings(FER, None, {"size": 72}, {"size": 80}).size == 72
    assert resolve.resolve_settings(FER, None, {}, {"strategy": "full"}).strategy == "full"
    assert resolve.resolve_settings(FER, "partial", {}, {"strategy": "full"}).strategy == "partial"


def test_round_trip_through_run_json():
    chosen = resolve.resolve_settings(FER, "full", {"lr": "1e-3", "limit": 50})
    assert settings.Settings.from_dict(chosen.to_dict()) == chosen
    assert chosen.rate == 1e-3 and resolve.resolve_settings(FER, None, {}).rate is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"size": 0}, "--size 0 must lie between 8 and 2048"),
        ({"fold": 9}, "--fold 9 must lie between 0 and 4"),
        ({"lr": "fast"}, "--lr fast must be auto or a number such as 1e-3"),
        ({"lr": "-1"}, "--lr -1 must be above 0 and at most 10"),
        ({"epochs": "three"}, "--epochs 'three' is not a whole number"),
        ({"epochs": True}, "--epochs True is not a whole number"),
        ({"augment": "wild"}, "--augment 'wild' is not one of: none, light, standard, strong"),
        ({"group_by": "("}, "--group-by ( is not a regular expression"),
        ({"valid_pct": 1.5}, "--valid-pct 1.5 must lie between 0.01 and 0.9"),
        ({"name": "../x"}, "--name ../x must start with a letter or digit"),
        ({"name": "latest"}, "--name latest must start with"),
        ({"breadth": 3}, "unknown setting 'breadth'"),
    ],
)
def test_wrong_values_are_named(flags, message):
    with pytest.raises(UsageError) as error:
        resolve.resolve_settings(FER, None, flags)
    assert error.value.message.startswith(message)


def test_unknown_setting_suggests_the_nearest():
    with pytest.raises(UsageError) as error:
        resolve.resolve_settings(FER, None, {}, {"epoch": 3})
    assert error.value.hint == "Did you mean 'epochs'?"


def test_config_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('epochs = 3\nlr = 0.001\nlabel-smoothing = 0\naugment = "none"\n')
    chosen = resolve.resolve_settings(FER, None, {}, config_files.read_config(str(path)))
    assert (chosen.epochs, chosen.rate, chosen.label_smoothing, chosen.augment) == (3, 0.001, 0.0, "none")


@pytest.mark.parametrize(("text", "message"), [("epochs = = 3", "is not TOML"), (None, "No such file")])
def test_bad_config_file(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    if text:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        config_files.read_config(str(path))


@pytest.mark.parametrize("task", tasks.registered_tasks().values(), ids=lambda task: task.name)
@pytest.mark.parametrize("strategy", settings.STRATEGIES)
def test_every_task_resolves(task, strategy):
    chosen = resolve.resolve_settings(task, strategy, {})
    assert chosen.task == task.name and chosen.strategy == strategy
    assert chosen.full_size >= chosen.size
    assert task.title and task.licence and len(set(task.classes)) == len(task.classes) >= 2


def test_every_declaration_has_help_and_its_default_passes_its_own_check():
    for name, own in settings.declared_settings().items():
        assert own.help.endswith("."), name
        assert not (own.check and own.default is not None and own.check(own.default)), name


def test_margin_for_the_crop():
    weeds = resolve.resolve_settings(tasks.get_task("weeds"), None, {})
    assert (weeds.size, weeds.full_size) == (224, 256)


def test_a_config_file_may_call_the_strategy_as_the_flag_does():
    assert [resolve.resolve_settings(FER, None, {}, {"full": full}).strategy for full in (True, False)] == ["full", "partial"]
    assert resolve.resolve_settings(FER, "partial", {}, {"full": True}).strategy == "partial"
