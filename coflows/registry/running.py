"""Runs a service: in this process until it is told to end, or beside the rest of a program."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import time
from collections import Counter
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn

from coflows.config import Settings, load_settings
from coflows.errors import ConfigurationError, RegistryError
from coflows.registry.listening import where_to_listen
from coflows.registry.loading import Loader, Passphrase, Setup, set_up
from coflows.registry.options import DEFAULT_URL, Options
from coflows.registry.patience import patience_with
from coflows.registry.service import Service
from coflows.registry.urls import check_url
from coflows.registry.web import make_app

logger = logging.getLogger(__name__)

MAX_LOG_BYTES = 10 * 2**20
KEEP_ALIVE_SECONDS = 5
POLL_SECONDS = 0.01


def run_service(
    loader: Loader = None,
    url: str = DEFAULT_URL,
    organization: str | None = None,
    connect: str | list[str] | None = None,
    registry: bool = True,
    feed: bool = True,
    cache_data: str | Path | None = None,
    cache_reset: bool = False,
    screen_level: str = "INFO",
    log_file: str | Path | None = None,
    log_file_level: str = "DEBUG",
    exec_data: str | Path | None = None,
    timeout: float = 30,
    retry: int = 9,
    passphrase: Passphrase = None,
    **more: Any,
) -> None:
    """Run a node (``registry=False, feed=False``), registry or provider (``feed=False``) until SIGINT or SIGTERM.

    ``loader``: a YAML file, "module:callable", a callable or mapping that gives the same, "store:USER" or a Client for
    what a user serves. ``connect``: URLs of registries. ``cache_data``: the file that it remembers in, of its own;
    ``cache_reset`` begins anew. ``exec_data``: the folder for that and the log where they are not named, by default in
    COFLOWS_HOME. ``timeout``: seconds for a request to another service; ``retry``: how often one that fails is tried
    again, -1 for ever. ``passphrase``: that of its user's keys, or what gives it for his name, by default
    COFLOWS_PASSPHRASE. ``more``: the other Options. Raises ConfigurationError and what reading the loader raises.
    """
    said = {
        "url": url,
        "organization": organization,
        "connect": connect,
        "registry": registry,
        "feed": feed,
        "cache_data": cache_data,
        "cache_reset": cache_reset,
        "screen_level": screen_level,
        "log_file": log_file,
        "log_file_level": log_file_level,
        "exec_data": exec_data,
        "timeout": timeout,
        "retry": retry,
        "passphrase": passphrase,
        **more,
    }
    with _Hosted(loader, said) as hosted:
        hosted.log_to_screen_and_file()
        here = threading.current_thread() is threading.main_thread()
        # The web server shuts down by itself, and then passes the signal on to whoever had it before.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler) if here else None
        try:
            hosted.start()
            hosted.serve()
        except KeyboardInterrupt:
            pass
        finally:
            if here:
                signal.signal(signal.SIGTERM, before)
        logger.info("%s: shutdown now.", hosted.options.url)


class RunningService:
    """A service beside the rest of this program; a context manager. ``url`` is the one that it is known by."""

    def __init__(self, loader: Loader, said: dict[str, Any]) -> None:
        self._hosted = _Hosted(loader, said)
        try:
            self._hosted.start()
        except BaseException:
            self._hosted.close()
            raise
        self._thread = threading.Thread(target=self._hosted.serve, name="coflows-http", daemon=True)
        self._thread.start()
        while not self._hosted.ready:
            if not self._thread.is_alive():
                self._hosted.close()
                raise RegistryError(f"The service {self.url} did not start.", hint="The log says why.")
            self._thread.join(POLL_SECONDS)

    @property
    def service(self) -> Service:
        """What is served."""
        return self._hosted.service

    @property
    def url(self) -> str:
        """By which others know it."""
        return self.service.url

    @property
    def user_id(self) -> str:
        """Who signs what it says."""
        return self.service.identity.user_id

    def wait_idle(self, timeout: float) -> None:
        """Wait until every connection is in step, or was given up; raises RegistryError when it is not in time."""
        deadline = time.monotonic() + timeout
        while not self.service.idle:
            if time.monotonic() > deadline:
                raise RegistryError(f"{self.url} is not in step within {timeout} s: {self.service.connections()}.")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End it. Idempotent."""
        self._hosted.stop()
        self._thread.join()
        self._hosted.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_service(loader: Loader = None, **said: Any) -> RunningService:
    """Like ``run_service``, but returns once it answers; logging is left to the program."""
    return RunningService(loader, said)


class _Hosted:
    """A service and its web server, on a socket that is bound before anything else is done."""

    def __init__(self, loader: Loader, said: dict[str, Any]) -> None:
        settings, said = load_settings(), dict(said)
        setup = set_up(loader, said, settings, said.pop("passphrase", None))
        self._opened, self._doubt = setup.opened, setup.doubt
        try:
            host, port, tls = where_to_listen(setup.options)
            self._socket, self.options = _bound(setup.options, host, port)
            try:
                self.service = self._made(setup, settings)
            except BaseException:
                self._socket.close()
                raise
        except BaseException:
            self.close()
            raise
        config = uvicorn.Config(
            make_app(self.service),
            http=patience_with(Counter(), self.options.max_connections_per_client, self.options.listen is not None),
            log_config=None,
            access_log=False,
            lifespan="off",
            limit_concurrency=self.options.max_connections,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=5,
            proxy_headers=False,
            server_header=False,
            ssl_certfile=tls and tls[0],
            ssl_keyfile=tls and tls[1],
        )
        self._server = uvicorn.Server(config)

    def _made(self, setup: Setup, settings: Settings) -> Service:
        folder = Path(self.options.exec_data) if self.options.exec_data else settings.home / "services"
        place = check_url(self.options.url)
        name = f"{place.host}-{place.port}".replace(":", "_")
        self._log_file = Path(self.options.log_file or folder / f"{name}.log")
        cache = Path(self.options.cache_data) if self.options.cache_data else folder / f"{name}.db"
        return Service(self.options, setup.identity, setup.source, cache)

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return bool(self._server.started)

    def start(self) -> None:
        """Begin; who connects now is answered once ``serve`` runs."""
        self.service.start()
        logger.info("%s: %s startup complete.", self.options.url, self.options.role)
        if self._doubt is not None:
            logger.warning("%s", self._doubt)

    def serve(self) -> None:
        """Until it is stopped, or, in the main thread, by a signal."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Let ``serve`` return."""
        self._server.should_exit = True

    def close(self) -> None:
        """Let go of everything."""
        service = getattr(self, "service", None)
        if service is not None:
            service.close()
            self._socket.close()
        if self._opened is not None:
            self._opened.close()

    def log_to_screen_and_file(self) -> None:
        """As the options say."""
        for level in (self.options.screen_level, self.options.log_file_level):
            if level.upper() not in logging.getLevelNamesMapping():
                raise ConfigurationError(f"{level!r} is no level.", hint="One is DEBUG, INFO, WARNING or ERROR.")
        logger = logging.getLogger("coflows")
        logger.setLevel(logging.DEBUG)
        form = logging.Formatter("%(levelname)-8s %(asctime)s %(message)s")
        try:
            self._log_file.parent.mkdir(parents=True, exist_ok=True)
            to_file = RotatingFileHandler(self._log_file, maxBytes=MAX_LOG_BYTES, backupCount=3, encoding="utf-8")
            pairs = (
                (logging.StreamHandler(sys.stderr), self.options.screen_level),
                (to_file, self.options.log_file_level),
            )
            for handler, level in pairs:
                handler.setLevel(level.upper())
                handler.setFormatter(form)
                logger.addHandler(handler)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"Cannot log to {self._log_file}: {error}.", hint="Give log_file=FILE.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _bound(options: Options, host: str, port: int) -> tuple[socket.socket, Options]:
    """A socket where the service listens, and the options with the port that it is."""
    place = check_url(options.url)
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # With its protocol, or asyncio would not send what is small at once.
        bound = socket.socket(*info[:3])
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(info[4])
            bound.listen(512)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen at {host}:{port}: {error.strerror or error}.",
            hint="Is another service there? Give --url (url=...) another port, or --listen HOST:PORT behind a proxy.",
        ) from error
    if place.port:
        return bound, options
    number = bound.getsockname()[1]
    url = options.url.replace(":0", f":{number}", 1)
    return bound, options.model_copy(update={"url": url})
