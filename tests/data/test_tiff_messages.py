"""The handler of libtiff's messages, where the library is elsewhere than expected."""

from __future__ import annotations

import pytest

from tlfast.data import tiff_messages


@pytest.mark.parametrize("path", ["/home/a b/pillow.libs/libtiff-1.so", "/usr/lib/libtiff.so.6 (deleted)"])
def test_a_library_that_cannot_be_loaded_is_no_error(path, tmp_path, monkeypatch):
    mapped, opened = tmp_path / "maps", []
    mapped.write_text(f"7f00-7f01 r-xp 00000000 08:01 1234                       {path}\n")

    def load(name):
        opened.append(name)
        raise OSError("cannot open shared object file")

    monkeypatch.setattr(tiff_messages, "MAPPED", mapped)
    monkeypatch.setattr(tiff_messages.ctypes, "CDLL", load)
    assert tiff_messages._make_handler.__wrapped__() == (None, None)
    assert opened == [path]
