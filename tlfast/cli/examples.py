"""Two examples of each command: the end of its `--help`, and its entry in docs/reference/commands.md. A test runs them all.

`photos` is a folder of labelled images, `digits` a task that needs no download.
"""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, str]] = {
    "train": ("tlfast train digits", "tlfast train photos --depth 2 --epochs 6"),
    "lr-find": ("tlfast lr-find digits", "tlfast lr-find photos --full"),
    "archs": ("tlfast archs", "tlfast archs 'mobilenetv3*'"),
    "compare": ("tlfast compare digits --arms partial,full", "tlfast compare photos --arms partial,2"),
    "interpret": ("tlfast interpret digits", "tlfast interpret digits --k 24"),
    "evaluate": ("tlfast evaluate digits", "tlfast evaluate digits --json"),
    "report": ("tlfast report digits", "tlfast report exports/digits --device cpu"),
    "predict": ("tlfast predict digits photo.png --top 3", "tlfast predict digits photos --min-prob 0.6 --csv answers.csv"),
    "export": ("tlfast export digits --quantize int8", "tlfast export digits --to digits.zip"),
    "serve": ("tlfast serve digits", "tlfast serve digits --host 0.0.0.0 --port 8080 --token WORD"),
    "push": ("tlfast push digits me/digits", "tlfast push digits me/private-digits --private"),
    "pull": ("tlfast pull me/digits", "tlfast pull hf://me/digits@main --out others"),
    "data import": ("tlfast data import fer fer2013.csv", "tlfast data import fer fer2013.zip"),
    "data get": ("tlfast data get weeds", "tlfast data get weeds --from https://example.org/weeds.zip"),
    "data check": ("tlfast data check photos", "tlfast data check digits --drop duplicates,unreadable"),
    "tasks": ("tlfast tasks", "tlfast tasks --json"),
    "runs": ("tlfast runs", "tlfast runs digits"),
    "cache list": ("tlfast cache list", "tlfast cache list --json"),
    "cache clear": ("tlfast cache clear", "tlfast cache clear --kind stores --days 30"),
    "doctor": ("tlfast doctor", "tlfast doctor --bench"),
}


def format_examples(name: str) -> str:
    """Return the end of the help of a command. Typer prints paragraphs as lines, and reads square brackets as markup."""
    return "\n\n".join(["[bold]Examples[/bold]", *(line.replace("[", r"\[") for line in EXAMPLES[name])])
