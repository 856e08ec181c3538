"""Trackio: a local database, or a Space of Hugging Face."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from .base import PICTURES, RunInfo, Status


class Trackio:
    """Writes config, figures, pictures and artifacts."""

    name: ClassVar[str] = "trackio"
    title: ClassVar[str] = "Trackio"
    package: ClassVar[str] = "trackio"
    install: ClassVar[str] = 'pip install "tlfast[trackio]"'
    place: ClassVar[str] = "`TRACKIO_DIR`, by default `~/.cache/huggingface/trackio`, or a Space with `TRACKIO_SPACE_ID`; `TRACKIO_PROJECT`"
    logs_load: ClassVar[bool] = False

    def start(self, run_id: str, config: RunInfo) -> None:
        import trackio

        self.run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT") or config.project,
            name=run_id,
            group=config.group or None,
            config=dict(config.values),
            resume="allow" if config.resumed else "never",
            embed=False,
            auto_log_cpu=False,  # that of this process
        )
        self.run_id, self.step = run_id, 0

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.step = step
        self.run.log(dict(values), step=step)

    def file(self, path: Path) -> None:
        import trackio

        if path.suffix in PICTURES:
            self.run.log({path.stem: trackio.Image(str(path))}, step=self.step)
        else:
            self.run.log_artifact(str(path), name=f"{self.run_id}-{path.name}")

    def end(self, status: Status) -> None:
        self.run.log({"status": status}, step=self.step)
        self.run.finish()


TRACKER = Trackio
