"""tlfast compare: same images for every arm, nothing trained twice, and a verdict that says no more than is shown."""

from __future__ import annotations

import csv
import html
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.helpers.command_line import TINY
from tlfast.commands import compare
from tlfast.core.errors import DataError, UsageError
from tlfast.evaluation import bootstrap
from tlfast.models import build
from tlfast.tasks import folder_task
from tlfast.testing import draw_image
from tlfast.training import features, trainer
from tlfast.training.callbacks.progress import ProgressCallback

QUICK = [*TINY, "--epochs", 2, "--freeze-epochs", 1]


@pytest.fixture
def trainings(monkeypatch):
    """What is trained, as it is begun: (strategy, arch, fold, seed, share)."""
    begun, fit = [], trainer.fit

    def counted(session, chosen):
        begun.append((chosen.strategy, chosen.arch, chosen.fold, chosen.seed, chosen.train_pct))
        return fit(session, chosen)

    monkeypatch.setattr(trainer, "fit", counted)
    return begun


def _write_weights(path: Path) -> Path:
    """Write new random weights of the backbone."""
    body = build.build_model("test_resnet", 3, 32)[0]
    save_file({name: tensor.contiguous() for name, tensor in body.state_dict().items()}, path)
    return path


def test_two_strategies_on_the_same_images(cli, folder, trainings):
    outcome = cli("compare", folder, *QUICK, "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json
    assert [arm["name"] for arm in found["arms"]] == ["partial", "full"] and len(trainings) == 2
    assert found["arms"][0]["images"] == found["arms"][1]["images"] == 6
    assert found["arms"][0]["megabytes"] > 0 and found["arms"][0]["milliseconds"] > 0 and found["arms"][0]["parameters"] > 1000
    (difference,) = found["differences"]
    by_name = {arm["name"]: arm for arm in found["arms"]}
    assert difference["accuracy"] == pytest.approx(by_name[difference["first"]]["accuracy"] - by_name[difference["second"]]["accuracy"])
    assert "no difference shown between" in found["verdict"]  # six images show nothing
    for file in found["files"]:
        assert Path(file).stat().st_size
    assert json.loads(Path(found["files"][0]).read_text())["verdict"] == found["verdict"]
    assert [row["name"] for row in csv.DictReader(Path(found["files"][1]).read_text().splitlines())] == ["partial", "full"]
    page = Path(found["files"][-1])
    assert page.name == "report.html" and found["verdict"] in html.unescape(page.read_text())
    before, _ = page.read_text(), page.unlink()
    assert cli("report", found["folder"]).code == 0 and page.read_text() == before
    (page.parent / "comparison.json").write_text("{")
    broken = cli("report", found["folder"])
    assert broken.code == 1 and "comparison.json is damaged" in broken.err
    assert cli("runs").out.strip().count("partial") == 0  # a comparison is no run


def test_a_comparison_without_local_paths(cli, folder):
    found = cli("compare", folder, *QUICK, "--arms", "knn,partial", "--json").json
    page = Path(found["files"][-1])
    assert str(folder.parent) in page.read_text()
    assert cli("report", found["folder"], "--no-paths").code == 0
    assert str(folder.parent) not in page.read_text() and folder.name in page.read_text()
    refused = cli("report", found["folder"], "--split", "test")
    assert refused.code == 2 and "are for a run, and this is a comparison" in refused.err


def test_nearest_neighbours_are_a_baseline_without_training(cli, folder, trainings):
    found = cli("compare", folder, *QUICK, "--arms", "knn,partial", "--json").json
    assert [arm["name"] for arm in found["arms"]] == ["knn", "partial"] and len(trainings) == 1
    assert found["arms"][0]["accuracy"] == 1  # the classes differ in their colours
    assert cli("compare", folder, *QUICK, "--arms", "knn,partial", "--json").json["reused"] == 2
    folds = cli("compare", folder, *QUICK, "--arms", "knn", "--folds", 3, "--json").json
    assert folds["arms"][0]["images"] == 36 and folds["arms"][0]["accuracy"] == 1 and len(trainings) == 1


def test_arms_are_compared_with_a_baseline(cli, folder):
    command = ["compare", folder, *QUICK, "--arms", "knn,partial,full"]
    every, with_one = (cli(*command, *more, "--json").json for more in ([], ["--baseline", "partial"]))
    assert len(every["differences"]) == 3 and len(with_one["differences"]) == 2
    assert {frozenset((d["first"], d["second"])) for d in with_one["differences"]} == {frozenset(("partial", other)) for other in ("knn", "full")}
    p_values = {(d["first"], d["second"]): d["p"] for d in every["differences"]}
    assert all(d["p"] == p_values[d["first"], d["second"]] and d["p_corrected"] <= min(1, 2 * d["p"]) for d in with_one["differences"])
    assert "partial" in with_one["verdict"] and with_one["arms"] != [] and with_one["reused"] == 3
    refused = cli(*command, "--baseline", "partail")
    assert refused.code == 2 and "--baseline partail is not one of the arms: knn, partial, full" in refused.err and "Did you mean 'partial'?" in refused.err


def test_a_difference_without_variance_has_no_interval_of_macro_f1(cli, folder, tmp_path):
    (tmp_path / "patient.toml").write_text("patience = 50\n")  # the same predictions
    found = cli("compare", folder, *QUICK, "--arms", "partial,patient.toml", "--json").json
    (difference,) = found["differences"]
    assert difference["macro_f1"] == 0 and difference["macro_f1_interval"] is None
    low, high = difference["accuracy_interval"]
    assert low < 0 < high
    (row,) = csv.DictReader((Path(found["folder"]) / "differences.csv").read_text().splitlines())
    assert row["macro_f1_interval_low"] == row["macro_f1_interval_high"] == "" and float(row["accuracy_interval_low"]) == low
    shown = cli("compare", folder, *QUICK, "--arms", "partial,patient.toml").out
    assert "+0.0" in shown and "(+0.0 to +0.0)" not in shown


def test_nothing_is_trained_twice(cli, folder, trainings):
    first = cli("compare", folder, *QUICK, "--arms", "partial,full", "--json").json
    again = cli("compare", folder, *QUICK, "--arms", "full,partial", "--json").json
    assert len(trainings) == 2 and (first["reused"], again["reused"]) == (0, 2)
    assert {a["name"]: a["accuracy"] for a in first["arms"]} == {a["name"]: a["accuracy"] for a in again["arms"]}
    cli("compare", folder, *QUICK, "--arms", "partial", "--seeds", 2, "--json")
    assert len(trainings) == 3
    draw_image(folder / "red" / "0.png", (0, 0, 0), 3, size=(90, 90))  # other images: other trainings
    cli("compare", folder, *QUICK, "--json")
    assert len(trainings) == 5


def test_copied_weights_are_the_same_weights(cli, folder, tmp_path, trainings):
    first, copied, other = (_write_weights(tmp_path / f"{name}.safetensors") for name in ("first", "copied", "other"))
    shutil.copyfile(first, copied)  # another path, another time
    command = ["compare", folder, *QUICK, "--arms", "partial", "--seeds", 2, "--json"]
    assert [cli(*command, "--weights", path).json["reused"] for path in (first, copied, other)] == [0, 2, 0]


def test_one_that_was_broken_off_goes_on(cli, folder, monkeypatch, trainings):
    judge = trainer.predict_valid

    def broken(session, chosen, features):
        if not features:  # the second arm
            raise DataError("pulled the plug")
        return judge(session, chosen, features)

    monkeypatch.setattr(trainer, "predict_valid", broken)
    assert cli("compare", folder, *QUICK).code == 1
    monkeypatch.setattr(trainer, "predict_valid", judge)
    assert cli("compare", folder, *QUICK, "--json").json["reused"] == 1
    assert [strategy for strategy, *_ in trainings] == ["partial", "full", "full"]


def test_a_training_that_was_interrupted_continues_from_its_checkpoint(cli, folder, monkeypatch, tmp_path, cache_folder):
    command = ["compare", folder, *TINY, "--epochs", 4, "--freeze-epochs", 1, "--arms", "full", "--seeds", 2, "--checkpoint-minutes", 0, "--json"]
    whole = cli(*command).json
    assert cli("cache", "clear").code == 0
    epochs, after_epoch = [], ProgressCallback.after_epoch

    def count(self):
        known = len(self.rows)
        after_epoch(self)
        if len(self.rows) == known:  # complete before the interruption
            return
        epochs.append((self.phase, self.epoch))
        if len(epochs) == 3:  # one of the head, two of all layers, of which the second has no checkpoint yet
            raise KeyboardInterrupt

    monkeypatch.setattr(ProgressCallback, "after_epoch", count)
    outcome = cli(*command)
    assert outcome.code == 130 and "Repeat the command to continue" in outcome.err
    (unfinished,) = cache_folder.glob("trainings/.*")
    assert [entry["kind"] for entry in cli("cache", "list", "--json").json if entry["folder"] == str(unfinished)] == ["unfinished"]
    continued = cli(*command).json
    assert epochs[3:] == [("all layers", 1), ("all layers", 2), ("all layers", 3), ("head", 0), *[("all layers", n) for n in range(4)]]
    assert [arm["accuracy"] for arm in continued["arms"]] == [arm["accuracy"] for arm in whole["arms"]]
    assert continued["reused"] == 0 and not list(cache_folder.glob("trainings/.*"))


def test_folds_judge_every_image_once_and_share_the_backbones_pass(cli, folder, trainings, monkeypatch, tmp_path):
    made, make = [], features._collect
    monkeypatch.setattr(features, "_collect", lambda *arguments: made.append(1) or make(*arguments))
    weights = _write_weights(tmp_path / "w.safetensors")
    found = cli("compare", folder, *QUICK, "--weights", weights, "--arms", "partial", "--folds", 3, "--seeds", 2, "--json").json
    assert found["arms"][0]["images"] == 36 and found["arms"][0]["trainings"] == 6
    assert [(fold, seed) for _, _, fold, seed, _ in trainings] == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
    assert found["arms"][0]["accuracy_sd"] is not None and "3 folds, each image evaluated once: 36 images, 2 seeds" in found["judged_on"]
    assert len(made) == 2  # views: the plain one and an augmented one, for all trainings together


def test_groups_are_resampled_as_a_whole(cli, folder, trainings, monkeypatch):
    outcome = cli("compare", folder, *TINY, "--epochs", 1, "--arms", "partial", "--folds", 3, "--group-by", r"\d(?=\.png)", "--json")
    assert outcome.code == 0, outcome.err
    assert "36 images, 10 groups, over which the intervals and tests are" in outcome.json["judged_on"]
    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "MIN_GROUPS", 11)
        few = cli("compare", folder, *TINY, "--epochs", 1, "--arms", "partial", "--folds", 3, "--group-by", r"\d(?=\.png)", "--json")
    assert few.code == 0 and "groups" not in few.json["judged_on"]
    assert "10 groups are too few for intervals and tests over groups: they are over images" in few.err
    limited = cli("compare", folder, *TINY, "--epochs", 1, "--arms", "partial", "--folds", 3, "--group-by", r"\d(?=\.png)", "--limit", 8, "--json")
    assert limited.code == 0 and "24 images" in limited.json["judged_on"] and "groups" in limited.json["judged_on"], limited.err


def test_a_share_of_the_training_images_applies_to_all_trainings(cli, folder, trainings):
    found = cli("compare", folder, *QUICK, "--arms", "partial", "--train-pct", 0.5, "--learning-curve", "50", "--json").json
    assert [share for *_, share in trainings] == [0.25, 0.5]
    assert [point["images"] for point in found["curve"]] == [6, 15]


def test_a_learning_curve_adds_images_and_shares_the_backbones_pass(cli, folder, trainings, monkeypatch):
    made, make = [], features._collect
    monkeypatch.setattr(features, "_collect", lambda *arguments: made.append(1) or make(*arguments))
    found = cli("compare", folder, *QUICK, "--arms", "partial", "--learning-curve", "25,50", "--json").json
    assert [point["share"] for point in found["curve"]] == [0.25, 0.5, 1.0]
    assert [point["images"] for point in found["curve"]] == [6, 15, 30]
    assert len(made) == 2 and [share for *_, share in trainings] == [0.25, 0.5, 1.0]
    assert any(name.endswith("learning_curve.png") for name in found["files"])


def test_archs_and_settings_files(cli, folder, tmp_path, trainings):
    (tmp_path / "mine.toml").write_text("epochs = 1\nlabel_smoothing = 0.1\n")
    quick = [part for part in QUICK if part not in ("--epochs", 2)]
    found = cli("compare", folder, *quick, "--arms", "partial,mine.toml", "--archs", "test_resnet,test_vit", "--json").json
    assert [arm["name"] for arm in found["arms"]] == ["partial test_resnet", "partial test_vit", "mine test_resnet", "mine test_vit"]
    assert found["arms"][2]["settings"]["label_smoothing"] == 0.1 and len(found["differences"]) == 6
    assert all(d["p_corrected"] >= d["p"] for d in found["differences"])


@pytest.mark.parametrize(("arguments", "words"), [
    (["--arms", "half"], "--arms 'half' is neither partial, full, a depth, knn nor a TOML file"),
    (["--arms", ","], "--arms is empty"),
    (["--depths", "--arms", "knn"], "--arms and --depths are both given"),
    (["--arms", "partial"], "one arm (partial) and nothing to compare it with"),
    (["--arms", "partial,partial"], "two arms have the same name"),
    (["--folds", "1"], "--folds 1 leaves nothing to train on"),
    (["--learning-curve", "5,x"], "is not a list of percentages"),
    (["--learning-curve", "0,50"], "is not a list of percentages"),
    (["--fold", "1"], "--fold selects a single fold"),
    (["--name", "mine"], "--name names a run, and a comparison writes none"),
    (["--arms", "gone.toml,full"], "gone.toml"),
])  # fmt: skip
def test_wrong_usage(cli, folder, arguments, words):
    outcome = cli("compare", folder, *arguments)
    assert outcome.code == 2 and words in outcome.err


def test_arms_must_be_judged_on_the_same_images(cli, folder, tmp_path):
    (tmp_path / "other.toml").write_text("valid_pct = 0.4\n")
    outcome = cli("compare", folder, *QUICK, "--arms", "partial,other.toml")
    assert outcome.code == 2 and "the arms are evaluated on different images" in outcome.err


def test_a_flag_never_overrides_the_file_of_an_arm(cli, folder, tmp_path):
    (tmp_path / "smooth.toml").write_text("label_smoothing = 0.1\n")
    outcome = cli("compare", folder, *QUICK, "--arms", "partial,smooth.toml", "--label-smoothing", 0.2)
    assert outcome.code == 2 and "--label-smoothing 0.2 would override label_smoothing = 0.1 of the arm smooth.toml" in outcome.err


@pytest.mark.parametrize(
    ("file", "flags", "archs", "words"),
    [
        ("depth = 2", {"preset": "best"}, [], "--preset best would override depth = 2 of the arm"),
        ("full = true", {"preset": "good"}, [], "--preset good would override full = True of the arm"),
        ("epochs = 5", {"preset": "best"}, [], "--preset best would override epochs = 5 of the arm"),
        ('preset = "best"', {"epochs": 3}, [], "--epochs 3 would override preset = best of the arm"),
        ('arch = "test_resnet"', {}, ["test_vit"], "--archs test_vit would override arch = test_resnet of the arm"),
    ],
)
def test_a_preset_and_a_backbone_do_not_override_the_file_of_an_arm(folder, tmp_path, file, flags, archs, words):
    (tmp_path / "mine.toml").write_text(file)
    with pytest.raises(UsageError, match=words):
        compare.build_arms(folder_task(folder), [str(tmp_path / "mine.toml")], archs, flags, {})


def test_the_file_of_an_arm_overrides_the_layers_of_the_config_file(folder, tmp_path):
    (tmp_path / "two.toml").write_text("depth = 2")
    (tmp_path / "small.toml").write_text("size = 32")
    files = [str(tmp_path / name) for name in ("two.toml", "small.toml")]
    arms = compare.build_arms(folder_task(folder), files, ["test_resnet"], {}, {"full": True, "epochs": 3})
    assert [(arm.name, arm.settings.depth, arm.settings.epochs) for arm in arms] == [("two", "2", 3), ("small", "all", 3)]
    arms = compare.build_arms(folder_task(folder), files[1:], [], {"preset": "best"}, {"full": False})
    assert arms[0].settings.depth == "all"


def test_comparing_depths(cli, folder):
    outcome = cli("compare", folder, *TINY, "--depths", "--epochs", 1, "--freeze-epochs", 1, "--views", 1, "--json")
    names = [arm["name"] for arm in outcome.json["arms"]]
    assert names == ["partial", "depth 1", "depth 2", "depth 3", "depth 4", "full"]
    with Path(outcome.json["folder"], "arms.csv").open(encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == names
    assert any(file.endswith("seconds.png") for file in outcome.json["files"])
    wrong = cli("compare", folder, *TINY, "--depth", 2)
    assert wrong.code == 2 and "--arms partial,2,4,full" in wrong.err


def test_the_depths_are_those_of_each_backbone(folder):
    arms = compare.build_arms(folder_task(folder), [compare.DEPTHS], ["test_resnet", "test_vit"], {"size": 32}, {})
    depths = [(arm.settings.arch, arm.settings.depth) for arm in arms]
    assert depths == [("test_resnet", depth) for depth in ("0", "1", "2", "3", "4", "all")] + [
        ("test_vit", depth) for depth in ("0", "1", "3", "4", "6", "all")
    ]
    assert arms[1].name == "depth 1 test_resnet"


def test_a_depth_that_a_backbone_does_not_have_is_refused_before_the_first_training(cli, folder, trainings):
    outcome = cli("compare", folder, *TINY, "--arms", "partial,9,full")
    assert outcome.code == 2 and "the arm of depth 9: test_resnet has 4 stages above its stem\n  Use a number up to 4" in outcome.err and not trainings


def test_a_teacher_that_has_seen_the_valid_images_is_named_also_for_cached_trainings(cli, pictures, tmp_path, trained_run):
    (tmp_path / "student.toml").write_text(f'teacher = "{trained_run.full}"\n')
    for _ in range(2):
        outcome = cli("compare", pictures, *QUICK, "--seed", 1, "--arms", "partial,student.toml", "--json")
        assert outcome.code == 0 and outcome.err.count("valid images were training images of the teacher f") == 1
        (note,) = outcome.json["notes"]
        assert note in html.unescape((Path(outcome.json["folder"]) / "report.html").read_text())


def test_settings_without_effect_on_any_arm_are_named(cli, folder):
    outcome = cli("compare", folder, *QUICK, "--arms", "partial,knn", "--ema", "--no-onnx")
    assert outcome.code == 0 and "without effect here: --freeze-epochs, --ema, --onnx" in outcome.err
