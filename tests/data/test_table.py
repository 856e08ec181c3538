from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.files import image_bytes
from tlfast import tasks
from tlfast.core import DataSettings
from tlfast.core.errors import DataError, UsageError
from tlfast.data import check_readable, load_table, open_store
from tlfast.data.table import read_table
from tlfast.tasks import resolve
from tlfast.testing import draw_image

FER = tasks.get_task("fer")


def load(root, task=None, **flags):
    task = task or tasks.folder_task(root)
    return load_table(task, resolve.resolve_settings(task, None, flags), root)


def counts(table):
    return {split: sum(values.values()) for split, values in table.summary().counts.items()}


def test_folder_of_classes(folder):
    table = load(folder)
    assert table.classes == ("blue", "green", "red")
    assert counts(table) == {"train": 30, "valid": 6}
    assert all(n == 2 for n in table.summary().counts["valid"].values())


def test_same_seed_same_split_other_seed_other_split(folder):
    assert load(folder, seed=1) == load(folder, seed=1)
    assert load(folder, seed=1) != load(folder, seed=2)


def test_parts_of_the_folder_are_kept(tmp_path):
    for part, n in (("Train", 4), ("val", 2), ("test", 3)):
        for label in ("a", "b"):
            for i in range(n):
                draw_image(tmp_path / part / label / f"{i}.jpg", (200, 0, 0), i)
    table = load(tmp_path)
    assert counts(table) == {"train": 8, "valid": 4, "test": 6}
    refolded = load(tmp_path, fold=1)
    assert counts(refolded)["test"] == 6 and counts(refolded)["train"] + counts(refolded)["valid"] == 12
    assert refolded.part("test") == table.part("test") and refolded.part("valid") != table.part("valid")
    assert "--valid-pct has no effect: the data has a valid split" in load(tmp_path, valid_pct=0.4).notes


def test_a_class_may_be_called_test(tmp_path):
    for label in ("test", "other"):
        for i in range(4):
            draw_image(tmp_path / label / f"{i}.png", (0, 0, 0), i)
    assert load(tmp_path).classes == ("other", "test")


def test_zip_wrapped_in_a_folder(tmp_path, folder):
    archive = tmp_path / "wrapped.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*.png"):
            file.write(path, f"some/wrapping/{path.relative_to(folder)}")
        file.writestr("__MACOSX/some/wrapping/blue/._1.png", b"x")
    table = check_readable(load(archive))
    assert counts(table) == {"train": 30, "valid": 6}
    assert not table.unreadable
    assert table.fingerprint() == load(archive).fingerprint()


def test_a_zip_with_backslashes(tmp_path, folder):
    """As some Windows programs write it."""
    archive = tmp_path / "windows.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*.png"):
            info = zipfile.ZipInfo("placeholder")
            info.filename = str(path.relative_to(folder)).replace("/", "\\")
            file.writestr(info, path.read_bytes())
    table = check_readable(load(archive))
    assert counts(table) == {"train": 30, "valid": 6} and table.classes == ("blue", "green", "red")


def test_folds_partition_the_images(folder):
    held = [{row.path for row in load(folder, fold=k).part("valid")} for k in range(5)]
    assert len(set.union(*held)) == sum(map(len, held)) == 36
    assert "--valid-pct has no effect: --fold chooses the validation images" in load(folder, fold=1, valid_pct=0.4).notes
    assert load(folder, valid_pct=0.4).notes == ()


def test_groups_stay_on_one_side(folder):
    table = load(folder, group_by=r"^(\d)", valid_pct=0.25)
    sides = [{row.group for row in table.part(split)} for split in ("train", "valid")]
    assert sides[0] and sides[1] and not sides[0] & sides[1]


def test_group_by_that_matches_nothing(folder):
    with pytest.raises(UsageError, match="matches no file name, such as 0.png"):
        load(folder, group_by="subject(.+)")
    for pattern in ("^", "[a-z]*", "(x)?"):
        with pytest.raises(UsageError, match="matches an empty part of every file name, such as 0.png"):
            load(folder, group_by=pattern)


def test_file_names_outside_the_pattern_of_groups_are_counted(folder):
    table = load(folder, group_by=r"^(1)", valid_pct=0.25)
    assert "27 file names do not match --group-by: each is a group of its own" in table.notes
    assert sum(row.group == row.path for row in table.rows) == 27 and sum(row.group == "1" for row in table.rows) == 9
    assert not [note for note in load(folder, group_by=r"^(\d)", valid_pct=0.25).notes if "--group-by" in note]


def test_limit_is_stratified(folder):
    table = load(folder, limit=9)
    assert counts(table) == {"train": 9, "valid": 6}
    assert set(table.summary().counts["train"].values()) == {3}


def test_csv(tmp_path, folder):
    rows = [(p.relative_to(tmp_path).as_posix(), p.parent.name, "valid" if p.stem == "1" else "train", p.stem) for p in folder.rglob("*.png")]
    path = tmp_path / "mine.csv"
    path.write_text("\ufefffile;kind;part;subject\n" + "".join(";".join(row) + "\n" for row in rows), encoding="utf-8")
    table = check_readable(load(path, path_col="file", label_col="kind", split_col="part", group_col="subject"))
    assert counts(table) == {"train": 33, "valid": 3}
    assert {row.group for row in table.part("valid")} == {"1"}


@pytest.mark.parametrize(
    ("text", "flags", "error", "message"),
    [
        ("image,label\na.png,x\n", {}, UsageError, "mine.csv has no column 'path'; it has: image, label"),
        ("path,kind\na.png,x\n", {}, UsageError, "mine.csv has no column 'label'; it has: path, kind"),
        ("path,label\na.png,x\n", {"split_col": "part"}, UsageError, "mine.csv has no column 'part'"),
        ("path,label\na.png,\n", {}, DataError, "mine.csv line 2: no label for a.png"),
        ("path,label\n,x\n", {}, DataError, "mine.csv line 2: no path"),
        ("path,label,split\na.png,x,holdout\n", {}, DataError, "mine.csv line 2: 'holdout' is not a split"),
        ("path,label\n", {}, DataError, "has a header but no rows"),
        ("", {}, DataError, "mine.csv is empty"),
    ],
)
def test_bad_csv(tmp_path, text, flags, error, message):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(error, match=message):
        load(path, **flags)


def test_empty_folder(tmp_path):
    with pytest.raises(DataError, match="no images in"):
        load(tmp_path)


def test_images_without_class_folders(tmp_path):
    draw_image(tmp_path / "1.png", (0, 0, 0), 1)
    with pytest.raises(DataError, match="the 1 images of .* are in no class folder"):
        load(tmp_path)


def test_stray_images_are_counted(folder):
    draw_image(folder / "stray.png", (0, 0, 0), 1)
    assert load(folder).notes == ("1 images outside the class folders are skipped",)


def test_stray_images_beside_inner_folders(tmp_path, folder):
    """In a zip of a folder, and beside the folders of splits."""
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*.png"):
            file.write(path, f"photos/{path.relative_to(folder)}")
        file.write(path, "photos/cover.png")
        file.write(path, "cover.png")
    table = load(archive)
    assert table.classes == ("blue", "green", "red") and table.notes == ("2 images outside the class folders are skipped",)
    for part in ("train", "valid"):
        shutil.copytree(folder, tmp_path / "parts" / part)
    shutil.copy(path, tmp_path / "parts" / "cover.png")
    assert counts(load(tmp_path / "parts")) == {"train": 36, "valid": 36}


def fill(root, *folders):
    for folder in folders:
        for i in range(4):
            draw_image(root / folder / f"{i}.png", (0, 0, 0), i)


@pytest.mark.parametrize(
    "folders",
    [
        ("training_set/training_set/{}", "test_set/test_set/{}"),
        ("seg_train/seg_train/{}", "seg_test/seg_test/{}"),
        ("data/Train-Images/{}", "data/Test-Images/{}"),
    ],
)
def test_splits_of_public_data_sets(tmp_path, folders):
    fill(tmp_path, *(folder.format(label) for folder in folders for label in ("a", "b")))
    table = load(tmp_path)
    assert table.classes == ("a", "b") and counts(table) == {"train": 6, "valid": 2, "test": 8}
    assert any(note.startswith("folders that are taken for splits: ") and "(test)" in note for note in table.notes)


def test_a_split_whose_only_class_has_its_name_is_no_wrapping_folder(tmp_path):
    fill(tmp_path, "train/train", "train/car", "test/train", "test/car")
    table = load(tmp_path)
    assert table.classes == ("car", "train") and counts(table) == {"train": 6, "valid": 2, "test": 8}
    fill(tmp_path / "single", "train/a", "train/b", "test/test")
    with pytest.raises(DataError, match="no training images of class 'test'"):
        load(tmp_path / "single")


@pytest.mark.parametrize("outer", ["training_data", "train", "photos"])
def test_a_folder_around_the_splits_is_none_of_them(tmp_path, outer):
    fill(tmp_path / outer, "train/a", "train/b", "val/a", "val/b")
    table = load(tmp_path)
    assert table.classes == ("a", "b") and counts(table) == {"train": 8, "valid": 8}


def test_images_without_labels_beside_repeated_folders_of_splits(tmp_path):
    fill(tmp_path, "seg_train/seg_train/a", "seg_train/seg_train/b", "seg_test/seg_test/a", "seg_test/seg_test/b", "seg_pred/seg_pred")
    with pytest.raises(DataError, match="has seg_pred beside the splits seg_test, seg_train"):
        load(tmp_path)


def test_splits_without_a_train_split(tmp_path):
    fill(tmp_path, "valid/a", "valid/b", "test/a", "test/b")
    with pytest.raises(DataError, match="has the splits test, valid, and no folder train"):
        load(tmp_path)


def test_links_to_class_folders_are_named_if_there_is_nothing_else(tmp_path, folder):
    links = tmp_path / "links"
    links.mkdir()
    for label in ("red", "blue"):
        (links / label).symlink_to(folder / label)
    with pytest.raises(DataError, match="no images in .*; links to folders are not followed: blue, red"):
        load(links)


def test_blanks_at_the_ends_of_class_folders(tmp_path):
    fill(tmp_path, "cat", "cat ", " dog")
    table = load(tmp_path)
    assert table.classes == ("cat", "dog") and len(table.rows) == 12
    assert "blanks at the ends of class names are removed: cat, dog" in table.notes


@pytest.mark.parametrize(
    "head", ["path, label", '"path", "label"', "\n\npath,label", "sep=,\npath,label", "\ufeffpath , label"], ids=["blank", "quotes", "lines", "sep", "mark"]
)
def test_first_lines_of_csv_files(folder, head):
    (folder / "mine.csv").write_text(f"{head}\n" + "".join(f"{label}/{i}.png, {label}\n" for label in ("red", "blue") for i in range(4)), encoding="utf-8")
    assert counts(load(folder / "mine.csv")) == {"train": 6, "valid": 2}


def test_the_number_of_a_line_counts_those_before_the_columns(folder):
    (folder / "mine.csv").write_text("\npath,label\nred/0.png,red\nred/1.png,\n")
    with pytest.raises(DataError, match="mine.csv line 4: no label"):
        load(folder / "mine.csv")


def test_images_that_a_table_leaves_out_are_in_no_fold(folder):
    rows = [f"{label}/{i}.png,{label},{'spare' if i < 6 else ''}" for label in ("red", "blue") for i in range(12)]
    (folder / "mine.csv").write_text("\n".join(["path,label,split", *rows]))
    table = load(folder / "mine.csv", fold=1)
    assert sum(counts(table).values()) == 12 == len(table.part("spare")) and table.part("valid")


def test_two_spellings_of_a_path_are_one_image(folder):
    rows = [f"{label}/{i}.png,{label}" for label in ("red", "blue") for i in range(4)]
    (folder / "mine.csv").write_text("\n".join(["path,label", *rows, "blue/../red/0.png,red"]))
    table = load(folder / "mine.csv")
    assert len(table.rows) == 8 and "1 rows repeat an image and are skipped" in table.notes


def test_groups_by_names_in_a_zip_with_backslashes(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        for label in ("cat", "dog"):
            for i in range(12):
                info = zipfile.ZipInfo("x")
                info.filename = f"src\\{label}\\s{i // 2}_{i}.png"
                file.writestr(info, image_bytes(i))
    assert {row.group for row in load(path, group_by="^s[0-9]+").rows} == {f"s{i}" for i in range(6)}


def test_folders_beside_splits_are_no_classes(tmp_path, folder):
    for part in ("train", "test"):
        shutil.copytree(folder, tmp_path / "data" / part)
    draw_image(tmp_path / "data" / "single_prediction" / "1.png", (0, 0, 0), 1)
    with pytest.raises(DataError, match="data has single_prediction beside the splits test, train"):
        load(tmp_path / "data")
    for label in ("train", "test", "car"):
        for i in range(4):
            draw_image(tmp_path / "vehicles" / label / f"{i}.png", (0, 0, 0), i)
    assert load(tmp_path / "vehicles").classes == ("car", "test", "train")


def test_labels_in_two_unicode_forms_are_one_class(tmp_path):
    for part, label in (("train", "cafe\u0301"), ("train", "tea"), ("valid", "caf\u00e9"), ("valid", "tea")):
        for i in range(3):
            draw_image(tmp_path / part / label / f"{i}.png", (0, 0, 0), i)
    table = load(tmp_path)
    assert table.classes == ("caf\u00e9", "tea") and counts(table) == {"train": 6, "valid": 6}
    assert table.notes == ("labels that differ only in their Unicode form are one class: caf\u00e9",)
    shutil.rmtree(tmp_path / "valid")
    assert load(tmp_path).classes == ("cafe\u0301", "tea"), "as in runs of earlier versions"


def test_columns_have_no_effect_on_folders(folder):
    assert load(folder, group_col="plant").notes == (f"--group-col has no effect: {folder} is no table",)


def test_one_class(tmp_path):
    for i in range(4):
        draw_image(tmp_path / "only" / f"{i}.png", (0, 0, 0), i)
    with pytest.raises(DataError, match="has only one class, 'only'") as caught:
        load(tmp_path)
    assert "one sub-folder per class" in caught.value.hint
    (tmp_path / "a.csv").write_text("path,label,kind\nonly/0.png,x,a\nonly/1.png,x,b\n")
    with pytest.raises(DataError, match="has only one class, 'x'") as caught:
        load(tmp_path / "a.csv")
    assert "--label-col" in caught.value.hint


def test_class_names_that_are_almost_equal_are_named(tmp_path):
    for label in ("Snake weed", "snake-weed", "Lantana"):
        for i in range(4):
            draw_image(tmp_path / label / f"{i}.png", (0, 0, 0), i)
    assert load(tmp_path).notes == ("the names of the classes 'Snake weed' and 'snake-weed' are almost equal; give them the same name if they are one class",)


def test_numbers_are_not_almost_equal(tmp_path):
    for label in ("-1", "1", "1_0", "10"):
        for i in range(4):
            draw_image(tmp_path / label / f"{i}.png", (0, 0, 0), i)
    assert load(tmp_path).notes == ()


def test_class_with_one_image(folder):
    draw_image(folder / "rare" / "1.png", (0, 0, 0), 1)
    with pytest.raises(DataError, match="class 'rare' has 1 image"):
        load(folder)


def test_class_only_in_valid(tmp_path):
    for part, label in (("train", "a"), ("train", "b"), ("valid", "a"), ("valid", "c")):
        draw_image(tmp_path / part / label / "1.png", (0, 0, 0), 1)
    with pytest.raises(DataError, match="no training images of class 'c'"):
        load(tmp_path)


def test_unreadable_images_are_named_and_skipped(folder):
    (folder / "red" / "0.png").write_text("this is a text")
    table = check_readable(load(folder, valid_pct=0.3))
    assert [(bad.path, bad.reason) for bad in table.unreadable] == [(str(folder / "red" / "0.png"), "not an image that can be read")]
    assert len(table.rows) == 35


def test_too_many_unreadable_images(folder):
    for i in range(2):
        (folder / "red" / f"{i}.png").write_text("this is a text")
    with pytest.raises(DataError, match="2 of 36 images cannot be read"):
        check_readable(load(folder))


def test_fingerprint_notices_a_changed_image(folder):
    before = load(folder).fingerprint()
    draw_image(folder / "red" / "0.png", (0, 0, 0), 99, size=(80, 80))
    assert load(folder).fingerprint() != before


def test_the_datas_own_classes_win_with_a_note(folder):
    table = load(folder, task=FER)
    assert table.classes == ("blue", "green", "red")
    assert table.notes == ("the data has 3 classes, the task fer has 7; the classes of the data are used",)


def test_task_order_of_classes_is_kept(tmp_path):
    task = replace(FER, classes=("zebra", "ant"))
    for label in task.classes:
        for i in range(3):
            draw_image(tmp_path / label / f"{i}.png", (0, 0, 0), i)
    assert load(tmp_path, task=task).classes == ("zebra", "ant")


@pytest.mark.parametrize("sizes", [(12, 12, 12), (31, 7, 3), (5, 5, 90)])
def test_limit_is_never_exceeded_and_keeps_every_class(tmp_path, sizes):
    for label, size in zip("abc", sizes, strict=True):
        for i in range(size):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"{i}.png").touch()
    for limit in range(3, 60):
        table = load(tmp_path, limit=limit, valid_pct=0.4)
        for part in table.summary().counts.values():
            assert sum(part.values()) <= limit and min(part.values()) >= 1


def test_limit_below_the_number_of_classes_is_refused(folder):
    with pytest.raises(UsageError, match="--limit 2 is less than the 3 classes"):
        load(folder, limit=2)


def test_folders_without_images_are_named(folder):
    (folder / "violet").mkdir()
    (folder / ".git").mkdir()
    assert load(folder).notes == ("folders without images are not classes: violet",)


def test_a_class_emptied_by_broken_images_names_the_first(tmp_path):
    for i in range(60):
        draw_image(tmp_path / "ab"[i % 2] / f"{i}.png", (0, 0, 0), i)
    (tmp_path / "c").mkdir()
    for i in range(2):
        (tmp_path / "c" / f"{i}.png").write_text("no image")
    with pytest.raises(DataError) as error:
        check_readable(load(tmp_path))
    assert error.value.message.startswith(f"no training image of class 'c' can be read, the first: {tmp_path}/c/")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,label\na.png,x,y\n", "has 2 columns 'label'"),
        ("path,label\nhttp://example.org/a.png,x\n", "line 2: http://example.org/a.png is a URL"),
        ("path,label\ns3://bucket/a.png,x\n", "line 2: s3://bucket/a.png is a URL"),
        ("path,label\na\0.png,x\n", r"line 2: the path a\\x00\.png has a NUL character"),
    ],
)
def test_tables_that_cannot_be_trained_on(tmp_path, text, message):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "table.csv", DataSettings())


def test_a_table_of_images_in_a_tar_is_read_anew_when_the_tar_changes(tmp_path):
    def write(shift):
        with tarfile.open(tmp_path / "photos.tar", "w") as file:
            for i in range(8):
                data = image_bytes(20 * i + shift)
                info = tarfile.TarInfo(f"{i}.png")
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))

    write(0)
    (tmp_path / "mine.csv").write_text("path,label\n" + "".join(f"photos.tar!/{i}.png,{'ab'[i % 2]}\n" for i in range(8)))
    table = load(tmp_path / "mine.csv")
    stores = []
    for shift in (0, 5):
        write(shift)
        task = tasks.folder_task(tmp_path / "mine.csv")
        opened, store = open_store(table, resolve.resolve_settings(task, None, {"data": str(tmp_path / "mine.csv"), "size": 32, "arch": "test_resnet"}))
        assert len(opened.fingerprint()) == 64
        stores.append(np.array(store.pixels[:]).tobytes())
    assert stores[0] != stores[1]
