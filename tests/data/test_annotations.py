"""Labels as annotation tools write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.files import image_bytes, message
from tlfast.core.errors import DataError
from tlfast.data import annotations
from tlfast.data.sources import open_data
from tlfast.tasks import find_task, resolve_settings


def read(path, **flags):
    task, data = find_task(str(path))
    return open_data(task, resolve_settings(task, "partial", {"data": data, **flags}))


def draw(folder, count=8):
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        (folder / f"{n}.png").write_bytes(image_bytes(n))


def coco(count=8, **changes):
    images = [{"id": 10 + n, "file_name": f"{n}.png"} for n in range(count)]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    boxes = [{"id": n, "image_id": 10 + n % count, "category_id": 1 + n % 2} for n in range(2 * count)]  # two boxes of one category for each image
    return {"images": images, "categories": categories, "annotations": boxes, **changes}


@pytest.mark.parametrize("place", ["a/labels.json", "a/images/labels.json", "a/annotations/labels.json", "labels.json"])
def test_coco_files_at_their_usual_places(tmp_path, place):
    draw(tmp_path / "a" / "images" if place != "labels.json" else tmp_path)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text(json.dumps(coco()))
    rows = read(tmp_path / place).rows
    assert {(Path(row.path).name, row.label) for row in rows} == {(f"{n}.png", ("cat", "dog")[n % 2]) for n in range(8)}
    assert all(Path(row.path).is_file() for row in rows)


def test_images_without_an_annotation_are_counted(tmp_path):
    draw(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(coco(annotations=coco()["annotations"][:6])))
    table = read(tmp_path / "a.json")
    assert len(table.rows) == 6 and table.notes == ("2 images without an annotation are skipped",)


def test_an_image_that_is_listed_twice_is_one(tmp_path):
    draw(tmp_path / "images")
    merged = coco(images=[*coco()["images"], {"id": 90, "file_name": "./0.png"}], annotations=[*coco()["annotations"], {"image_id": 90, "category_id": 1}])
    (tmp_path / "a.json").write_text(json.dumps(merged))
    assert len(annotations.read_coco(tmp_path / "a.json")[0]) == 8
    merged["annotations"][-1]["category_id"] = 2
    (tmp_path / "a.json").write_text(json.dumps(merged))
    assert "1 images have several categories, the first: images/0.png" in message(lambda: annotations.read_coco(tmp_path / "a.json"))


def test_a_coco_file_of_windows(tmp_path):
    """With backslashes in names, and a byte order mark."""
    draw(tmp_path / "JPEGImages")
    images = [{**image, "file_name": f"JPEGImages\\{image['file_name']}"} for image in coco()["images"]]
    (tmp_path / "a.json").write_text(json.dumps(coco(images=images)), encoding="utf-8-sig")
    assert all(Path(row.path).is_file() for row in read(tmp_path / "a.json").rows)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (coco(annotations=[*coco()["annotations"], {"image_id": 10, "category_id": 2}]), "1 images have several categories, the first: 0.png"),
        (coco(annotations=[]), "has no annotated image"),
        (coco(categories=[]), "names the image or category 1, which is not listed"),
        (coco(annotations=[{"image_id": 99, "category_id": 2}]), "names the image or category 99"),
        (coco(categories=[{"id": 1, "name": " "}, {"id": 2, "name": "dog"}]), "has annotations of a category without a name"),
        (coco(images=[{**image, "file_name": f"https://example.org/{image['id']}.png"} for image in coco()["images"]]), "https://example.org/10.png is a URL"),
        ({"info": {}}, "is not a COCO file (no 'images')"),
        ([], "is not a COCO file"),
        ("x", "is not a COCO file"),
        (coco(images=3), "is not a COCO file"),
        (coco(images=[[1]]), "is not a COCO file"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_coco_files_that_cannot_be_used(tmp_path, content, problem):
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert problem in message(lambda: annotations.read_coco(tmp_path / "a.json"))


def test_text_that_is_no_json(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match="is not a COCO file") as caught:
        annotations.read_coco(tmp_path / "a.json")
    assert "CSV" in caught.value.hint


def test_the_export_of_label_studio(tmp_path):
    draw(tmp_path)
    names = ["/data/upload/1/0a1b2c3d-0.png", "/data/local-files/?d=1.png", "2.png", *(f"/data/upload/1/0a1b2c3d-{n}.png" for n in range(3, 8))]
    lines = [f"{name},{n},{('cat', 'dog')[n % 2]},1,{n}" for n, name in enumerate(names)]
    (tmp_path / "project.csv").write_text("\n".join(["image,id,choice,annotator,annotation_id", *lines]))
    table = read(tmp_path / "project.csv")
    assert {(Path(row.path).name, row.label) for row in table.rows} == {(f"{n}.png", ("cat", "dog")[n % 2]) for n in range(8)}
    assert all(Path(row.path).is_file() for row in table.rows)
