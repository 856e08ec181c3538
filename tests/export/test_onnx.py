"""model.onnx: what it does to pixels, what it says of itself, and that it is proved before it is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import tlfast
from tests.helpers.command_line import TINY
from tests.helpers.models import STATS
from tlfast import tasks
from tlfast.core.errors import ExportError
from tlfast.data import images
from tlfast.data.types import Preprocessing
from tlfast.export import onnx as onnx_module
from tlfast.inference import onnx_model
from tlfast.models import build
from tlfast.tasks import resolve
from tlfast.testing import draw_image

POLICIES = [{}, {"resize": "crop"}, {"resize": "pad"}, {"crop_pct": 0.8}, {"resize": "crop", "crop_pct": 0.8}, {"resize": "pad", "crop_pct": 0.7}]

SIZES = [(32, 32), (40, 40), (50, 40), (37, 61), (31, 7), (1, 1), (3, 200), (640, 480), (16, 16), (33, 32), (44, 150), (1999, 30)]


def chosen(folder, **flags):
    return resolve.resolve_settings(tasks.folder_task(folder), None, {"arch": "test_resnet", "size": 32, "weights": "none", **flags})


def noise(size, seed=0):
    width, height = size
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def tiny():
    torch.manual_seed(3)
    return build.build_model("test_resnet", 3, 32).eval()


@pytest.mark.parametrize("flags", POLICIES, ids=str)
def test_pixels_are_prepared_in_the_graph_exactly_as_in_training(tiny, tmp_path, flags):
    settled = chosen(tmp_path, **flags)
    graph = onnx_module.build_onnx(tiny, Preprocessing.from_settings(settled, STATS))
    graph.graph.output.append(helper.make_tensor_value_info("cropped", TensorProto.UINT8, None))
    session = onnx_model.onnxruntime.InferenceSession(graph.SerializeToString())
    for size in SIZES:
        image = noise(size)
        (found,) = session.run(["cropped"], {"images": image[None]})
        wanted = images.prepare(Image.fromarray(image), settled.size, settled.full_size, settled.resize)
        assert np.array_equal(found[0].transpose(1, 2, 0), wanted), size


@pytest.mark.parametrize("flags", POLICIES, ids=str)
def test_it_answers_as_the_network(tiny, tmp_path, flags):
    settled = chosen(tmp_path, **flags)
    onnx_module.export_onnx(tmp_path / "model.onnx", tiny, Preprocessing.from_settings(settled, STATS), {"classes": '["ant", "bee", "cat"]'})
    pictures = [str(draw_image(tmp_path / f"{i}.png", (200, 90, 30), i, size)) for i, size in enumerate([(41, 200), (640, 480), (32, 32), (33, 32), (44, 90)])]
    evaluated = dict.fromkeys(pictures, 0)
    agreement = onnx_module.check_onnx(tmp_path / "model.onnx", tiny, Preprocessing.from_settings(settled, STATS), evaluated, lambda event: None)
    assert (agreement.images, agreement.top1, agreement.disagreements) == (5, 1.0, []) and agreement.largest_difference < 1e-4


def test_batches_of_any_size(tiny, tmp_path):
    onnx_module.export_onnx(tmp_path / "model.onnx", tiny, Preprocessing.from_settings(chosen(tmp_path), STATS), {"classes": '["ant", "bee", "cat"]'})
    network = onnx_model.open_network(tmp_path / "model.onnx")
    batch = np.stack([noise((50, 40), seed) for seed in range(5)])
    together = network.probabilities(batch)
    assert together.shape == (5, 3) and together.dtype == np.float32 and np.allclose(together.sum(axis=1), 1)
    assert np.allclose(together, np.concatenate([network.probabilities(image[None]) for image in batch]), atol=1e-6)


def test_one_that_answers_otherwise_is_refused(tiny, tmp_path):
    path = tmp_path / "model.onnx"
    onnx_module.export_onnx(path, tiny, Preprocessing.from_settings(chosen(tmp_path), STATS), {"classes": '["ant", "bee", "cat"]'})
    graph = onnx.load(path)
    for constant in graph.graph.initializer:
        if constant.name == "temperature":  # the likeliest becomes the least likely
            constant.CopyFrom(numpy_helper.from_array(np.array(-1, np.float32), "temperature"))
    onnx.save(graph, path)
    pictures = [str(draw_image(tmp_path / f"{i}.png", colour, i)) for i, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)] * 3)]
    with pytest.raises(ExportError, match=r"model.onnx disagrees with the network on \d+ of 12 images"):
        onnx_module.check_onnx(path, tiny, Preprocessing.from_settings(chosen(tmp_path), STATS), dict.fromkeys(pictures, 0), lambda event: None)


def test_a_tie_decided_by_rounding_is_no_disagreement(tiny, tmp_path):
    path, settled = tmp_path / "model.onnx", Preprocessing.from_settings(chosen(tmp_path), STATS)
    torch.nn.init.zeros_(tiny[1][-1].weight)  # all classes are equally likely
    onnx_module.export_onnx(path, tiny, settled, {"classes": '["ant", "bee", "cat"]'})
    torch.nn.init.uniform_(tiny[1][-1].weight, 0, 1e-7)
    tiny[1][-1].weight.data[2] += 2e-7
    pictures = [str(draw_image(tmp_path / f"{i}.png", (90, 90, 90), i)) for i in range(4)]
    agreement = onnx_module.check_onnx(path, tiny, settled, dict.fromkeys(pictures, 0), lambda event: None)
    assert agreement.top1 < 1 and all(disagreement["margin"] < 1e-3 for disagreement in agreement.disagreements)


def test_labels_that_differ_from_the_evaluation_are_counted(tiny, tmp_path):
    path, settled = tmp_path / "model.onnx", Preprocessing.from_settings(chosen(tmp_path), STATS)
    onnx_module.export_onnx(path, tiny, settled, {"classes": '["ant", "bee", "cat"]'})
    pictures = [str(draw_image(tmp_path / f"{i}.png", colour, i)) for i, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)] * 3)]
    network = onnx_model.open_network(path)
    labels = [int(network.probabilities(np.asarray(Image.open(picture))[None]).argmax()) for picture in pictures]
    for wrong in (0, 2):
        evaluated = [(label + 1) % 3 if i < wrong else label for i, label in enumerate(labels)]
        assert onnx_module.check_onnx(path, tiny, settled, dict(zip(pictures, evaluated, strict=True)), lambda event: None).changed == wrong


def test_fewer_images_are_compared_for_a_network_with_more_operations(tiny):
    sources = [str(number) for number in range(2000)]
    assert len(onnx_module.sample_images(sources, tiny, 32)) == 500  # every fourth
    assert onnx_module.sample_images(sources[:7], tiny, 32) == sources[:7]
    assert len(onnx_module.sample_images(sources, build.build_model("resnet50", 3, 32), 224)) == 118  # 8.2e9 operations an image: every 17th
    assert len(onnx_module.sample_images(sources, tiny, 4096)) == 32


def test_a_run_has_one_and_it_is_enough_by_itself(cli, folder, tmp_path):
    outcome = cli("train", folder, *TINY, "--epochs", 1, "--name", "r", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["onnx"]["images"] == 6 and outcome.json["onnx"]["top1"] == 1.0
    alone = (tmp_path / "exports/pictures/r/model.onnx").rename(tmp_path / "elsewhere.onnx")
    classifier = tlfast.load(alone)
    assert classifier.classes == ("blue", "green", "red") and classifier.run == "r"
    told = {name: classifier.info[name] for name in ("task", "arch", "size", "resize", "run", "licence")}
    assert told == {"task": "pictures", "arch": "test_resnet", "size": "32", "resize": "squish", "run": "r", "licence": "none: not pretrained"}
    assert classifier.predict(folder / "red" / "1.png").label in classifier.classes


def test_a_run_may_go_without(cli, folder):
    assert cli("train", folder, *TINY, "--epochs", 1, "--name", "r", "--no-onnx", "--quiet").code == 0
    outcome = cli("predict", "r", folder / "red")
    assert outcome.code == 1 and "has no model.onnx" in outcome.err


def test_a_failed_export_is_an_error_that_keeps_the_rest(cli, folder, tmp_path, monkeypatch):
    def fails(*arguments):
        raise ValueError("no such operator\nand a page of more")

    monkeypatch.setattr(onnx_module, "_export_network", fails)
    outcome = cli("train", folder, *TINY, "--epochs", 1, "--name", "r", "--quiet")
    assert outcome.code == 1
    assert "test_resnet cannot be written as ONNX (no such operator); the other files of the run are in exports/pictures/r" in " ".join(outcome.err.split())
    names = {path.name for path in (tmp_path / "exports/pictures/r").iterdir()}
    assert {"model.safetensors", "run.json", "metrics.json"} <= names and "model.onnx" not in names
    assert not list((tmp_path / "exports/pictures").glob("*.unfinished"))  # there is nothing to resume
    assert cli("interpret", "r", "--json").code == 0


def test_images_that_were_removed_during_the_training_are_left_out_of_the_check(cli, folder, tmp_path, monkeypatch):
    def remove_first(paths, model, size):
        Path(paths[0]).unlink()
        return paths

    monkeypatch.setattr(onnx_module, "sample_images", remove_first)
    outcome = cli("train", folder, *TINY, "--epochs", 1, "--name", "r", "--json")
    assert outcome.code == 0 and outcome.json["onnx"]["images"] == 5, outcome.err


def test_a_check_without_readable_images_is_an_error_that_names_one(tiny, tmp_path):
    settled = Preprocessing.from_settings(chosen(tmp_path), STATS)
    path = tmp_path / "model.onnx"
    onnx_module.export_onnx(path, tiny, settled, {"classes": '["a", "b", "c"]'})
    with pytest.raises(ExportError, match=r"none of 1 images for the check of model.onnx can be read, the first: gone.png"):
        onnx_module.check_onnx(path, tiny, settled, {"gone.png": 0}, lambda event: None)
