"""Keys on disk: private, made once, and never half written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coflows.connecting import which_user
from coflows.errors import IdentityError, NameInvalidError, UserExistsError, UserNotFoundError
from coflows.identity.home import Home


def test_create_load_and_list(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    created = home.create_user("alice")
    assert home.load_user("alice").user_id == created.user_id
    assert home.list_users() == [("alice", created.user_id)]
    key = tmp_path / "home" / "users" / "alice" / "key"
    assert key.stat().st_mode & 0o777 == 0o600 and key.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in key.parent.iterdir()] == ["key"]


def test_of_many_who_create_one_name_one_wins(tmp_path: Path) -> None:
    def create(_number: int) -> str | None:
        try:
            return Home(tmp_path).create_user("alice").user_id
        except UserExistsError:
            return None

    with ThreadPoolExecutor(16) as pool:
        made = [user_id for user_id in pool.map(create, range(16)) if user_id]
    assert made == [Home(tmp_path).load_user("alice").user_id]


def test_what_is_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    home.create_user("alice")
    with pytest.raises(UserNotFoundError, match=r"known: alice.*user create bob"):
        home.load_user("bob")
    with pytest.raises(NameInvalidError):
        home.create_user("../alice")
    key = tmp_path / "users" / "alice" / "key"
    key.chmod(0o640)
    with pytest.raises(IdentityError, match="chmod 600"):
        home.load_user("alice")
    monkeypatch.setenv("COFLOWS_HOME", str(tmp_path))
    monkeypatch.delenv("COFLOWS_USER", raising=False)
    assert which_user() == "alice" and home.list_users() == [], "the only user is not passed over"
    key.chmod(0o600)
    key.write_text("{")
    with pytest.raises(IdentityError, match="damaged"):
        home.load_user("alice")
