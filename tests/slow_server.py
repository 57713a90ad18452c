"""An HTTP server on this machine that serves a folder slowly, continues where a client stopped, and counts what it sent."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_PIECE_BYTES = 1 << 14
_PAUSE_SECONDS = 0.003


class SlowServer(ThreadingHTTPServer):
    """Serves the files of ``folder``; ``starts`` has the first byte of each answer, ``sent`` the bytes of all of them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.starts: list[int] = []
        self.sent = 0

    @property
    def url(self) -> str:
        """Of the folder."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: SlowServer

    def do_GET(self) -> None:
        path = self.server.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        body = path.read_bytes()
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(wanted.group(1)) if wanted else 0
        if start >= len(body):
            self.send_error(416)
            return
        self.server.starts.append(start)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client was killed
            for first in range(start, len(body), _PIECE_BYTES):
                piece = body[first : first + _PIECE_BYTES]
                self.wfile.write(piece)
                self.server.sent += len(piece)
                time.sleep(_PAUSE_SECONDS)

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[SlowServer]:
    """Serve ``folder`` until the end of the block."""
    server = SlowServer(folder)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
