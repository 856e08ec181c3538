"""tlfast data check: planted faults are found, counted as an independent count has them, and dropped without touching a file."""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from tests.helpers.command_line import TINY
from tlfast.data.types import FINDING_KINDS
from tlfast.testing import COLOURS, draw_image


@pytest.fixture
def faulty(tmp_path):
    """Three parts of 10 images a class with: a copy within train, a leak into valid and into test, a conflict, a grey and a faint image, a broken one."""
    root = tmp_path / "faulty"
    for k, part in enumerate(("train", "valid", "test")):
        for m, (label, colour) in enumerate(COLOURS.items()):
            for n in range(10):
                draw_image(root / part / label / f"{n}.png", colour, 100 * k + 10 * m + n)
    shutil.copy(root / "train/red/0.png", root / "train/red/copy.png")
    Image.open(root / "train/red/1.png").save(root / "valid/red/leak.bmp")  # other bytes, the same pixels
    shutil.copy(root / "train/red/1.png", root / "train/red/leaked too.png")
    shutil.copy(root / "valid/blue/2.png", root / "test/blue/leak.png")
    shutil.copy(root / "train/green/3.png", root / "train/blue/conflict.png")
    Image.new("RGB", (40, 32), (9, 9, 9)).save(root / "train/green/black.png")
    Image.fromarray(np.random.default_rng(0).integers(120, 123, (32, 40, 3), np.uint8)).save(root / "train/green/faint.png")
    (root / "train/blue/broken.png").write_bytes(b"no image")
    return root


def findings(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_each_planted_fault_is_named(cli, faulty):
    before = {path: path.read_bytes() for path in faulty.rglob("*.*")}
    outcome = cli("data", "check", faulty, "--json")
    assert outcome.code == 1  # one is unreadable
    found = outcome.json
    assert found["findings"] == {"unreadable": 1, "constant": 1, "nearly constant": 1, "duplicate": 3, "leak": 2, "conflict": 2}
    named = {(row["kind"], row["path"].removeprefix(f"{faulty}/"), row["other"].removeprefix(f"{faulty}/")) for row in findings(found["findings_file"])}
    assert named == {
        ("unreadable", "train/blue/broken.png", ""),
        ("constant", "train/green/black.png", ""),
        ("nearly constant", "train/green/faint.png", ""),
        ("duplicate", "train/red/copy.png", "train/red/0.png"),
        ("duplicate", "train/red/leaked too.png", "train/red/1.png"),
        ("duplicate", "train/green/3.png", "train/blue/conflict.png"),
        ("leak", "valid/red/leak.bmp", "train/red/1.png"),
        ("leak", "test/blue/leak.png", "valid/blue/2.png"),
        ("conflict", "train/green/3.png", "train/blue/conflict.png"),
        ("conflict", "train/blue/conflict.png", "train/green/3.png"),
    }
    assert {path: path.read_bytes() for path in faulty.rglob("*.*")} == before


def test_dropping_writes_a_table_that_trains(cli, faulty):
    outcome = cli("data", "check", faulty, "--drop", "duplicates,conflicts,unreadable,leaks", "--json")
    found = outcome.json
    assert found["dropped"] == {"unreadable": 1, "duplicates": 2, "leaks": 3, "conflicts": 1}
    kept = findings(found["table"])
    assert len(kept) == sum(found["counts"][part][label] for part in found["counts"] for label in COLOURS) - 7
    names = {row["path"].removeprefix(f"{faulty}/") for row in kept}
    assert {"valid/red/leak.bmp", "test/blue/leak.png", "train/red/0.png"} <= names  # what judges stays, and so does the first of copies
    assert not names & {"train/red/1.png", "train/red/leaked too.png", "valid/blue/2.png", "train/red/copy.png", "train/green/3.png", "train/blue/broken.png"}
    again = cli("data", "check", found["table"], "--strict", "--json")
    assert again.code == 1 and again.json["findings"] == {"constant": 1, "nearly constant": 1}
    assert cli("train", found["table"], *TINY, "--epochs", 1, "--no-onnx", "--quiet").code == 0


def test_images_left_out_by_train_pct_are_not_checked(cli, faulty):
    outcome = cli("data", "check", faulty, "--train-pct", 0.5, "--drop", "duplicates,unreadable,leaks", "--json")
    assert {row["split"] for row in findings(outcome.json["table"])} == {"train", "valid", "test"}
    assert cli("train", outcome.json["table"], *TINY, "--epochs", 1, "--no-onnx", "--quiet").code == 0


def test_blurry_images_are_named_among_sharp_ones(cli, folder):
    for number in (3, 7):
        with Image.open(folder / "red" / f"{number}.png") as image:
            image.resize((200, 200)).filter(ImageFilter.GaussianBlur(20)).save(folder / "red" / f"blurry{number}.png")
    outcome = cli("data", "check", folder, "--json")
    found = [row for row in findings(outcome.json["findings_file"]) if row["kind"] == "blurry"]
    assert {Path(row["path"]).name for row in found} == {"blurry3.png", "blurry7.png"}
    assert all(0 <= float(row["value"]) < 0.02 for row in found)


def test_dark_and_pale_images_are_named(cli, folder):
    rng = np.random.default_rng(3)
    Image.fromarray(rng.integers(0, 70, (32, 40, 3), np.uint8)).save(folder / "red" / "night.png")
    Image.fromarray(rng.integers(245, 256, (32, 40, 3), np.uint8)).save(folder / "red" / "snow.png")
    found = cli("data", "check", folder, "--json").json
    assert found["findings"] == {"dark": 1, "pale": 1}
    assert {(row["kind"], row["path"].rsplit("/", 1)[1]) for row in findings(found["findings_file"])} == {("dark", "night.png"), ("pale", "snow.png")}


def test_a_page_shows_what_was_found(cli, faulty):
    (faulty / "train/red/0.png").rename(faulty / "train/red/<b>0.png")
    found = cli("data", "check", faulty, "--json").json
    page = Path(found["page"]).read_text(encoding="utf-8")
    for kind, images in found["findings"].items():
        assert f"{kind}: {images} image" in page and FINDING_KINDS[kind] in page
    assert "&lt;b&gt;0.png" in page and "<b>0.png" not in page
    assert page.count("data:image/jpeg") == 2 + 7 * 2  # 2 stand alone, 7 beside another, and the broken one cannot be shown
    assert "http" not in page.replace("http-equiv", "")


def test_strict(cli, folder):
    assert cli("data", "check", folder, "--strict").code == 0
    shutil.copy(folder / "red/0.png", folder / "red/copy.png")
    assert cli("data", "check", folder).code == 0
    assert cli("data", "check", folder, "--strict").code == 1


def test_no_leak_is_left(cli, tmp_path):
    root = tmp_path / "parted"
    for k, part in enumerate(("train", "valid", "test")):
        for m, (label, colour) in enumerate(COLOURS.items()):
            for n in range(10):
                draw_image(root / part / label / f"{n}.png", colour, 100 * k + 10 * m + n)
    for target in ("valid/red/copy.png", "valid/red/another.png", "train/red/copy.png"):
        shutil.copy(root / "test/red/0.png", root / target)
    for target in ("valid/blue/copy.png", "valid/blue/another.png"):
        shutil.copy(root / "test/blue/1.png", root / target)
    found = cli("data", "check", root, "--drop", "leaks", "--json").json
    assert found["dropped"] == {"leaks": 5}
    assert "leak" not in cli("data", "check", found["table"], "--json").json["findings"]


def test_wrong_usage_and_nothing_left(cli, folder):
    outcome = cli("data", "check", folder, "--drop", "ugly")
    assert outcome.code == 2 and "--drop 'ugly' is not one of: duplicates, conflicts, unreadable, leaks" in outcome.err


def jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def test_copies_that_were_compressed_or_resized_are_found(cli, tmp_path):
    root, rng = tmp_path / "near", np.random.default_rng(5)
    for part in ("train", "valid"):
        for label in ("a", "b"):
            for n in range(15):
                coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
                path = root / part / label / f"{n}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                coarse.resize((120, 120), Image.Resampling.BICUBIC).save(path)
    originals = [Image.open(root / "train/a" / f"{n}.png") for n in range(10)]
    changed = [
        *(jpeg(image, 40) for image in originals[:4]),
        *(image.resize((70, 70)) for image in originals[4:7]),
        *(jpeg(i.resize((200, 200)), 60) for i in originals[7:9]),
    ]
    changed.append(ImageEnhance.Brightness(originals[9]).enhance(0.9))
    for n, image in enumerate(changed):
        image.save(root / "valid/a" / f"near {n}.png")
    found = cli("data", "check", root, "--json").json
    assert found["findings"] == {"near leak": 10}
    pairs = {(row["path"].rsplit("/", 1)[1], row["other"].rsplit("/", 1)[1]) for row in findings(found["findings_file"])}
    assert pairs == {(f"near {n}.png", f"{n}.png") for n in range(10)}


def test_a_near_copy_under_another_label_is_a_conflict(cli, tmp_path):
    rng = np.random.default_rng(6)
    for label in ("a", "b"):
        for n in range(15):
            path = tmp_path / "near" / label / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).resize((120, 120), Image.Resampling.BICUBIC).save(path)
    jpeg(Image.open(tmp_path / "near/a/0.png"), 60).save(tmp_path / "near/b/relabelled.png")
    found = cli("data", "check", tmp_path / "near", "--drop", "conflicts", "--json").json
    assert found["findings"]["near conflict"] == 2 and found["dropped"] == {"conflicts": 2}
    named = {(row["path"].rsplit("/", 1)[1], row["other"].rsplit("/", 1)[1]) for row in findings(found["findings_file"]) if row["kind"] == "near conflict"}
    assert named == {("relabelled.png", "0.png"), ("0.png", "relabelled.png")}


def test_groups_that_straddle(cli, folder, tmp_path):
    rows = [(f"{label}/{n}.png", label, "train" if n < 9 else "valid", f"g{n % 10}") for label in COLOURS for n in range(12)]
    with open(folder / "list.csv", "w") as file:
        file.write("path,label,split,group\n" + "".join(",".join(row) + "\n" for row in rows))
    found = cli("data", "check", folder / "list.csv", "--json").json
    assert found["findings"] == {"straddling group": 6}  # images 10 and 11 have the groups of images 0 and 1


@pytest.mark.real
def test_counts_of_fer_are_those_of_an_independent_count(cli, shared, tmp_path):
    whole, part = shared / "data" / "fer2013.zip", tmp_path / "faces.zip"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(part, "w") as target:  # a quarter of the images
        for name in sorted(source.namelist())[::4]:
            target.writestr(name, source.read(name))
    found = cli("data", "check", "fer", "--data", part, "--json").json
    groups, constant = defaultdict(list), 0
    with zipfile.ZipFile(part) as archive:
        for name in archive.namelist():
            if name.endswith(".jpg"):
                pixels = np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
                constant += pixels.min() == pixels.max()
                groups[hashlib.sha256(pixels.tobytes()).hexdigest()].append(name.split("/")[-3:-1])
    by_part = [{part: [label for p, label in group if p == part] for part in ("train", "valid")} for group in groups.values()]
    counts = found["findings"]
    assert counts["duplicate"] == sum(max(0, len(labels) - 1) for parts in by_part for labels in parts.values()) > 0
    assert counts["leak"] == sum(len(parts["valid"]) for parts in by_part if parts["train"]) > 0
    assert counts["conflict"] == sum(len(group) for group in groups.values() if len({label for _, label in group}) > 1) > 0
    assert counts["constant"] == constant > 0


def test_data_check_names_what_cannot_be_read(cli, folder):
    assert cli("data", "check", folder).code == 0
    (folder / "red" / "0.png").write_text("no image")
    draw_image(folder / "red" / "grey.png", (0, 0, 0), 5, size=(20, 20))
    outcome = cli("data", "check", folder, "--json")
    assert outcome.code == 1
    summary = outcome.json
    assert summary["sizes"] == {"40x32": 35, "20x20": 1} and summary["modes"] == {"RGB": 36}
    assert [bad["reason"] for bad in summary["unreadable"]] == ["not an image that can be read"]


def test_files_that_are_no_images_are_named_in_one_line_and_images_of_other_names_are_counted(cli, folder):
    (folder / "red" / "1.png").rename(folder / "red" / "picture")
    Image.open(folder / "red" / "2.png").save(folder / "red" / "icon.ico")
    (folder / "red" / "list.csv").write_text("a,b\n")
    outcome = cli("data", "check", folder)
    assert "1 file is not an image and is left out: 1 .csv" in outcome.out + outcome.err
    assert sum(cli("data", "check", folder, "--json").json["sizes"].values()) == 37
