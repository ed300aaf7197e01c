"""Looks up addresses of names, for no longer than somebody waits: what looks them up by itself knows no deadline."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateError

MAX_AT_ONCE = 64


class Resolver:
    """Thread-safe. Who is given up is looked up on in a thread that keeps nothing from ending; more than ``most`` of
    those are not begun."""

    def __init__(self, most: int = MAX_AT_ONCE) -> None:
        self._places = threading.Semaphore(most)

    def addresses(self, host: str, port: int, seconds: float) -> list[str]:
        """Those of a host, the preferred ones first. Raises OSError or UnicodeError, TimeoutError among them."""
        if not self._places.acquire(timeout=seconds):
            raise TimeoutError("too many names are being looked up")
        found: Future[list[str]] = Future()

        def look_up() -> None:
            try:
                infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                found.set_result([str(info[4][0]) for info in infos])
            except BaseException as error:  # For who waits, whatever it is.
                found.set_exception(error)
            finally:
                self._places.release()

        threading.Thread(target=look_up, name="coflows-resolve", daemon=True).start()
        try:
            return found.result(seconds)
        except LateError:
            raise TimeoutError(f"it is not found within {seconds:.0f} s") from None
