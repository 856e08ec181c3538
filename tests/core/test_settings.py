from __future__ import annotations

from tlfast import tasks
from tlfast.core import config_files, settings
from tlfast.tasks import resolve

FER = tasks.get_task("fer")


def test_round_trip_through_run_json():
    chosen = resolve.resolve_settings(FER, "full", {"lr": "1e-3", "limit": 50})
    assert settings.Settings.from_dict(chosen.to_dict()) == chosen
    assert chosen.rate == 1e-3 and resolve.resolve_settings(FER, None, {}).rate is None


def test_runs_of_earlier_versions_keep_the_best_epoch():
    now = resolve.resolve_settings(FER, None, {})
    earlier = {name: value for name, value in now.to_dict().items() if name != "keep"}
    assert not now.keeps_best and settings.Settings.from_dict(earlier).keeps_best
    repeated = config_files.settings_to_repeat({"settings": earlier, "data": {"source": "images"}})
    assert resolve.resolve_settings(FER, None, {}, repeated).keeps_best
    assert resolve.resolve_settings(FER, None, {"metric": "macro_f1"}).keeps_best
    assert not resolve.resolve_settings(FER, None, {"metric": "macro_f1", "keep": "last"}).keeps_best


def test_runs_of_version_0_1_0_keep_the_rates_of_the_finder():
    now = resolve.resolve_settings(FER, None, {}).to_dict()
    earlier = {name: value for name, value in now.items() if name != "head"}  # a younger setting
    for values, lr in ((now, "auto"), (earlier, "finder"), ({**earlier, "lr": "1e-3"}, "1e-3")):
        assert settings.Settings.from_dict(values).lr == lr
        assert config_files.settings_to_repeat({"settings": values, "data": {"source": "images"}})["lr"] == lr


def test_values_that_earlier_versions_accepted_can_be_read():
    written = {**resolve.resolve_settings(FER, None, {}).to_dict(), "name": "Tables", "out": "", "group_col": ""}
    read = settings.Settings.from_dict(written)
    assert (read.name, read.out, read.group_col) == ("", ".", "group")
    repeated = config_files.settings_to_repeat({"settings": written, "data": {"source": "images"}})
    assert resolve.resolve_settings(FER, None, {}, repeated).group_col == "group"


def test_every_declaration_has_help_and_its_default_passes_its_own_check():
    for name, own in settings.declared_settings().items():
        assert own.help.endswith("."), name
        assert not (own.check and own.default is not None and own.check(own.default)), name


def test_settings_without_effect_are_found_by_their_conditions():
    assert settings.find_unused(resolve.resolve_settings(FER, None, {})) == []
    given = {"accumulate": 4, "ema": True, "sizes": "48", "cache_gb": 1.0, "sync_bn": True, "workers": 2}
    assert settings.find_unused(resolve.resolve_settings(FER, None, given)) == ["workers", "cache_gb", "accumulate", "sizes", "ema", "sync_bn"]
    assert settings.find_unused(resolve.resolve_settings(FER, "full", given)) == ["workers", "cache_gb", "sync_bn"]
    assert settings.find_unused(resolve.resolve_settings(FER, None, {**given, "train_bn": True})) == ["workers", "cache_gb", "sync_bn"]
    assert settings.find_unused(resolve.resolve_settings(FER, None, {"views": 3, "augment": "none"})) == ["views"]
    judged = {"metric": "macro_f1", "keep": "last"}
    assert settings.find_unused(resolve.resolve_settings(FER, None, judged)) == ["metric"]
    assert settings.find_unused(resolve.resolve_settings(FER, None, {**judged, "patience": 2})) == []
    for name, own in settings.declared_settings().items():
        prefix = own.when.prefix if own.when else ""
        assert own.help.startswith(prefix), name
        assert prefix or not own.help.startswith("With "), f"{name}: declare the condition with when="


def test_settings_of_a_run_that_its_strategy_refuses_can_be_read():
    written = {**resolve.resolve_settings(FER, None, {}).to_dict(), "gpus": 2}
    assert settings.Settings.from_dict(written).gpus == 2
