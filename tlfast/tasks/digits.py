"""`tlfast train digits`: 1,797 scanned digits (8x8, grey) of scikit-learn, without a download.

Expected on the valid split, at 64 px with the embedded EfficientNet-Lite0 and seed 0 (two CPU cores, November 2026):

    partial, 10 epochs   accuracy 0.953   macro F1 0.952   (best epoch, `--keep best`: accuracy 0.958; seeds 1 to 3: 0.964, 0.967, 0.953)

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, CC BY 4.0.
"""

from __future__ import annotations

from pathlib import Path

from ..data import Task

CLASSES = tuple(str(digit) for digit in range(10))


def make(target: Path) -> None:
    """Write the digits as PNG files `target/<digit>/<number>.png`."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    bundle = load_digits()
    for digit in CLASSES:
        (target / digit).mkdir(parents=True)
    for number, (pixels, label) in enumerate(zip(bundle.images, bundle.target, strict=True)):
        grey = (pixels * (255 / 16)).round().astype(np.uint8)  # the grey levels are 0 to 16
        Image.fromarray(grey).save(target / str(label) / f"{number:04d}.png")


TASK = Task(
    name="digits",
    title="scanned digits of scikit-learn (8x8 pixels)",
    classes=CLASSES,
    defaults={"arch": "tf_efficientnet_lite0", "size": 64, "flip": "none", "rotate": 10.0, "colour": False},
    full={"epochs": 3},
    licence="CC BY 4.0",
    homepage="https://archive.ics.uci.edu/dataset/80",
    make=make,
)
