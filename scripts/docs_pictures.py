"""Draw the pictures of docs/images: plots, screenshots of pages in Chromium, and a terminal. Of the digits only.

python scripts/docs_pictures.py            # trains in a temporary folder
python scripts/docs_pictures.py FOLDER     # takes the newest run and comparison of digits in FOLDER/exports
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.text import Text

TARGET = Path(__file__).resolve().parents[1] / "docs" / "images"
COLUMNS, COLOURS = 92, 128
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
COMMANDS = (("train", "digits"), ("interpret", "digits"), ("report", "digits"), ("compare", "digits", "--depths", "--keep", "best"))
PROGRAM = (sys.executable, "-c", "import sys; sys.argv[0] = 'tlfast'; from tlfast.cli import main; main()")  # its name is shown in the help
IMAGES = ("data/digits/3/0003.png", "data/digits/8/0008.png")


def tlfast(folder: Path, *arguments: str) -> str:
    """Run a command in a folder; return what it prints, with its colours."""
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "FORCE_COLOR": "1", "TERMINAL_WIDTH": str(COLUMNS)}
    done = subprocess.run([*PROGRAM, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def copy_plots(folder: Path, run: Path) -> None:
    """Copy the plots of the run and of the newest comparison."""
    seconds = sorted((folder / "exports" / "digits" / "comparisons").glob("*/seconds.png"))[-1]
    plots = {"confusion_matrix": run / "plots" / "confusion_matrix.png", "calibration": run / "plots" / "calibration.png", "seconds": seconds}
    for name, source in plots.items():
        save(Image.open(source), f"{name}_digits.png")


def save(image: Image.Image, name: str) -> None:
    """Save a picture with few colours, which makes it small."""
    image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(TARGET / name, optimize=True)
    print(f"{name}: {(TARGET / name).stat().st_size / 1000:.0f} kB")


def photograph_pages(folder: Path, run: Path) -> None:
    """Save screenshots of the report and of the page of `tlfast serve` with two digits."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 1000})
        page.goto((run / "report.html").as_uri())
        photograph(page, "report_digits.png")
        with subprocess.Popen([*PROGRAM, "serve", "digits", "--port", "8017"], cwd=folder, stdout=subprocess.PIPE) as server:
            try:
                assert server.stdout
                server.stdout.readline()
                page.set_viewport_size({"width": 800, "height": 620})
                page.goto("http://127.0.0.1:8017")
                page.set_input_files("input[type=file]", [str(folder / name) for name in IMAGES])
                page.wait_for_load_state("networkidle")
                time.sleep(1)
                photograph(page, "serve_digits.png")
            finally:  # the end of the block waits for the server
                server.terminate()
        browser.close()


def photograph(page: Any, name: str) -> None:
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        page.screenshot(path=file.name)
        save(Image.open(file.name), name)


def draw_terminal(folder: Path) -> None:
    """Save two commands and their output as an SVG that loads no fonts from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for arguments in (["--help"], ["predict", "digits", *IMAGES, "--top", "3"]):
        console.print(Text(f"$ tlfast {' '.join(arguments)}", "bold"))
        console.print(Text.from_ansi(tlfast(folder, *arguments)))
    svg = console.export_svg(title="tlfast")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code,", "")
    (TARGET / "terminal.svg").write_text(svg, encoding="utf-8")
    print(f"terminal.svg: {len(svg) / 1000:.0f} kB")


def main(folder: Path) -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    if not (folder / "exports" / "digits").is_dir():
        for command in COMMANDS:
            tlfast(folder, *command)
    task = folder / "exports" / "digits"
    run = task / (task / "latest").read_text().strip()
    draw_terminal(folder)
    copy_plots(folder, run)
    photograph_pages(folder, run)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
