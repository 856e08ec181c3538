"""Test-time augmentation in the graph is the mean of the logits over the views, and is kept only where it gains."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import tlfast
from tlfast.commands import export as export_module
from tlfast.core import runs
from tlfast.export.tta import BUILDERS, set_temperature, write_views
from tlfast.inference import open_network
from tlfast.inference.onnx_model import TTA
from tlfast.testing import TINY


def list_views(pixels: np.ndarray, tta: str) -> list[np.ndarray]:
    """Return the views of images `[b, h, w, 3]`, as documented."""
    if tta == "flip":
        return [pixels, pixels[:, :, ::-1]]
    height, width = pixels.shape[1:3]
    rows, columns = max(1, height * 7 // 8), max(1, width * 7 // 8)
    places = [(top, left) for top in (0, height - rows) for left in (0, width - columns)] + [((height - rows) // 2, (width - columns) // 2)]
    crops = [pixels[:, top : top + rows, left : left + columns] for top, left in places]
    return crops + [crop[:, :, ::-1] for crop in crops]


def soften(log_probabilities: np.ndarray, temperature: float) -> np.ndarray:
    scaled = np.exp(log_probabilities / temperature - (log_probabilities / temperature).max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)


def test_every_kind_has_a_builder():
    assert set(BUILDERS) == set(TTA)


@pytest.mark.parametrize("tta", TTA)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 9, 5), (7, 40, 33)])
def test_the_graph_averages_the_logits_of_the_views(trained_run, tmp_path, tta, shape):
    source = trained_run.partial / "model.onnx"
    temperature = json.loads((trained_run.partial / "run.json").read_text(encoding="utf-8"))["temperature"]
    write_views(source, tmp_path / "views.onnx", tta)
    plain, averaged = open_network(source), open_network(tmp_path / "views.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    logits = np.mean([temperature * np.log(plain.probabilities(np.ascontiguousarray(view))) for view in list_views(pixels, tta)], axis=0)
    assert averaged.probabilities(pixels) == pytest.approx(soften(logits, 1.0), abs=1e-5)
    set_temperature(tmp_path / "views.onnx", 2.5)
    scaled = open_network(tmp_path / "views.onnx")
    assert scaled.probabilities(pixels) == pytest.approx(soften(logits, 2.5), abs=1e-5) and scaled.info["temperature"] == "2.5"
    assert averaged.classes == plain.classes and averaged.info["tta"] == tta and averaged.info["run"] == plain.info["run"]


def test_more_images_than_a_batch_of_views(trained_run, tmp_path):
    write_views(trained_run.partial / "model.onnx", tmp_path / "views.onnx", "crops")
    network = open_network(tmp_path / "views.onnx")
    pixels = np.random.default_rng(1).integers(0, 256, (11, 16, 16, 3), np.uint8)
    one_by_one = np.concatenate([network.probabilities(pixels[i : i + 1]) for i in range(11)])
    assert network.probabilities(pixels) == pytest.approx(one_by_one, abs=1e-6)


def scored(monkeypatch, plain, augmented):
    """Replace the evaluation of both files by (accuracy, log loss)."""
    monkeypatch.setattr(
        export_module, "_score", lambda network, rows, phase, on_event: export_module._Score(*(augmented if "tta" in phase else plain), temperature=2.0)
    )


@pytest.mark.parametrize(("augmented", "kept"), [((0.5, 0.9), True), ((0.49, 0.9), False), ((0.6, 1.0), False), ((0.6, 0.5), True)])
def test_it_is_kept_only_where_it_gains(run, cli, monkeypatch, augmented, kept):
    scored(monkeypatch, (0.5, 1.0), augmented)
    before = sorted(path.name for path in run.folder.iterdir())
    outcome = cli("export", "r", "--tta", "flip", "--json")
    assert outcome.code == (0 if kept else 1)
    if kept:
        runs.verify(runs.find("r"))
        assert outcome.json["exports"][0]["temperature"] == 2.0
        assert runs.find("r").manifest["exports"]["model.tta-flip.onnx"]["log_loss"] == augmented[1]
    else:
        assert "model.tta-flip.onnx would gain nothing on the valid split" in " ".join(outcome.err.split())
        assert sorted(path.name for path in run.folder.iterdir()) == before
        assert cli("export", "r", "--tta", "flip", "--allow-drop", "--quiet").code == 0


def test_commands_and_python_use_the_file(run, cli, pictures):
    image = sorted(pictures.rglob("*.png"))[0]
    missing = cli("predict", "r", image, "--tta", "flip")
    assert missing.code == 1 and "has no model.tta-flip.onnx" in missing.err and "tlfast export r --tta flip" in missing.err
    exported = tlfast.Run("r").export(tta="flip", allow_drop=True, quiet=True).exports[0]
    expected = tlfast.load(run.folder / "model.tta-flip.onnx").predict(image)
    assert tlfast.load("r", tta="flip").predict(image) == expected != tlfast.load("r").predict(image)
    (answer,) = cli("predict", "r", image, "--tta", "flip", "--json").json
    assert answer["probability"] == pytest.approx(expected.probability, abs=1e-5)
    scores = tlfast.Run("r").evaluate(tta="flip", quiet=True)
    assert scores["accuracy"].value == pytest.approx(exported.accuracy)
    assert scores["log_loss"].value == pytest.approx(exported.log_loss, rel=1e-4)
    assert cli("evaluate", "r", "--tta", "flip", "--json").json["evaluation"]["accuracy"] == pytest.approx(exported.accuracy)


def test_wrong_words(run, cli):
    outcome = cli("export", "r", "--tta", "flips")
    assert outcome.code == 2 and "--tta 'flips' is not one of: flip, crops" in outcome.err and "Did you mean 'flip'?" in outcome.err
    with pytest.raises(tlfast.UsageError, match="^tta flip is given for the file"):
        tlfast.load(run.folder / "model.onnx", tta="flip")


def test_a_use_of_the_test_split_is_recorded(cli, pictures):
    paths = sorted(pictures.rglob("*.png"))
    frame = pd.DataFrame({"path": paths, "label": [path.parent.name for path in paths], "split": ["train", "train", "valid", "test"] * 9})
    run = tlfast.train(tlfast.dataset(frame), epochs=1, quiet=True, **TINY)
    run.export(tta="crops", allow_drop=True, quiet=True)
    accuracy = run.evaluate("test", tta="crops", quiet=True)["accuracy"].value
    classifier = tlfast.load(run.folder, tta="crops")
    tested = frame[frame["split"] == "test"]
    assert accuracy == pytest.approx(np.mean([classifier.predict(row.path).label == row.label for row in tested.itertuples()]))
    (look,) = tlfast.Run(run.folder).manifest["test_looks"]
    assert look["command"] == "evaluate --tta crops" and look["accuracy"] == accuracy and not list(run.folder.glob("*_test*"))


def test_a_split_without_images(run, cli):
    assert cli("export", "r", "--tta", "crops", "--allow-drop", "--quiet").code == 0
    outcome = cli("evaluate", "r", "--tta", "crops", "--split", "test")
    assert outcome.code == 1 and "has no test split" in outcome.err
