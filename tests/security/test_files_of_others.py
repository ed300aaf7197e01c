"""What other users of the same machine prepare, for files to be made where they can change them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from coflows.broker.embedded import EmbeddedBroker
from coflows.doorbell import Doorbell
from coflows.errors import BrokerUnavailableError, StoreUnavailableError
from coflows.store.sqlite import SqliteStore

SOMEBODY, ELSE = 54321, 12345


def of_somebody_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is another user's, as this process sees it."""
    if os.geteuid() == 0:
        os.chown(path, ELSE, ELSE, follow_symlinks=False)
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)


def opened_by_all(path: Path, _monkeypatch: pytest.MonkeyPatch) -> None:
    path.chmod(0o777)


@pytest.fixture(params=[of_somebody_else, opened_by_all], ids=["of another user", "open to everybody"])
def prepare(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    return lambda path: request.param(path, monkeypatch)


def test_a_store_in_a_folder_that_somebody_else_can_change(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    """He could write states into it, which are code."""
    folder = tmp_path / "prepared"
    folder.mkdir(0o700)
    prepare(folder)
    with pytest.raises(StoreUnavailableError, match="not safe"):
        SqliteStore(folder / "store.db", namespace="somebody").close()


def test_a_store_that_somebody_else_has_made(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    tmp_path.chmod(0o1777)
    file = tmp_path / "store.db"
    file.touch(0o600)
    prepare(file)
    with pytest.raises(StoreUnavailableError, match="not safe"):
        SqliteStore(file, namespace="somebody").close()


def test_a_broker_in_a_folder_that_somebody_else_can_change(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    folder = tmp_path / "prepared"
    folder.mkdir(0o700)
    prepare(folder)
    with pytest.raises(BrokerUnavailableError, match=r"belongs to another user|everybody may write"):
        EmbeddedBroker(folder).close()


def test_a_link_to_the_bells_that_somebody_else_has_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leads where it should, for now."""
    folder = tmp_path / ("long" * 30)
    with TemporaryDirectory(prefix="c") as short:
        monkeypatch.setattr("tempfile.tempdir", short)
        Doorbell(folder).close()
        (link,) = Path(short).iterdir()
        of_somebody_else(link, monkeypatch)
        with pytest.raises(OSError, match="not the link"):
            Doorbell(folder).close()
