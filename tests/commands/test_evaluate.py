"""tlfast evaluate, the temperature through every export, and the record of looks at the test part."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastai.learner import load_learner
from pyarrow import parquet
from safetensors import safe_open

import tlfast
from tests.helpers.runs import copy_run, train_in
from tlfast import load
from tlfast.commands import evaluate, loaded_run
from tlfast.commands.evaluate import EvaluateRequest, evaluate_run
from tlfast.core import RunRecord, ignore_event, runs
from tlfast.core.run_files import WEIGHTS_FILE
from tlfast.evaluation import calibration
from tlfast.testing import COLOURS, draw_image


@pytest.fixture(scope="module")
def parted(tmp_path_factory):
    """Three splits, many labels wrong: something to be unsure about."""
    root = tmp_path_factory.mktemp("evaluated") / "parted"
    for part, count in (("train", 16), ("valid", 20), ("test", 9)):
        for n, label in enumerate(list(COLOURS) * count):
            shown = list(COLOURS)[(list(COLOURS).index(label) + (n % 5 == 0)) % 3]
            draw_image(root / part / label / f"{n}.png", COLOURS[shown], n)
    return root


@pytest.fixture(scope="module")
def trained(parted):
    """The folder of a run on them, with its fitted temperature, and what its training printed."""
    printed = []

    def choose(logits, labels, seed, calibrated=None):
        return calibration.TemperatureChoice(calibration.fit_temperature(logits, labels), calibration.cross_validate_temperature(logits, labels, seed))

    with pytest.MonkeyPatch.context() as patch:  # on so few images it is chance whether the temperature is chosen
        patch.setattr(calibration, "choose_temperature", choose)
        return train_in(parted.parent, parted, "r", "--epochs", 2, printed=printed), printed[0]


@pytest.fixture
def run(cli, trained, tmp_path):
    copy_run(trained[0], tmp_path)
    return runs.find("parted")


def test_training_prints_calibration(trained):
    assert "calibration error" in trained[1] and "selective accuracy" in trained[1]


def table(path):
    return {name: np.array(column) for name, column in parquet.read_table(path).to_pydict().items()}


def test_the_test_part_is_judged_written_and_recorded(run, cli, parted):
    assert "test_looks" not in run.manifest
    outcome = cli("evaluate", "parted", "--split", "test", "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json["evaluation"]
    assert found["split"] == "test" and found["macro"]["support"] == 27
    assert json.loads((run.folder / "metrics_test.json").read_text()) == found
    kept = table(run.folder / "predictions_test.parquet")
    assert len(kept["path"]) == 27 and set(kept["split"]) == {"test"}
    assert (kept["label"] == kept["prediction"]).mean() == pytest.approx(found["accuracy"])
    assert cli("interpret", "parted", "--split", "test", "--quiet").code == 0
    assert cli("evaluate", "parted", "--split", "test").code == 0
    looks = runs.find("parted", verified=True).manifest["test_looks"]
    assert [look["command"] for look in looks] == ["evaluate", "interpret", "evaluate"]
    assert all(look["images"] == 27 and look["accuracy"] == found["accuracy"] for look in looks)


def test_a_full_disk_leaves_the_results_of_the_former_evaluation(run, cli, monkeypatch):
    assert cli("evaluate", "parted", "--split", "test").code == 0
    names = ("metrics_test.json", "predictions_test.parquet", "run.json")
    before = [(run.folder / name).read_bytes() for name in names]

    def fail(path, value):
        path.write_text("{")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(evaluate, "write_json", fail)
    outcome = cli("evaluate", "parted", "--split", "test")
    assert outcome.code == 1 and "cannot write to" in outcome.err and "No space left on device" in outcome.err
    runs.find("parted", verified=True)
    assert [(run.folder / name).read_bytes() for name in names] == before and not list(run.folder.glob(".files.*"))


def test_the_valid_part_is_judged_as_the_training_judged_it(run, cli):
    outcome = cli("evaluate", "parted", "--json")
    assert outcome.code == 0 and outcome.json["files"] == []
    judged, trained = outcome.json["evaluation"], json.loads((run.folder / "metrics.json").read_text())
    assert judged["confusion"] == trained["confusion"] and judged["accuracy"] == trained["accuracy"]
    assert judged["log_loss"] == pytest.approx(trained["log_loss"], rel=1e-3), "training predicted from features in float16"
    assert "test_looks" not in runs.find("parted", verified=True).manifest
    shown = cli("evaluate", "parted").out
    for word in ("balanced accuracy", "Cohen's kappa", "Brier score", "ROC AUC", "at temperature 1", " to "):
        assert word in shown


def test_predictions_are_what_the_exports_answer(run, parted, cli):
    temperature = run.manifest["temperature"]
    assert temperature != 1.0  # else the test would show nothing
    kept = table(run.folder / "predictions.parquet")
    assert list(kept)[:5] == ["path", "label", "split", "prediction", "loss"] and list(kept)[5:] == [f"p({name})" for name in sorted(COLOURS)]
    classifier = load(run.folder)
    learner = load_learner(run.folder / "learner.pkl")
    for i in (0, 17, 40):
        own = [kept[f"p({name})"][i] for name in classifier.classes]
        assert kept["loss"][i] == pytest.approx(-np.log(kept[f"p({kept['label'][i]})"][i]), abs=1e-5)
        answer = classifier.predict(kept["path"][i])
        assert answer.label == kept["prediction"][i]
        assert [answer.probabilities[name] for name in classifier.classes] == pytest.approx(own, abs=1e-3)  # predicted from features in float16
        with learner.no_bar():
            assert learner.predict(kept["path"][i])[2].tolist() == pytest.approx([answer.probabilities[name] for name in classifier.classes], abs=1e-5)


def test_the_weights_stay_as_they_were_trained(run):
    model = loaded_run.load_run(run, "", "auto", lambda event: None)
    said = loaded_run.predict_split(model, "valid", lambda event: None)
    kept = table(run.folder / "predictions.parquet")
    raw = np.exp(said.log_probabilities)
    assert model.run.temperature == run.manifest["temperature"]
    assert np.abs(raw[:, 0] - kept["p(blue)"]).max() > 1e-4
    with safe_open(run.folder / WEIGHTS_FILE, "np") as file:
        assert file.metadata()["temperature"] == repr(model.run.temperature)


def test_an_empty_part_and_a_wrong_one(cli, trained_run, tmp_path):
    copy_run(trained_run.partial, tmp_path)
    outcome = cli("evaluate", "pictures", "--split", "test")
    assert outcome.code == 1 and "has no test split" in outcome.err and "--split valid" in outcome.err
    assert cli("evaluate", "pictures", "--split", "all").code == 2


def test_all_images_of_another_source_with_some_of_the_classes(run, cli, tmp_path):
    for n in range(6):
        draw_image(tmp_path / "new" / ("red" if n % 2 else "blue") / f"{n}.png", COLOURS["red" if n % 2 else "blue"], n)
    outcome = cli("evaluate", "parted", "--split", "all", "--data", "new", "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json["evaluation"]
    answers = cli("predict", "parted", "new", "--json").json
    right = sum(answer["label"] == answer["path"].split("/")[-2] for answer in answers)
    assert found["split"] == "all" and found["macro"]["support"] == 6 and found["accuracy"] == right / 6
    assert sorted(score["support"] for score in found["per_class"]) == [0, 3, 3]
    assert "test_looks" not in runs.find("parted", verified=True).manifest
    refused = cli("evaluate", "parted", "--data", "new")
    assert refused.code == 1 and "green is missing" in refused.err and "--split all" in refused.err
    (tmp_path / "new" / "red" / "bad.png").write_text("no image")
    assert "1 of 7 images cannot be read and are left out, the first: " in cli("evaluate", "parted", "--split", "all", "--data", "new").err
    draw_image(tmp_path / "new" / "purple" / "0.png", (200, 0, 200), 0)
    unknown = cli("evaluate", "parted", "--split", "all", "--data", "new")
    assert unknown.code == 1 and "does not know: purple" in unknown.err


def test_blanks_in_names_of_classes_of_an_earlier_run(run, tmp_path):
    for n, label in enumerate(("red", "blue")):
        draw_image(tmp_path / "new" / label / f"{n}.png", COLOURS[label], n)
    earlier = replace(run, manifest={**run.manifest, "classes": [f"{name} " for name in run.classes]})
    found, expected = (evaluate_run(each, EvaluateRequest("all", "new")).to_dict() for each in (earlier, run))
    assert found == expected


def test_a_table_with_other_columns_than_that_of_the_training(run, cli, tmp_path):
    for n, label in enumerate(("red", "blue", "green")):
        draw_image(tmp_path / f"{n}.png", COLOURS[label], n)
    (tmp_path / "new.csv").write_text("file,colour,label\n" + "".join(f"{n}.png,{label},x\n" for n, label in enumerate(("red", "blue", "green"))))
    words = ["evaluate", "parted", "--split", "all", "--data", "new.csv"]
    assert "column 'path'" in cli(*words).err
    found = cli(*words, "--path-col", "file", "--label-col", "colour", "--json")
    assert found.code == 0 and found.json["evaluation"]["macro"]["support"] == 3, found.err
    scores = tlfast.Run("parted").evaluate("all", data="new.csv", path_col="file", label_col="colour")
    assert scores["accuracy"].value == found.json["evaluation"]["accuracy"]
    manifest = tlfast.Run("parted").manifest
    trained = RunRecord(Path("exports/parted"), {**manifest, "settings": {**manifest["settings"], "split_col": "part", "group_col": "plant"}})
    assert len(loaded_run.list_labelled(trained, "new.csv", {"path_col": "file", "label_col": "colour"}, ignore_event)) == 3  # it has neither column
    refused = cli("evaluate", "parted", "--path-col", "file")
    assert refused.code == 2 and "--split all --data TABLE" in refused.err


def test_all_needs_images_and_runs_on_the_cpu(run, cli):
    assert "--data PATH" in cli("evaluate", "parted", "--split", "all").err
    assert "Leave out --device" in cli("evaluate", "parted", "--split", "all", "--data", "x", "--device", "cuda").err
    assert cli("interpret", "parted", "--split", "all").code == 2
