"""``coflows broker``: an account from the command line, whose password is shown once or written for one reader."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from coflows.broker.rabbitmq import RabbitMQBroker
from coflows.broker.rabbitmq_admin import RabbitAdmin
from coflows.broker.topology import ACCOUNTS, dead_letter_queue, door_queue
from coflows.cli.app import run
from coflows.errors import BrokerAuthError
from tests.services.rabbitmq import RabbitMQ

pytestmark = pytest.mark.rabbitmq
Run = Callable[..., "Said"]


class Said(NamedTuple):
    out: str
    err: str


@pytest.fixture(autouse=True)
def no_accounts_stay(rabbitmq_node: RabbitMQ) -> Iterator[None]:
    yield
    with RabbitAdmin(rabbitmq_node.admin_url()) as admin:
        admin.delete("exchanges", "/", ACCOUNTS)


@pytest.fixture
def coflows(
    rabbitmq_node: RabbitMQ, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    monkeypatch.setenv("COFLOWS_BROKER_ADMIN_URL", rabbitmq_node.admin_url())

    def command(*words: str, code: int = 0) -> Said:
        with pytest.raises(SystemExit) as ended:
            run([*words, "--json"])
        said = Said(*capsys.readouterr())
        assert ended.value.code == code, said.err
        return said

    monkeypatch.setattr(sys, "argv", ["coflows"])
    return command


def test_an_account_is_added_rotated_and_removed(coflows: Run, tmp_path: Path) -> None:
    user_id = json.loads(coflows("user", "create", "alice").out)["user_id"]
    url = json.loads(coflows("broker", "add-user", "alice").out)["broker_url"]
    with RabbitMQBroker(url) as broker:
        broker.declare(dead_letter_queue(user_id), door_queue(user_id))
        broker.publish(door_queue(user_id).name, b"x")
    file = tmp_path / "url"
    shown = coflows("broker", "rotate", "alice", "--file", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    new = file.read_text().strip()
    assert new != url and new.split("@")[1] == url.split("@")[1]
    assert str(urlsplit(new).password) not in shown.out + shown.err
    with pytest.raises(BrokerAuthError):
        RabbitMQBroker(url)
    RabbitMQBroker(new).close()
    coflows("broker", "remove-user", user_id, "--with-queues")
    with pytest.raises(BrokerAuthError):
        RabbitMQBroker(new)
    assert "account_not_found" in coflows("broker", "remove-user", user_id, code=7).err


def test_what_cannot_be_done_is_told_without_passwords(coflows: Run, rabbitmq_node: RabbitMQ, tmp_path: Path) -> None:
    coflows("user", "create", "alice")
    add = ("broker", "add-user", "alice")
    wrong = rabbitmq_node.admin_url().replace(":guest@", ":sesame@")
    refused = coflows(*add, "--broker-admin-url", wrong, code=4)
    assert "does not let user 'guest'" in refused.err and "sesame" not in refused.err
    away = coflows(*add, "--broker-admin-url", "http://guest:sesame@localhost:1", code=4)
    assert "http://localhost:1" in away.err and "sesame" not in away.err
    coflows("broker", "add-user", ".*", code=2)
    coflows(*add, "--file", str(tmp_path / "none" / "file"), code=2)
    assert "no account" in coflows("broker", "rotate", "alice", code=7).err
    assert list(tmp_path.glob("tmp*")) == []


def test_without_a_management_url_the_setting_is_named(coflows: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    coflows("user", "create", "alice")
    monkeypatch.delenv("COFLOWS_BROKER_ADMIN_URL")
    assert "COFLOWS_BROKER_ADMIN_URL" in coflows("broker", "rotate", "alice", code=2).err
