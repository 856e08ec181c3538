from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pandas as pd
import pytest

import tlfast
from tlfast.testing import TINY, draw_image


@pytest.fixture
def frame(pictures) -> pd.DataFrame:
    paths = sorted(map(str, pictures.rglob("*.png")))
    return pd.DataFrame({"path": paths, "label": [path.split("/")[-2] for path in paths]})


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_of_a_folder(pictures):
    data = tlfast.dataset(pictures, valid_pct=0.25)
    assert repr(data) == "Dataset pictures: 36 images of 3 classes (train 27, valid 9)"
    assert len(data) == 36
    assert data.classes == ["blue", "green", "red"]
    assert list(data.table.columns) == ["path", "label", "split", "group"]
    assert data.table["split"].value_counts().to_dict() == {"train": 27, "valid": 9}
    assert "<td>9</td>" in data._repr_html_()


def test_of_a_task():
    data = tlfast.dataset("digits", limit=20)
    assert (data.task.name, len(data)) == ("digits", 40)


def test_of_a_frame_is_written_to_a_file_once(frame, tmp_path):
    first, again = tlfast.dataset(frame), tlfast.dataset(frame)
    assert first.settings == again.settings
    assert [path.name for path in tmp_path.glob("exports/table/tables/*")] == [first.settings["data"].rsplit("/", 1)[1]]
    assert first.table[["path", "label"]].sort_values("path").to_numpy().tolist() == frame.to_numpy().tolist()


@pytest.mark.filterwarnings("error")
def test_categorical_columns(frame):
    group = pd.Series([None, *range(1, len(frame))], dtype="object").astype("category")
    data = tlfast.dataset(frame.assign(label=frame["label"].astype("category"), group=group))
    assert data.classes == ["blue", "green", "red"]
    assert data.table["group"].isin(["", *map(str, range(1, len(frame)))]).all()


def test_a_table_that_was_not_finished_is_not_used(frame, tmp_path, monkeypatch):
    def stop(path, rows):
        path.write_text("path,label\n")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("tlfast.api.datasets.write_csv", stop)
        tlfast.dataset(frame)
    assert len(tlfast.dataset(frame)) == len(frame)


def test_columns_of_a_frame_can_have_other_names(frame):
    renamed = frame.rename(columns={"path": "file", "label": "species"}).assign(part=["valid", "train"] * 18)
    data = tlfast.dataset(renamed, name="plants", path_col="file", label_col="species", split_col="part")
    assert data.task.name == "plants"
    assert data.table["split"].value_counts().to_dict() == {"train": 18, "valid": 18}


def test_of_a_parquet_file(frame, tmp_path):
    frame.assign(bytes=b"123", number=1.5).to_parquet(tmp_path / "listed.parquet")
    assert repr(tlfast.dataset("listed.parquet")).startswith("Dataset listed: 36 images of 3 classes")


def test_of_a_file_that_is_no_parquet(tmp_path):
    (tmp_path / "listed.parquet").write_text("path,label\n")
    with pytest.raises(tlfast.DataError, match="is not a parquet file that can be read"):
        len(tlfast.dataset("listed.parquet"))


def with_one_number(frame):
    return frame.assign(path=[7.5, *map(Path, frame["path"][1:])])


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (lambda f: f.rename(columns={"label": "class"}), "the DataFrame has no column 'label'; it has: path, class", "Name the column with label_col=..."),
        (lambda f: f.assign(label=[None, *f["label"][1:]]), "row 0 of the DataFrame has no label", "Drop such rows first: frame.dropna(...)"),
        (
            with_one_number,
            "column 'path' of the DataFrame holds float, not paths",
            "Save images as files first, and give their paths",
        ),
        (lambda f: f.assign(path=["", *f["path"][1:]]), "row 0 of the DataFrame has no path", "Give the path of an image, or drop the row"),
        (
            lambda f: f.assign(path=["https://example.org/a.png", *f["path"][1:]]),
            "row 0 of the DataFrame: https://example.org/a.png is a URL",
            "Download the images first, and give their paths",
        ),
        (lambda f: f[:0], "the DataFrame has no rows", "Give one row per image, with its path and label"),
    ],
)
def test_frames_that_cannot_be_used(frame, change, message, hint):
    with pytest.raises(tlfast.UsageError) as error:
        tlfast.dataset(change(frame))
    assert (error.value.message, error.value.hint) == (message, hint)


@pytest.mark.parametrize("kind", ["Int64", "category", "int64[pyarrow]"])
def test_missing_values_of_nullable_columns(frame, kind):
    groups = pd.Series([None, *(i % 6 for i in range(1, len(frame)))], dtype=kind)
    table = tlfast.dataset(frame.assign(group=groups)).table
    assert (table["group"] == "").sum() == 1 and set(table["group"]) == {"", *"012345"}


def test_the_table_of_a_part_is_a_source(pictures):
    table = tlfast.dataset(pictures, train_pct=0.5).table
    assert (table["split"] == "spare").sum() == 15
    assert tlfast.dataset(table).table["split"].tolist() == table["split"].tolist()


def test_a_name_that_is_no_text(frame):
    with pytest.raises(tlfast.UsageError, match="name=5 is not a text"):
        tlfast.dataset(frame, name=5)
    assert tlfast.dataset(frame, name=Path("walks")).task.name == "walks"


def test_settings_of_a_training_are_refused(pictures):
    with pytest.raises(tlfast.UsageError, match="'epochs' is not a setting of the data") as error:
        tlfast.dataset(pictures, epochs=3)
    assert error.value.hint.startswith("Give it to tlfast.train; a dataset takes: data, fold, group_by")


def test_a_name_is_for_images_without_a_task(pictures):
    assert tlfast.dataset(pictures, name="mine").task.name == "mine"
    with pytest.raises(tlfast.UsageError, match="name='mine' is given for the task 'digits'"):
        tlfast.dataset("digits", name="mine")


def test_show_batch_draws_as_many_images_as_asked_for(pictures):
    with pytest.raises(tlfast.UsageError, match="size=5 must lie between"):
        tlfast.dataset(pictures).show_batch(4, size=5)
    figure = tlfast.dataset(pictures).show_batch(4, size=32, bs=64)
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert len(titles) == 4
    assert set(titles) <= {"blue", "green", "red"}


def test_check_returns_findings_with_thumbnails(folder):
    draw_image(folder / "red" / "copy.png", (20, 40, 230), 0)  # a copy of blue/0.png
    found = tlfast.dataset(folder).check()
    assert found["kind"].tolist().count("conflict") == 2
    assert found.page.endswith("report.html")
    assert found.summary.classes == ["blue", "green", "red"]
    assert found._repr_html_().count("data:image/jpeg;base64,") >= 2


def test_a_table_without_duplicates_has_its_own_columns(folder, tmp_path):
    draw_image(folder / "red" / "copy.png", (230, 40, 20), 0)  # a copy of red/0.png
    table = pd.DataFrame({"file": sorted(map(str, folder.rglob("*.png")))})
    table["species"] = [Path(path).parent.name for path in table["file"]]
    table.to_csv(tmp_path / "labels.csv", index=False)
    given = tlfast.dataset(tmp_path / "labels.csv", path_col="file", label_col="species", train_pct=0.5, valid_pct=0.4)
    rest = given.without("duplicates")
    kept = [row for row in given.rows if row.split in ("train", "valid")]
    assert len(kept) - 1 <= len(rest) <= len(kept)
    assert (
        set(rest.table["split"]) == {"train", "valid"} and {row.path: row.split for row in rest.rows}.items() <= {row.path: row.split for row in kept}.items()
    )


def test_check_without_findings_has_columns(folder):
    found = tlfast.dataset(folder).check()
    assert len(found) == 0
    assert "kind" in found.columns
    assert found.page == ""


def test_without_leaves_the_folder_as_it_is(folder):
    draw_image(folder / "red" / "copy.png", (20, 40, 230), 0)
    data = tlfast.dataset(folder)
    fewer = data.without("conflicts")
    assert (len(data), len(fewer)) == (37, 35)
    assert (folder / "red" / "copy.png").is_file()


@pytest.mark.parametrize("name", ["../away", "a/b", "", ".hidden", "x y"])
def test_the_name_of_a_dataset_is_that_of_a_folder(frame, tmp_path, name):
    if not name:
        assert tlfast.dataset(frame).task.name == "table"
        return
    with pytest.raises(tlfast.UsageError, match="name="):
        tlfast.dataset(frame, name=name)
    assert not (tmp_path / "exports").exists()


@pytest.mark.parametrize("source", [None, 3, ["a.png"], {"path": ["a.png"]}])
def test_other_sources_are_an_error(source):
    with pytest.raises(tlfast.UsageError, match=f"{type(source).__name__} is not a source of images"):
        tlfast.train(source)


def test_without_needs_a_kind(pictures):
    with pytest.raises(tlfast.UsageError) as error:
        tlfast.dataset(pictures).without()
    with pytest.raises(tlfast.UsageError, match=r"\['duplicates'\] is not a kind of images"):
        tlfast.dataset(pictures).without(["duplicates"])
    assert "duplicates" in error.value.hint
    with pytest.raises(tlfast.UsageError, match="seeds=0 must be at least 1"):
        tlfast.compare(pictures, seeds=0)


def test_a_batch_of_no_images_is_an_error(pictures):
    with pytest.raises(tlfast.UsageError, match="n=0 is not a whole number above 0"):
        tlfast.dataset(pictures).show_batch(0)


def test_the_report_names_the_dataframe(frame):
    run = tlfast.train(tlfast.dataset(frame, name="walks"), epochs=1, onnx=False, quiet=True, **TINY)
    assert "the DataFrame walks" in run.report(quiet=True).path.read_text(encoding="utf-8")


def test_findings_can_be_pickled(folder):
    shutil.copy(folder / "red" / "0.png", folder / "red" / "copy.png")
    found = tlfast.dataset(folder).check(quiet=True)
    again = pickle.loads(pickle.dumps(found))
    assert again.equals(found) and again.page == found.page and again.summary == found.summary


def test_a_frame_with_a_column_twice(frame):
    double = pd.concat([frame, frame["label"]], axis=1)
    with pytest.raises(tlfast.UsageError, match="the DataFrame has 2 columns 'label'"):
        tlfast.dataset(double)


def test_columns_of_a_frame_can_be_numbers(frame):
    assert len(tlfast.dataset(frame.rename(columns={"path": 0, "label": 1}), path_col=0, label_col=1)) == 36


def test_a_cutoff_of_labels_is_checked(pictures):
    data = tlfast.dataset(pictures)
    with pytest.raises(tlfast.UsageError, match="label_cutoff is given without labels"):
        data.check(label_cutoff=0.1)
    with pytest.raises(tlfast.UsageError, match="label_cutoff=10 is not a probability"):
        data.check(labels=True, label_cutoff=10)


def test_the_error_for_a_dataset_without_a_remaining_image_names_the_kinds(tmp_path):
    for label in ("cat", "dog"):
        for n in range(2):
            draw_image(tmp_path / "same" / label / f"{n}.png", (200, 0, 0), 0)
    with pytest.raises(tlfast.DataError, match="no image remains without duplicates, conflicts"):
        tlfast.dataset(tmp_path / "same").without("duplicates", "conflicts", quiet=True)


def test_a_dataset_without_duplicates_keeps_seed_and_folder(folder):
    fewer = tlfast.dataset(folder, seed=3, out="mine").without("duplicates", quiet=True)
    assert (fewer.resolve({}).seed, fewer.resolve({}).out) == (3, "mine")


def test_images_of_a_run_keep_its_splits_when_they_are_checked(folder):
    run = tlfast.train(folder, epochs=1, onnx=False, quiet=True, **TINY)
    before = run.dataset.table.set_index("path")["split"]
    for number in range(3):
        draw_image(folder / "red" / f"0{number}.png", (0, 0, 0), number)
    after = run.dataset.without("duplicates", quiet=True).table.set_index("path")["split"]
    assert after[before.index].equals(before) and set(after.drop(before.index)) == {"train"}
