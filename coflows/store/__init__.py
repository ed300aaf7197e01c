"""Stores: one user's ordered keys. ``open_store`` picks the adapter by the URL's scheme."""

from __future__ import annotations

from pathlib import Path

from coflows.errors import ConfigurationError
from coflows.store.base import ABSENT, Entry, Store, Watch

__all__ = ["ABSENT", "Entry", "Store", "Watch", "open_store"]


def scheme_of(url: str) -> str:
    """What a mistyped URL begins with, as it may be shown: its rest may be a password."""
    scheme, mark, _ = url.partition(":")
    return repr(scheme[:12]) if mark else "no scheme"


def open_store(url: str, *, namespace: str, default_path: Path | None = None) -> Store:
    """Open the store at ``url`` for one user: ``sqlite://`` (at ``default_path``), ``sqlite:///file`` (four slashes for
    an absolute path) or ``postgresql://...``. Raises ConfigurationError or a StoreError."""
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        from coflows.store.sqlite import SqliteStore

        path = Path(rest[1:]) if rest.startswith("/") and len(rest) > 1 else default_path
        if path is None or (rest and not rest.startswith("/")):
            raise ConfigurationError("The store URL names no file.", hint="Write sqlite:///file.db.")
        return SqliteStore(path, namespace=namespace)
    if scheme in ("postgresql", "postgres"):
        try:
            from coflows.store.postgres import PostgresStore
        except ImportError as error:
            raise ConfigurationError(
                "The PostgreSQL store needs psycopg.", hint="Run: pip install 'coflows[postgres]'"
            ) from error
        return PostgresStore(url, namespace=namespace)
    raise ConfigurationError(
        f"The store URL begins with {scheme_of(url)}, which is none.",
        hint="Use sqlite://, sqlite:///file.db or postgresql://...",
    )
