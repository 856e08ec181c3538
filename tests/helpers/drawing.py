"""Images drawn by the tests: a coloured disc on noise."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {"blue": (20, 40, 230), "green": (20, 200, 40), "red": (230, 30, 30)}


def draw(path: Path, colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (40, 32)) -> Path:
    """Draw a disc of one colour at a random place on grey noise; the same seed gives the same image."""
    rng = random.Random(seed)
    image = Image.frombytes("L", size, bytes(rng.randrange(96, 160) for _ in range(size[0] * size[1]))).convert("RGB")
    x, y, r = rng.randint(10, size[0] - 10), rng.randint(10, size[1] - 10), rng.randint(5, 9)
    ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def draw_classes(root: Path, per_class: int = 12) -> Path:
    """Draw a folder of three classes: `root/{blue,green,red}/<n>.png`."""
    for label, colour in COLOURS.items():
        for n in range(per_class):
            draw(root / label / f"{n}.png", colour, n)
    return root
