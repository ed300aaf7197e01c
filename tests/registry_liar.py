"""A service that answers whatever the test says, to see what it can do to those who ask it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class Liar:
    """A context manager. ``answer`` gives, for the method and path of a request and what came with it, what is answered
    as JSON; bytes, at once or one part
    after another, are sent as they are, headers and all. ``asked`` has what was asked."""

    def __init__(self, answer: Callable[[str, str, bytes], Any]) -> None:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                said = self.rfile.read(int(self.headers.get("content-length", 0)))
                asked.append(f"{self.command} {self.path}")
                told = answer(self.command, self.path, said)
                if isinstance(told, bytes | Iterator):
                    self.close_connection = True
                    with suppress(OSError):
                        for part in [told] if isinstance(told, bytes) else told:
                            self.wfile.write(part)
                    return
                content = json.dumps(told).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = handle_any

            def log_message(self, *_: Any) -> None:
                pass

        self.asked = asked
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
