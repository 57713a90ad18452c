"""The members of a JSON file one at a time: MPtrj's single object of 12 GB would not fit into memory as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any

_CHUNK_CHARACTERS = 1 << 20
_AFTER_A_VALUE = tuple(",:]} \t\r\n")
_CLOSING = {"[": "]", "{": "}"}


def members(stream: IO[str]) -> Iterator[tuple[str | None, Any]]:
    """Each member of the list or object that ``stream`` holds, with its key in an object and None in a list.

    Raises:
        json.JSONDecodeError: where the text is not JSON, or ends before the list or object does.
    """
    text = _Text(stream)
    closing = _CLOSING[text.take("[{")]
    if text.peek() == closing:
        return
    separator = ","
    while separator == ",":
        key = None
        if closing == "}":
            key = str(text.value())
            text.take(":")
        yield key, text.value()
        separator = text.take("," + closing)


class _Text:
    """A window on a text that is read on as far as the next value reaches."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._window, self._at = stream, "", 0
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            while self._at < len(self._window) and self._window[self._at].isspace():
                self._at += 1
            if self._at < len(self._window) or not self._read_on():
                return self._window[self._at : self._at + 1]

    def take(self, wanted: str) -> str:
        """The next character, one of ``wanted``."""
        found = self.peek()
        if not found or found not in wanted:
            raise json.JSONDecodeError(f"one of {' '.join(wanted)} is wanted", self._window, self._at)
        self._at += 1
        return found

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._window, self._at)
            except json.JSONDecodeError:
                if not self._read_on():
                    raise
                continue
            # a number at the window's end may go on behind it
            if self._window[end : end + 1] in _AFTER_A_VALUE or not self._read_on():
                self._at = end
                return value

    def _read_on(self) -> bool:
        """Drop what was used and add as much as is left, so that a long value is not tried too often; False at the end."""
        self._window = self._window[self._at :]
        self._at = 0
        added = self._stream.read(max(_CHUNK_CHARACTERS, len(self._window)))
        self._window += added
        return bool(added)
