"""TensorBoard: event files that `tensorboard --logdir exports` shows, also while the training runs.

torch's SummaryWriter is not used, because it imports torch into the process of the tracker.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from ...core.setting_checks import TENSORBOARD
from .base import PICTURES, RunInfo, Status

TEXTS = (".json", ".md")  # suffixes of files that are shown as text
MAX_TEXT_BYTES = 100_000  # bytes


class TensorBoard:
    """Writes scalars, settings, pictures and short texts. It has no place for other files."""

    name: ClassVar[str] = "tensorboard"
    title: ClassVar[str] = "TensorBoard"
    package: ClassVar[str] = "tensorboard"
    install: ClassVar[str] = 'pip install "tlfast[tensorboard]"'
    place: ClassVar[str] = "`exports/<task>/tensorboard/<run id>/`, below `--out`"
    logs_load: ClassVar[bool] = False

    def start(self, run_id: str, config: RunInfo) -> None:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        names = [re.sub(r"[^\w.+-]+", "-", name) for name in (config.group, run_id) if name]
        self.step = 0
        self.writer = EventFileWriter(str(Path(config.out, config.task, TENSORBOARD, *names)))
        if config.resumed:
            return  # the settings are in the file of the first start
        settings = config.flat()
        self._write(hparams_pb({name: value for name, value in settings.items() if name.startswith("settings.")}, trial_id=config.key))
        rows = "\n".join(f"| {name} | {str(value).replace('|', '/')} |" for name, value in settings.items())
        self._write_text("config", f"| name | value |\n| --- | --- |\n{rows}")

    def log(self, values: Mapping[str, float], step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self.step = step
        self._write(Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()]))

    def file(self, path: Path) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        if path.suffix in PICTURES:
            with Image.open(path) as image:
                width, height = image.size
            picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes())
            self._write(Summary(value=[Summary.Value(tag=path.stem, image=picture)]))
        elif path.suffix in TEXTS and path.stat().st_size <= MAX_TEXT_BYTES:
            text = path.read_text(encoding="utf-8", errors="replace")
            self._write_text(path.name, text if path.suffix == ".md" else f"```json\n{text}\n```")

    def end(self, status: Status) -> None:
        self._write_text("status", status)
        self.writer.close()

    def _write_text(self, name: str, text: str) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()])
        self._write(Summary(value=[Summary.Value(tag=name, metadata=metadata, tensor=tensor)]))

    def _write(self, summary: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self.writer.add_event(Event(wall_time=time.time(), step=self.step, summary=summary))
        self.writer.flush()  # for a TensorBoard that shows the running training


TRACKER = TensorBoard
