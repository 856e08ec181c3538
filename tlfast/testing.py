"""Images for tests: discs of one colour on noise, which a small network learns in seconds.

>>> from tlfast.testing import draw_classes
>>> run = tlfast.train(draw_classes("pictures"), epochs=2, **TINY)  # doctest: +SKIP
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

COLOURS = {"blue": (20, 40, 230), "green": (20, 200, 40), "red": (230, 30, 30)}

# Settings of the smallest training: an untrained network of timm's tests, whose accuracy means nothing.
TINY: Mapping[str, Any] = {"arch": "test_resnet", "weights": "none", "size": 32, "bs": 8, "lr": "3e-3"}


def draw_image(path: str | os.PathLike[str], colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (40, 32)) -> Path:
    """Draw a disc of one colour at a random place on grey noise, and return the path. The same seed gives the same image."""
    rng = random.Random(seed)
    image = Image.frombytes("L", size, bytes(rng.randrange(96, 160) for _ in range(size[0] * size[1]))).convert("RGB")
    x, y, r = rng.randint(10, size[0] - 10), rng.randint(10, size[1] - 10), rng.randint(5, 9)
    ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=colour)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return Path(path)


def draw_classes(root: str | os.PathLike[str], per_class: int = 12) -> Path:
    """Draw a folder of three classes, `root/{blue,green,red}/<n>.png`, and return it."""
    for label, colour in COLOURS.items():
        for n in range(per_class):
            draw_image(Path(root) / label / f"{n}.png", colour, n)
    return Path(root)
