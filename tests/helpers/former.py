"""Files written by version 0.1 before the packages: `tests/fixtures/run-0.1.json` and `journal-0.1.json`.

Both are of `tlfast train` on the drawn images with test_resnet at 32 px and --depth 2. The journal is of a training with --epochs 2 and --lr auto that
was interrupted in the upper stages. The place and the checksums of the images and of the weights are filled in by the tests.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from tests.helpers.paths import ROOT
from tests.helpers.training import resolved
from tlfast.models.weights import hash_weights
from tlfast.training import trainer


def read_former(name: str, images: Path) -> str:
    """Return the text of a file of the previous layout, as if it had been made from these images."""
    with trainer.prepare(*resolved(images, "depth", depth="2"), lambda event: None) as session:
        values = {"@IMAGES@": str(images), "@FINGERPRINT@": session.table.fingerprint(), "@WEIGHTS@": hash_weights(session.learn.model[0])}
    text = (ROOT / "tests" / "fixtures" / name).read_text(encoding="utf-8")
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text


def name_former_weights(file: Path, weights: str) -> None:
    """Let an ONNX file name its pretrained weights with their folder, as version 0.1.0 wrote them."""
    exported = onnx.load(file)
    info = {entry.key: entry.value for entry in exported.metadata_props}
    onnx.helper.set_model_props(exported, {**info, "weights": weights})
    onnx.save(exported, file)
