"""Opening sessions: of a user with keys in the home, or of throw-away users."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from coflows.broker import open_broker
from coflows.client import Client
from coflows.config import Settings, load_settings
from coflows.errors import ConfigurationError
from coflows.identity.home import Home
from coflows.identity.keys import Identity
from coflows.store import open_store


def connect(
    user: str | Identity,
    broker_url: str | None = None,
    store_url: str | None = None,
    registries: Sequence[str] | None = None,
    trusted: Sequence[str] | None = None,
    passphrase: str | None = None,
) -> Client:
    """Open a session of ``user``: a name made by ``coflows user create``, or an Identity.

    URLs default to COFLOWS_BROKER_URL and COFLOWS_STORE_URL, and these to the embedded broker and store under
    COFLOWS_HOME. ``registries`` are the URLs of those he trusts to say who serves a flow, by default
    COFLOWS_REGISTRIES; ``trusted`` the ids of users whose flows a name means before those of others, by default
    COFLOWS_TRUSTED; ``passphrase`` is that of his keys, by default COFLOWS_PASSPHRASE. Raises UserNotFoundError,
    PassphraseError, ConfigurationError, or the store's and the broker's errors.
    """
    cl = open_client(user, broker_url, store_url, registries, trusted, passphrase)
    try:
        _ = cl.broker
    except BaseException:
        cl.close()
        raise
    return cl


def which_user(name: str | None = None) -> str:
    """The user to act as: ``name``, COFLOWS_USER, or the only one in the home. Raises ConfigurationError."""
    settings = load_settings()
    if name or settings.user:
        return name or str(settings.user)
    known = Home(settings.home).user_names()  # One whose keys cannot be read is told so, not passed over.
    if len(known) == 1:
        return known[0]
    raise ConfigurationError(
        f"Which user? There {'are ' + ', '.join(known) if known else 'is none'} in {settings.home}.",
        hint="Give --as NAME or set COFLOWS_USER." if known else "Run: coflows user create NAME",
    )


def open_client(
    user: str | Identity,
    broker_url: str | None = None,
    store_url: str | None = None,
    registries: Sequence[str] | None = None,
    trusted: Sequence[str] | None = None,
    passphrase: str | None = None,
) -> Client:
    """Like ``connect``, but the broker is reached only when it is first needed."""
    settings = _settings(registries, trusted)
    home = Home(settings.home)
    if isinstance(user, Identity):
        identity, folder = user, settings.home / "guests" / user.user_id[:16]
    else:
        identity, folder = home.load_user(user, passphrase or settings.passphrase), home.user_dir(user)
    store, broker = folder / "store.db", settings.home / "broker"
    return _client(identity, settings, broker_url, store_url, store=store, broker=broker)


def start_users(
    num_users: int = 2,
    broker_url: str | None = None,
    store_url: str | None = None,
    registries: Sequence[str] | None = None,
    trusted: Sequence[str] | None = None,
) -> list[Client]:
    """Make throw-away users that share a broker, for notebooks, demos and tests.

    Their keys live in memory; their embedded store and broker in a temporary folder that goes when the last of them
    closes; their queues on another broker are deleted when they close.
    """
    if num_users < 1:
        raise ConfigurationError(f"start_users makes at least one user, not {num_users}.")
    settings = _settings(registries, trusted)
    folder = _SharedFolder(num_users)
    with ExitStack() as undo:
        clients = []
        for number in range(num_users):
            exit_stack = ExitStack()
            exit_stack.callback(folder.leave)
            store, broker = folder.path / f"user{number}.db", folder.path / "broker"
            identity = Identity.generate()
            cl = _client(identity, settings, broker_url, store_url, store=store, broker=broker, exit_stack=exit_stack)
            undo.callback(cl.close)
            _ = cl.broker
            clients.append(cl)
        undo.pop_all()
    return clients


def _settings(registries: Sequence[str] | None, trusted: Sequence[str] | None) -> Settings:
    settings = load_settings()
    if registries is not None:
        settings = replace(settings, registries=_each(registries))
    return settings if trusted is None else replace(settings, trusted=_each(trusted))


def _each(given: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((given,) if isinstance(given, str) else given))


def _client(
    identity: Identity,
    settings: Settings,
    broker_url: str | None,
    store_url: str | None,
    *,
    store: Path,
    broker: Path,
    exit_stack: ExitStack | None = None,
) -> Client:
    url = broker_url or settings.broker_url
    return Client(
        identity,
        open_store(store_url or settings.store_url, namespace=identity.user_id, default_path=store),
        lambda: open_broker(
            url,
            connect_timeout=settings.connect_timeout,
            default_directory=broker,
            allow_plaintext=settings.allow_plaintext,
        ),
        replace(settings, broker_url=url),
        throwaway=exit_stack is not None,
        exit_stack=exit_stack,
    )


class _SharedFolder:
    """A temporary folder that is removed when all clients that share it are closed, or the process ends."""

    def __init__(self, users: int) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="coflows-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        self._users = users
        self._lock = threading.Lock()

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._remove()
