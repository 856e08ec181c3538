"""A finished run as an object: its scores, tables, figures, predictions, and the Learner to go on from."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from .. import tasks
from ..commands.predict import list_images
from ..core import ModelSettings, Note, Progress, Settings, UsageError
from ..core import runs as records
from ..core.files import replace_undecodable
from ..core.run_files import probability_column
from ..core.runs import ALL, EVALUATED, check_split
from ..core.setting_checks import BY_SIZE
from ..data.discovery import has_many
from ..inference import Classifier, Prediction, find_model, load
from ..inference.writers import column_names, row_cells
from .display import ConfusionMatrix, ImageFrame, Page, wrap_html
from .keywords import check_count, check_path, check_text, join_names, with_keywords_in_messages
from .progress import show_progress
from .run_files import DATA, read_history, read_metrics, read_predictions
from .scores import Scores
from .serial import keep_random_states, one_at_a_time

if TYPE_CHECKING:
    from fastai.learner import Learner

    from ..commands.export import ExportResult
    from ..commands.push import PushResult
    from ..inference.classifier import ImageSource
    from .cleaner import Cleaner
    from .datasets import Dataset, DataSource


class Run:
    """A finished run. `tlfast.train` returns one; `Run("fer")` opens the latest of a task, or one by its run id or folder.

    Attributes:
        folder: folder of the run, with the files that the reference describes.
        manifest: content of `run.json`: settings, classes, versions, facts about images and weights.

    >>> run = tlfast.Run("digits")  # doctest: +SKIP
    >>> run.metrics["accuracy"].value  # doctest: +SKIP
    0.9582
    """

    @with_keywords_in_messages
    def __init__(self, reference: str | os.PathLike[str], *, out: str = "exports", verify: bool = True) -> None:
        folder = check_path("out", out, 'out="exports"')
        record = records.find(check_text("reference", reference, 'tlfast.Run("fer")'), folder, verify)
        self._record = replace(record, folder=record.folder.absolute())  # stays the same in another working directory

    @property
    def folder(self) -> Path:
        return self._record.folder

    @property
    def manifest(self) -> dict[str, Any]:
        return self._record.manifest

    @property
    def id(self) -> str:
        """Name of the run: time, strategy and backbone, or the given name."""
        return self._record.id

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the class indices."""
        return list(self._record.classes)

    @property
    def settings(self) -> Settings:
        """All settings of the training, such as `run.settings.epochs`."""
        return self._record.settings

    @property
    def dataset(self) -> Dataset:
        """The images that the run was trained on. Their `table` has the splits of the run, and images that were added since are training images there.

        A new training on it draws the splits as the run did, which are others if images were added.
        """
        from .datasets import SETTINGS, Dataset

        settings, source = self.settings, self.manifest["data"]["source"]
        if not settings.data and (self.manifest.get("hub") or not os.path.exists(source)):
            source = ""  # of the task: the folder was on another machine, or its images can be made again
        given = {name: getattr(settings, name) for name in SETTINGS}
        return Dataset(tasks.find_run_task(self.manifest), {**given, "data": source, BY_SIZE: settings.internals.by_size}, self._record)

    # Results on the valid split

    @cached_property
    def metrics(self) -> Scores:
        """Scores on the valid split, with 95 % intervals."""
        return Scores(read_metrics(self._record, "valid"))

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row for each epoch: phase, losses, metrics, seconds."""
        return read_history(self._record)

    @property
    def predictions(self) -> ImageFrame:
        """Predictions for the valid split: path, label, prediction, loss, and the calibrated probability `p(class)` of each class."""
        return read_predictions(self._record, "valid")

    @with_keywords_in_messages
    def confusion_matrix(self, split: str = "valid") -> ConfusionMatrix:
        """Return the counts of actual (rows) and predicted (columns) classes. `run.confusion_matrix().plot()` draws them.

        For `split="test"`, call `evaluate(split="test")` before.
        """
        check_split(split)
        return ConfusionMatrix.from_counts(read_metrics(self._record, split)["confusion"], self.classes)

    @with_keywords_in_messages
    def top_losses(self, k: int = 9, split: str = "valid") -> ImageFrame:
        """Return the `k` images with the largest losses: path, label, prediction, probability, loss. In a notebook with thumbnails."""
        frame = read_predictions(self._record, split).nlargest(check_count("k", k), "loss")
        columns = [probability_column(name) for name in self.classes]
        return ImageFrame(
            {
                "path": frame["path"],
                "label": frame["label"],
                "prediction": frame["prediction"],
                "probability": frame[columns].max(axis=1),
                "loss": frame["loss"],
            }
        ).reset_index(drop=True)

    # Commands

    @with_keywords_in_messages
    @one_at_a_time
    @keep_random_states
    def evaluate(
        self,
        split: str = "valid",
        *,
        data: str = "",
        path_col: str = "",
        label_col: str = "",
        device: str = "auto",
        tta: str = "",
        log: str | Sequence[str] = "",
        quiet: bool = False,
    ) -> Scores:
        """Run the network on the valid or test split and return its scores; `split="all"` on all images of `data`. Each use of the test split is recorded.

        `data` names the images if they have moved, `path_col` and `label_col` columns of a table of other images, `tta` the test-time augmentation of a
        file that `export` has written, `log` experiment trackers, such as `log=["tensorboard", "mlflow"]`. Raises TlfastError.
        """
        from ..commands.evaluate import EvaluateRequest, evaluate_run

        check_split(split, (*EVALUATED, ALL))
        check_text("tta", tta, 'run.evaluate(tta="flip")')
        with show_progress(quiet) as on_event:
            request = EvaluateRequest(split, check_text("data", data, DATA), device, tta, join_names(log), path_col, label_col)
            result = evaluate_run(self._record, request, on_event)
        self._record = records.read_run(self.folder)
        return Scores(result.evaluation.to_dict())

    @with_keywords_in_messages
    @one_at_a_time
    @keep_random_states
    def report(self, split: str = "valid", *, data: str = "", device: str = "auto", paths: bool = True, check: bool = True, quiet: bool = False) -> Page:
        """Write the HTML report of the run: metrics, confusion matrix, misclassified images, findings of the data check, command to repeat it.

        Images can be dropped or relabelled in the page, which writes a table to train on. Without `paths` it names files and folders without the folders
        above them, and has no such table. Without `check` the images are not checked. Raises TlfastError.
        """
        from ..commands.report import Contents, report_run

        check_split(split)
        with show_progress(quiet) as on_event:
            return Page(report_run(self._record, split, check_text("data", data, DATA), device, Contents(paths, check), on_event).files[0])

    @with_keywords_in_messages
    @one_at_a_time
    @keep_random_states
    def export(
        self,
        to: str | os.PathLike[str] = "",
        *,
        quantize: str = "",
        half: bool = False,
        tta: str = "",
        format: str = "",
        opset: int = 0,
        allow_drop: bool = False,
        quiet: bool = False,
    ) -> ExportResult:
        """Write a smaller or more accurate network into the run, and a bundle that works without tlfast: a new folder, or a file that ends in .zip.

        `quantize="int8"` and `half=True` write networks with 8-bit weights and 16-bit floats, `tta="flip"` or `"crops"` one with test-time augmentation.
        They are evaluated first: a smaller one that loses more than one percentage point of accuracy, and test-time augmentation without a gain, are
        refused unless `allow_drop`. `format` is that of another runtime: "torchscript", "torch-export", "onnx-resized" (with `opset`) or
        "openvino"; its file is compared with the network. Raises TlfastError.
        """
        from ..commands.export import ExportRequest, export_run

        request = ExportRequest(quantize, half, tta, format, opset, check_text("to", to, 'run.export("bundle.zip")'), allow_drop)
        request.list_formats()
        with show_progress(quiet) as on_event:
            result = export_run(self._record, request, on_event)
        self._record = records.read_run(self.folder)
        return result

    @with_keywords_in_messages
    def push(self, repository: str, *, private: bool = False, pickle: bool = False, quiet: bool = False) -> PushResult:
        """Upload the run to a repository of the Hugging Face hub, `user/name`: networks, metrics and a model card, without local paths.

        The token is that of HF_TOKEN or of `hf auth login`. With `pickle` the fastai learner is uploaded too, which executes code when it is loaded.
        `tlfast.load("hf://user/name")` opens the classifier. Raises TlfastError.
        """
        from ..commands.push import push_run

        with show_progress(quiet) as on_event:
            return push_run(self._record, check_text("repository", repository, 'run.push("me/weeds")'), private, pickle, on_event)

    # Use

    @cached_property
    @with_keywords_in_messages
    def classifier(self) -> Classifier:
        """The exported classifier, as `tlfast.load` opens it."""
        return load(self.folder, verify=False)  # verified when the run was opened

    @with_keywords_in_messages
    def predict(
        self, images: ImageSource | Iterable[ImageSource] | pd.DataFrame | pd.Series[Any], *, column: str = "path", quiet: bool = False
    ) -> Prediction | pd.DataFrame:
        """Classify images with calibrated probabilities.

        One image (a path, URL, bytes, PIL image or array) gives a `Prediction`. A list, a Series, a DataFrame with a column of paths, a folder, zip, CSV or
        parquet file, or a pattern such as `photos/*.jpg` gives a DataFrame with the columns of `tlfast predict --csv`: path, label, probability, error,
        `p(class)` for each class. It has the index of the Series or DataFrame. `column` is that of the paths in a DataFrame or a file. Raises TlfastError.
        """
        if isinstance(images, np.ndarray) and not images.ndim:
            images = images.item()
        if isinstance(images, pd.DataFrame):
            if column not in images.columns:
                found = ", ".join(map(str, images.columns)) or "none"
                raise UsageError(f"the DataFrame has no column '{column}'; it has: {found}", 'Name the column of paths: run.predict(frame, column="file")')
            if (count := list(images.columns).count(column)) > 1:
                raise UsageError(f"the DataFrame has {count} columns '{column}'", "Rename or remove the others")
            return self._predict_all(images[column].tolist(), quiet).set_axis(images.index)
        if isinstance(images, pd.Series):
            return self._predict_all(images.tolist(), quiet).set_axis(images.index)
        if isinstance(images, np.ndarray) and images.dtype.kind in "UO":  # of paths
            return self._predict_all(images.tolist(), quiet)
        if isinstance(images, str | os.PathLike) and has_many(os.fspath(images)):
            names, notes = list_images([os.fspath(images)], column)
            return self._predict_all(names, quiet, notes)
        if isinstance(images, str | bytes | bytearray | memoryview | os.PathLike) or hasattr(images, "__array_interface__"):
            return self.classifier.predict(images)  # type: ignore[arg-type]  # a DataFrame has no __array_interface__
        if not isinstance(images, Iterable) or isinstance(images, (io.IOBase, Mapping)) or hasattr(images, "detach"):  # files, dicts, tensors
            raise UsageError(f"{images!r:.80} is neither an image nor a list of images", 'Give a path, such as run.predict("photo.jpg"), or a list of paths')
        return self._predict_all(list(cast("Iterable[ImageSource]", images)), quiet)

    def _predict_all(self, images: Sequence[ImageSource], quiet: bool, notes: Sequence[str] = ()) -> pd.DataFrame:
        cells = []
        with show_progress(quiet) as on_event:
            for note in notes:
                on_event(Note("predicting", note))
            for done, row in enumerate(self.classifier.predict_iter(images), start=1):
                cells.append(row_cells(replace(row, path=replace_undecodable(row.path)), self.classes, missing=None))
                on_event(Progress("predicting", done, len(images)))
        return ImageFrame(cells, columns=column_names(self.classes))

    @with_keywords_in_messages
    def predict_to(
        self,
        out_dir: str | os.PathLike[str],
        images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        shards: int = 0,
        shard: str = "",
        column: str = "path",
        min_prob: float = 0.0,
        engine: str = "local",
        address: str = "",
        cpus: int = 1,
        quiet: bool = False,
    ) -> pd.DataFrame:
        """Write predictions to a folder in parts, and return the number of images of each label. Repeat the call to continue after an interruption.

        `images` are folders, zips, tars, patterns, tables or files. `shards` is the number of parts, by default one for each 10,000 images, and `shard` one of
        them, "17/256". With `engine="ray"` the parts are tasks of a Ray cluster, with `cpus` cores each; `address` is that of a running one.
        `pandas.read_parquet(out_dir)` reads all parts. Raises TlfastError.
        """
        from ..commands.predict_shards import ShardsRequest, predict_shards

        if isinstance(images, (bytes, Mapping, pd.DataFrame)) or not isinstance(images, (str, os.PathLike, Iterable)):
            raise UsageError(f"images of type {type(images).__name__} are not paths", 'Such as run.predict_to("answers", "photos"), or a list of paths')
        sources = [images] if isinstance(images, str | os.PathLike) else list(images)
        names = [check_text("images", source, 'run.predict_to("answers", "photos")') for source in sources]
        folder = check_text("out_dir", out_dir, 'out_dir="answers"')
        request = ShardsRequest(names, folder, column, shards, shard, min_prob, engine=engine, address=address, cpus=cpus)
        with show_progress(quiet) as on_event:
            result = predict_shards(*find_model(self.folder, verify=False), request, on_event)
        labels = {**result.labels, **({"": result.failed} if result.failed else {})}
        return pd.DataFrame({"label": list(labels), "images": list(labels.values())})

    @with_keywords_in_messages
    def serve(self, port: int = 8000, *, host: str = "127.0.0.1", token: str = "") -> None:
        """Serve the classifier, a web page and a REST API, until Ctrl-C or an interruption of the cell. `token` is a required bearer token."""
        check_text("host", host, 'run.serve(host="0.0.0.0")')
        check_text("token", token, 'run.serve(token="WORD")')
        if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65_535:
            raise UsageError(f"port={port!r} is not a port", "Give a number from 0, any free port, to 65535")
        from ..inference.host_check import allow_hosts
        from ..inference.server import Service, serve

        serve(Service(self.classifier, token, hosts=allow_hosts(host)), host, port)

    @with_keywords_in_messages
    @one_at_a_time
    def learner(self, *, data: str = "", device: str = "auto", quiet: bool = False) -> Learner:
        """Return a fastai Learner with the run's weights and images, to go on from: `fine_tune`, `lr_find`, `show_results`, callbacks.

        All layers are trainable; `learn.freeze()` freezes the backbone. `Run.from_learner` makes a run of it again. Raises TlfastError.
        """
        from ..commands.learner import open_run_learner

        with show_progress(quiet) as on_event:
            return open_run_learner(self._record, check_text("data", data, DATA), device, on_event)

    @classmethod
    @with_keywords_in_messages
    @one_at_a_time
    @keep_random_states
    def from_learner(cls, learn: Learner, data: Dataset | DataSource | None = None, *, name: str = "", quiet: bool = False) -> Run:
        """Evaluate a Learner of `tlfast.learner` or `run.learner` on the valid split, and export it as a run with its present weights.

        `data` are the images, a dataset or what `tlfast.dataset` accepts; by default those that the Learner was built with. Without a dataset, the settings
        of the split are those of the Learner; so is the folder of runs, unless a dataset names one. `name` is the name of the run. Raises UsageError for
        other Learners, or TlfastError.
        """
        from ..commands.learner import publish_learner, settings_of
        from .datasets import open_source

        built = settings_of(learn)
        images = None if data is None else open_source(data, {"out": built.out})[0]
        task, settings = (None, None) if images is None else (images.task, images.resolve({"out": images.settings.get("out", built.out)}))
        if settings and isinstance(data, str | os.PathLike):
            settings = replace(built, data=settings.data)
        with show_progress(quiet) as on_event:
            folder = publish_learner(learn, task, settings, name, on_event)
        return cls(folder)

    @with_keywords_in_messages
    def cleaner(self, k: int = 48, *, split: str = "valid", labels: bool = False, quiet: bool = False) -> Cleaner:
        """Return a tool to relabel or drop images: the `k` largest losses, after all suspected wrong labels with `labels`.

        `labels` trains the run's backbone on five folds, at 192 px or more, which takes minutes. Images and their folder are not changed; `apply()`
        returns a new dataset. Raises TlfastError.
        """
        from .cleaner import Cleaner

        settings = self.settings
        network = {f.name: getattr(settings, f.name) for f in fields(ModelSettings)}
        suspected = self.dataset.check(labels=True, quiet=quiet, **network) if labels else None
        return Cleaner(self, self.top_losses(k, split), suspected)

    # Display

    def __repr__(self) -> str:
        accuracy, skipped = self.metrics["accuracy"], self.manifest["data"].get("unreadable", [])
        strategy = "fitted by hand" if self.manifest.get("by_hand") else self._record.strategy
        rest = f"; {len(skipped)} unreadable images were skipped" if skipped else ""
        return f"Run {self.id}: {strategy} {self.settings.arch}, accuracy {accuracy:.4f}, in {self.folder}{rest}"

    def _repr_html_(self) -> str:
        from ..evaluation.report.run_charts import draw_run_charts

        has_charts = "calibration" in self.metrics.details  # runs of early versions have none
        charts = "".join(map(str, draw_run_charts(self._record, self.metrics.details))) if has_charts else ""
        title = f"<b>{escape(self.id)}</b><p class='note'>{escape(repr(self))}</p>"
        return wrap_html(
            title, f'<div class="row">{self.metrics._repr_html_()}{self.confusion_matrix()._repr_html_()}</div>', f'<div class="row">{charts}</div>'
        )
