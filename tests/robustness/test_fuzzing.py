"""Any bytes at all: no reader raises anything but our errors."""

from __future__ import annotations

import json
import os
import zipfile
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.odd import CORPUS
from tests.helpers.tables import listed
from tlfast.core import runs
from tlfast.core.config_files import read_config, read_manifest, settings_to_repeat
from tlfast.core.errors import ImageError, TlfastError
from tlfast.core.run_files import MANIFEST
from tlfast.data import images
from tlfast.data.discovery import list_members

EXAMPLES = int(os.environ.get("TLFAST_FUZZ_EXAMPLES", 1000))  # other ones in each run
FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

SEEDS = {name: odd.make() for name, odd in CORPUS.items() if not odd.reason and len(odd.make()) < 8000}


@pytest.mark.slow
@FUZZ
@given(st.sampled_from(sorted(SEEDS)), st.lists(st.tuples(st.integers(0, 8000), st.integers(0, 255)), max_size=12), st.integers(0, 8000))
def test_no_other_error_leaves_the_decoder(name, changes, length):
    data = bytearray(SEEDS[name])
    for place, value in changes:
        data[place % len(data)] = value
    whole = bytes(data)
    for each in (whole, whole[: length % (len(whole) + 1)]):
        try:
            assert images.decode(each).mode == "RGB"
        except ImageError as error:
            assert error.message
        with suppress(ImageError):
            images.describe(each)


@FUZZ
@given(st.binary(max_size=400))
def test_no_other_error_leaves_the_decoder_of_bytes(data):
    try:
        images.decode(data)
    except ImageError as error:
        assert error.message


CELLS = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12)


@FUZZ
@given(st.one_of(st.binary(max_size=300), st.lists(st.lists(CELLS, max_size=4).map(",".join), max_size=6).map(lambda rows: "path,label\n" + "\n".join(rows))))
def test_no_other_error_leaves_the_reader_of_tables(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    try:
        listed(folder, content, "fuzz.csv")
    except TlfastError as error:
        assert error.message


KEYS = st.sampled_from(["settings", "task", "classes", "files", "data", "source", "mean", "exports", "x"])

LEAVES = st.none() | st.booleans() | st.floats() | st.text(max_size=8)

JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))


@FUZZ
@given(st.one_of(st.binary(max_size=200), JSON.map(lambda value: json.dumps(value).encode())))
def test_no_other_error_leaves_the_readers_of_manifests(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST).write_bytes(content)
    (folder / "settings.toml").write_bytes(content)
    manifest, config = str(folder / MANIFEST), str(folder / "settings.toml")
    for read in (lambda: runs.verify(runs.read_run(folder)), lambda: settings_to_repeat(read_manifest(manifest)), lambda: read_config(config)):
        try:
            read()
        except TlfastError as error:
            assert error.message


@FUZZ
@given(st.binary(max_size=400), st.integers(0, 600))
def test_no_other_error_leaves_the_reader_of_zips(tmp_path_factory, noise, place):
    folder = tmp_path_factory.getbasetemp()
    path = folder / "fuzz.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/1.png", SEEDS["one pixel.png"])
    data = bytearray(path.read_bytes())
    data[place % len(data) : place % len(data) + len(noise) // 8] = noise[: len(noise) // 8]
    path.unlink()
    path.write_bytes(data)
    images._keep_open.cache_clear()  # times of files can be equal within a few milliseconds
    try:
        for name in list_members(path):
            images.open_image(f"{path}!/{name}")
    except TlfastError as error:
        assert error.message
