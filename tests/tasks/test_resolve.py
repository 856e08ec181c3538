"""The settings of a run: flags, configuration files, presets of the task."""

from __future__ import annotations

import pytest

from tests.helpers.training import resolved
from tlfast import tasks
from tlfast.core import config_files, settings
from tlfast.core.errors import UsageError
from tlfast.core.presets import DEPTH_SETTINGS, PRESETS
from tlfast.tasks import resolve


@pytest.mark.parametrize(
    ("typed", "strategy", "depth"),
    [
        ({"depth": "0"}, "partial", "0"),
        ({"depth": 0}, "partial", "0"),
        ({"depth": 3}, "depth", "3"),
        ({"depth": "3"}, "depth", "3"),
        ({"depth": "all"}, "full", "all"),
        ({"depth": "auto"}, "depth", "auto"),
        ({"minutes": 3.0}, "depth", "auto"),
        ({"minutes": 3.0, "depth": "2"}, "depth", "2"),
        ({}, "partial", "0"),
    ],
)
def test_depth_is_one_scale_with_partial_and_full_at_its_ends(typed, strategy, depth):
    fer = tasks.get_task("fer")
    for chosen in (resolve.resolve_settings(fer, None, typed), resolve.resolve_settings(fer, None, {}, typed)):
        assert (chosen.strategy, chosen.depth) == (strategy, depth)
    assert resolve.resolve_settings(fer, None, {"depth": "4"}).epochs == resolve.resolve_settings(fer, "full", {}).epochs


def test_depth_beside_a_strategy():
    fer = tasks.get_task("fer")
    for typed, flag in (({"depth": "3"}, "--depth"), ({"minutes": 2.0}, "--minutes")):
        with pytest.raises(UsageError, match=f"--full and {flag} are both given"):
            resolve.resolve_settings(fer, "full", typed)
    assert resolve.resolve_settings(fer, "full", {}, {"depth": "3", "minutes": 5.0}).strategy == "full"
    for depth in ("0", 0, "all"):
        with pytest.raises(UsageError, match=f"--depth {depth} and --minutes are both given"):
            resolve.resolve_settings(fer, None, {"depth": depth, "minutes": 5.0})


@pytest.mark.parametrize("strategy", ["partial", "full"])
def test_a_time_budget_does_not_change_a_configured_strategy(strategy):
    fer = tasks.get_task("fer")
    for config in ({"strategy": strategy, "minutes": 5.0}, {"strategy": strategy, "depth": "", "minutes": 5.0}):
        chosen = resolve.resolve_settings(fer, None, {}, config)
        assert (chosen.strategy, chosen.minutes) == (strategy, None)
    assert resolve.resolve_settings(fer, None, {"depth": 0}, {"strategy": strategy}).strategy == "partial"
    assert resolve.resolve_settings(fer, None, {"minutes": 5.0}, {"strategy": strategy}).strategy == "depth"
    for wrong in ("deep", "-1", "2.5"):
        with pytest.raises(UsageError, match=f"--depth {wrong} must be 0, a number of stages"):
            resolve.resolve_settings(fer, None, {"depth": wrong})


@pytest.mark.parametrize("sizes", ["64,48", "4", "a", "16,16", "16,", "24,32"])
def test_wrong_sizes_are_refused(folder, sizes):
    with pytest.raises(UsageError, match="--sizes"):
        resolved(folder, "full", sizes=sizes)


FER = tasks.get_task("fer")


def test_order_of_precedence():
    own = resolve.resolve_settings(FER, None, {})
    assert (own.size, own.bs, own.epochs) == (96, 64, 10)
    assert resolve.resolve_settings(FER, "full", {}).epochs == 8
    assert resolve.resolve_settings(FER, None, {}, {"size": 80}).size == 80
    assert resolve.resolve_settings(FER, None, {"size": 72}, {"size": 80}).size == 72
    assert resolve.resolve_settings(FER, None, {}, {"strategy": "full"}).strategy == "full"
    assert resolve.resolve_settings(FER, "partial", {}, {"strategy": "full"}).strategy == "partial"


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_resolves_for_every_task_and_strategy(name):
    for task in tasks.registered_tasks().values():
        alone = resolve.resolve_settings(task, None, {"preset": name})
        assert all(getattr(alone, setting) == value for setting, value in PRESETS[name].settings.items()) and alone.preset == name
        for setting, value in PRESETS[name].settings.items():
            assert value != getattr(settings.Settings, setting), f"{setting} is the default anyway"
        others = {setting: value for setting, value in PRESETS[name].settings.items() if setting not in DEPTH_SETTINGS}
        for strategy in ("partial", "full") if others else ():
            chosen = resolve.resolve_settings(task, strategy, {"preset": name})
            assert chosen.strategy == strategy and chosen.minutes is None and all(getattr(chosen, setting) == value for setting, value in others.items())


def test_other_settings_override_a_preset():
    best = PRESETS["best"].settings
    chosen = resolve.resolve_settings(FER, None, {"epochs": 3}, {"preset": "best", "mixup": 0.5})
    assert (chosen.epochs, chosen.mixup, chosen.label_smoothing, chosen.depth) == (3, 0.5, best["label_smoothing"], "all")
    assert resolve.resolve_settings(FER, None, {"depth": "2"}, {"preset": "best"}).depth == "2"
    limited = resolve.resolve_settings(FER, None, {"preset": "best", "minutes": 5.0})
    assert (limited.depth, limited.internals.most_epochs) == ("auto", best["epochs"])
    typed = resolve.resolve_settings(FER, None, {"preset": "best"}, {"epochs": 2, "strategy": "partial", "depth": "", "mixup": 0.5, "size": 80})
    assert (typed.epochs, typed.strategy, typed.mixup, typed.size) == (best["epochs"], "full", best["mixup"], 80), "an option overrides the file"
    in_file = resolve.resolve_settings(FER, None, {}, {"preset": "best", "epochs": 2, "depth": "2"})
    assert (in_file.epochs, in_file.depth, in_file.mixup) == (2, "2", best["mixup"]), "other settings of the file override its preset"
    with pytest.raises(UsageError, match="--preset good only chooses the layers to train, and another option does so too"):
        resolve.resolve_settings(FER, "full", {"preset": "good"})
    recorded = {**resolve.resolve_settings(FER, None, {"preset": "good"}).to_dict(), "depth": "3"}  # as in the run.json of a run with a chosen depth
    repeated = config_files.settings_to_repeat({"settings": recorded, "data": {"source": ""}})
    assert resolve.resolve_settings(FER, None, {}, repeated).depth == "3"


@pytest.mark.parametrize(
    ("strategy", "flags", "depth"), [("full", {}, "all"), ("partial", {}, "0"), (None, {"depth": "2"}, "2"), (None, {"minutes": 5.0}, "auto")], ids=str
)
def test_options_override_a_preset_of_a_file_that_only_chooses_layers(strategy, flags, depth):
    for name in ("quick", "good"):
        recorded = {**resolve.resolve_settings(FER, None, {"preset": name}).to_dict(), "depth": "3", "minutes": None}
        repeated = config_files.settings_to_repeat({"settings": recorded, "data": {"source": ""}})
        for config in (repeated, {"preset": name}):
            chosen = resolve.resolve_settings(FER, strategy, flags, config)
            assert (chosen.depth, chosen.minutes, chosen.preset) == (depth, flags.get("minutes"), "none")
    assert resolve.resolve_settings(FER, strategy, flags, {"preset": "best"}).preset == "best", "its other settings apply"


@pytest.mark.parametrize(
    ("config", "file", "expected"),
    [
        ({"full": True, "bs": 8}, {"depth": 2}, ("2", 8, 8)),
        ({"depth": 2}, {"strategy": "full"}, ("all", 64, 8)),
        ({"minutes": 5.0, "epochs": 3}, {"full": False}, ("0", 64, 3)),
        ({"depth": 2, "epochs": 3}, {"preset": "best"}, ("all", 64, 30)),
        ({"preset": "best"}, {"epochs": 3, "depth": 2}, ("2", 64, 3)),
        ({"preset": "good", "bs": 8}, {"epochs": 3}, ("auto", 8, 3)),
    ],
)
def test_a_file_overrides_the_layers_and_the_settings_of_another_one(config, file, expected):
    chosen = resolve.resolve_settings(FER, None, {}, resolve.override_config(config, file))
    assert (chosen.depth, chosen.bs, chosen.epochs) == expected and chosen.minutes is None


@pytest.mark.parametrize(
    ("strategy", "flags", "config", "expected"),
    [
        ("full", {}, {"minutes": 10.0}, {"depth": "all"}),
        ("full", {}, {"strategy": "partial", "depth": "", "epochs": 3}, {"epochs": 3, "depth": "all"}),
        (None, {"preset": "good"}, {"depth": 3, "bs": 8}, {"preset": "good", "bs": 8}),
        (None, {"preset": "best"}, {"epochs": 5, "full": False, "bs": 8}, {"preset": "best", "bs": 8}),
        (None, {"depth": 2}, {"preset": "good"}, {"depth": "2"}),
        (None, {}, {"full": True}, {"depth": "all"}),
        (None, {"minutes": 5.0}, {"task": "fer", "epochs": 3}, {"minutes": 5.0, "epochs": 3}),
    ],
)
def test_given_values_without_those_that_are_overridden(strategy, flags, config, expected):
    assert resolve.list_given(strategy, flags, config) == expected


def test_none_switches_a_setting_of_a_file_off():
    config = {"limit": 50, "teacher": "first", "patience": 3, "group_by": "day"}
    chosen = resolve.resolve_settings(FER, None, dict.fromkeys(config, "none"), config)
    assert (chosen.limit, chosen.teacher, chosen.patience, chosen.group_by) == (None, "", None, "")
    assert resolve.resolve_settings(FER, None, {"name": "none"}).name == "none"
    config = {"strategy": "full", "depth": "", "sizes": "64,80"}
    with pytest.raises(UsageError, match="--sizes changes the images") as caught:
        resolve.resolve_settings(FER, None, {"depth": "3"}, config)
    assert caught.value.hint.startswith("Override the config file with --sizes none")
    assert resolve.resolve_settings(FER, None, {"depth": "3", "sizes": "none"}, config).sizes == ""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"preset": "fast"}, "--preset 'fast' is not one of: none, quick, good, best"),
        ({"size": 0}, "--size 0 must lie between 8 and 2048"),
        ({"fold": 9}, "--fold 9 must lie between 0 and 4"),
        ({"lr": "fast"}, "--lr fast must be auto, finder or a number such as 1e-3"),
        ({"lr": "-1"}, "--lr -1 must be above 0 and at most 10"),
        ({"epochs": "three"}, "--epochs 'three' is not a whole number"),
        ({"epochs": True}, "--epochs True is not a whole number"),
        ({"augment": "wild"}, "--augment 'wild' is not one of: none, light, standard, strong"),
        ({"group_by": "("}, "--group-by ( is not a regular expression"),
        ({"valid_pct": 1.5}, "--valid-pct 1.5 must lie between 0.01 and 0.9"),
        ({"name": "../x"}, "--name ../x must start with a letter or digit"),
        ({"name": "x" * 201}, f"--name {'x' * 201} has 201 bytes, and a name at most 200"),
        ({"name": "é" * 101}, f"--name {'é' * 101} has 202 bytes, and a name at most 200"),
        ({"name": "latest"}, "--name latest is taken: tlfast itself uses"),
        ({"name": "Latest"}, "--name Latest is taken: tlfast itself uses"),
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


@pytest.mark.parametrize("task", tasks.registered_tasks().values(), ids=lambda task: task.name)
@pytest.mark.parametrize("strategy", settings.STRATEGIES)
def test_every_task_resolves(task, strategy):
    chosen = resolve.resolve_settings(task, strategy, {})
    assert chosen.task == task.name and chosen.strategy == strategy
    assert chosen.full_size >= chosen.size
    assert task.title and task.licence and len(set(task.classes)) == len(task.classes) >= 2


def test_margin_for_the_crop():
    weeds = resolve.resolve_settings(tasks.get_task("weeds"), None, {})
    assert (weeds.size, weeds.full_size) == (224, 256)


def test_a_config_file_may_call_the_strategy_as_the_flag_does():
    assert [resolve.resolve_settings(FER, None, {}, {"full": full}).strategy for full in (True, False)] == ["full", "partial"]
    assert resolve.resolve_settings(FER, "partial", {}, {"full": True}).strategy == "partial"


def test_settings_of_another_task_are_refused(run, cli, pictures, tmp_path):
    other = cli("train", "digits", "--config", run.folder / "run.json")
    assert other.code == 2 and "is for the task pictures, not for digits" in other.err
    (tmp_path / "mine.toml").write_text('task = "digits"')
    of_file = cli("train", pictures, "--config", tmp_path / "mine.toml")
    assert of_file.code == 2 and "mine.toml is for the task digits, not for pictures" in of_file.err
    assert cli("train", pictures, "--config", run.folder / "run.json", "--dry-run").code == 0


@pytest.mark.parametrize(("former", "by_size"), [(True, False), (False, True)])
def test_a_repeated_run_of_an_earlier_version_divides_groups_as_it_did(former, by_size):
    recorded = settings.Settings(task="t").to_dict()
    if former:
        del recorded["by_size"]
    repeated = config_files.settings_to_repeat({"settings": recorded, "data": {"source": "photos"}})
    assert resolve.resolve_settings(tasks.get_task("digits"), None, {}, repeated).internals.by_size == by_size
