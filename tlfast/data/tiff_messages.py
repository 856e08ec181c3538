"""Messages of libtiff as text. By default the library prints them on stderr, without the name of the file."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

MAX_MESSAGE_BYTES = 500  # bytes of a message
MAPPED = Path("/proc/self/maps")  # the libraries of this process, on Linux
HANDLERS = ("TIFFSetErrorHandler", "TIFFSetWarningHandler")

_threads = threading.local()


@contextmanager
def collect_messages() -> Iterator[list[str]]:
    """Yield a list that receives the messages of libtiff in this thread until the end of the block.

    The list stays empty, and the messages go to stderr, where the library cannot be found: with other systems than Linux.
    """
    library, handler = _make_handler()
    for name in HANDLERS if library else ():  # each time, because other code may have set its own
        getattr(library, name)(handler)
    messages: list[str] = []
    _threads.messages = messages
    try:
        yield messages
    finally:
        _threads.messages = None


@lru_cache(maxsize=1)
def _make_handler() -> tuple[Any, Any]:
    """Return libtiff and a handler of its messages; (None, None) if the library cannot be found."""
    from PIL import _imaging  # noqa: F401  # loads the library

    lines = os.fsdecode(MAPPED.read_bytes()).splitlines() if MAPPED.exists() else []
    found = [line.split(maxsplit=5)[5] for line in lines if "/libtiff" in line]  # the sixth field is the path, which can have blanks
    try:
        library, print_text = ctypes.CDLL(found[0]), ctypes.CDLL(None).vsnprintf
    except (IndexError, OSError):  # not loaded, or another file since an upgrade of Pillow
        return None, None
    print_text.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]

    @ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
    def handle(module: bytes, template: bytes, values: int) -> None:
        text = ctypes.create_string_buffer(MAX_MESSAGE_BYTES)
        print_text(text, MAX_MESSAGE_BYTES, template, values)
        message = text.value.decode(errors="replace")
        messages = getattr(_threads, "messages", None)
        if messages is None:  # an image that another program opens
            print(f"{(module or b'libtiff').decode(errors='replace')}: {message}", file=sys.stderr)
        else:
            messages.append(message)

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(handle))  # libtiff keeps its address until the end of the process
    return library, handle
