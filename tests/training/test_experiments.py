"""Cached trainings."""

from __future__ import annotations

from PIL import Image

from tests.helpers.training import resolved
from tlfast.training import experiments


def test_images_that_are_replaced_by_others_of_the_same_size_are_predicted_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("TLFAST_CACHE", str(tmp_path / "cache"))

    def draw(shift):
        for n in range(16):
            path = tmp_path / "photos" / "ab"[n % 2] / f"{n}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (n % 2 * 100 + shift, 10 * n, 0)).save(path)

    def trial():
        task, settings = resolved(tmp_path / "photos", "partial")
        return experiments.run_trial(task, settings, lambda event: None, neighbours=True)

    draw(0)
    assert not trial().reused and trial().reused
    draw(1)
    assert not trial().reused
