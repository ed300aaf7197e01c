"""Bad input gets a typed error that says what, where and what to do next; and nothing is lost or left behind."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coflows import Client, connect, start_users
from coflows.broker import open_broker
from coflows.errors import (
    BrokerAuthError,
    BrokerUnavailableError,
    CoflowsError,
    ConfigurationError,
    FlowClassError,
    FlowConfigError,
    NameInvalidError,
    QueueMismatchError,
    StoreError,
    StoreLockedError,
    StoreUnavailableError,
    UnknownUserError,
    UserNotFoundError,
)
from coflows.identity.keys import Identity
from coflows.serving import get_flow_instance, serve_flow
from coflows.store import open_store
from coflows.store.sqlite import SqliteStore

Users = Callable[..., list[Client]]
CLASSES = "tests.flow_classes"


@pytest.fixture
def cl(users: Users) -> Client:
    return users(1)[0]


def refused(kind: type[CoflowsError], code: str, *texts: str) -> Callable[[Callable[[], object]], None]:
    """Checks type, code and text of what a call raises."""

    def check(call: Callable[[], object]) -> None:
        with pytest.raises(kind) as caught:
            call()
        assert caught.value.code == code
        for text in texts:
            assert text in str(caught.value)
        assert caught.value.hint, "it says what to do next"

    return check


@pytest.mark.parametrize("name", ["a:b", "..", "a..b", "a\nb", "", "a\x00b", "x" * 65, "a/b", "*"])
def test_endpoint_names(cl: Client, name: str) -> None:
    refused(NameInvalidError, "name_invalid", "Endpoint name")(lambda: serve_flow(cl, "EchoFlowModule.EchoFlow", name))
    refused(NameInvalidError, "name_invalid", "Endpoint name")(lambda: get_flow_instance(cl, name))
    assert cl.read_keys("flows:") == []


@pytest.mark.parametrize("user_id", ["bob", "", "A" * 52, "a" * 51, "a" * 51 + "1", "#" * 52])
def test_malformed_user_ids(cl: Client, user_id: str) -> None:
    refused(NameInvalidError, "name_invalid", "User id")(lambda: get_flow_instance(cl, "echo", user_id=user_id))


def test_a_user_id_that_is_no_key(cl: Client) -> None:
    refused(NameInvalidError, "name_invalid", "no public key")(lambda: get_flow_instance(cl, "echo", user_id="a" * 52))


def test_an_unknown_user(users: Users, broker_url: str) -> None:
    (cl,) = users(1, broker_url)
    stranger = Identity.generate().user_id
    refused(UnknownUserError, "unknown_user", stranger, "broker")(
        lambda: get_flow_instance(cl, "echo", user_id=stranger)
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("NoSuchModule.Flow", "NoSuchModule"),
        ("Flow", "Flow"),
        (f"{CLASSES}.Missing", "Missing"),
        (f"{CLASSES}.NoFlow", "NoFlow"),
    ],
)
def test_classes_that_are_no_flows(cl: Client, name: str, text: str) -> None:
    refused(FlowClassError, "flow_class", text)(lambda: serve_flow(cl, name, "flow"))
    assert cl.read_keys("flows:") == []


def test_a_class_that_does_not_import(cl: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_flow_module.py").write_text("import no_such_dependency_of_mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    refused(FlowClassError, "flow_class", "no_such_dependency_of_mine")(
        lambda: serve_flow(cl, "broken_flow_module.Flow", "flow")
    )


@pytest.mark.parametrize(("name", "texts"), [("Nameless", ["name"]), ("Unfinished", ["next", "user_id"])])
def test_configs_that_lack_something(cl: Client, name: str, texts: list[str]) -> None:
    refused(FlowConfigError, "flow_config", name, *texts)(lambda: serve_flow(cl, f"{CLASSES}.{name}", "flow"))


def test_yaml_that_does_not_parse(cl: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad_yaml_module.py").write_text(
        "from coflows import AtomicFlow\nclass Bad(AtomicFlow):\n    def run(self, input_message): ...\n"
    )
    (tmp_path / "Bad.yaml").write_text("name: Bad\ndescription: [unclosed\n")
    monkeypatch.syspath_prepend(tmp_path)
    refused(FlowConfigError, "flow_config", str(tmp_path / "Bad.yaml"), "3")(
        lambda: serve_flow(cl, "bad_yaml_module.Bad", "flow")
    )


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ({"_target_": "os.system"}, "_target_"),
        ({"a": {"_class_": "x"}}, "a._class_"),
        ({"a": {"b": "${oc.env:HOME}"}}, "a.b"),
    ],
)
def test_overrides_that_are_more_than_data(cl: Client, overrides: dict[str, object], key: str) -> None:
    serve_flow(cl, "EchoFlowModule.EchoFlow", "echo")
    refused(FlowConfigError, "flow_config", key)(lambda: get_flow_instance(cl, "echo", config_overrides=overrides))
    assert cl.read_keys("instance_metadata:") == []


def test_a_broker_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COFLOWS_CONNECT_TIMEOUT", "0.5")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    refused(BrokerUnavailableError, "broker_unavailable", f"amqp://guest@127.0.0.1:{port}/", "embedded://")(
        lambda: start_users(1, f"amqp://guest:geheim@127.0.0.1:{port}/")
    )


@pytest.mark.rabbitmq
def test_a_wrong_password_of_rabbitmq(amqp_url: str) -> None:
    url = amqp_url.replace(":guest@", ":geheim@")
    refused(BrokerAuthError, "broker_auth", "'guest'", "refuses")(lambda: open_broker(url))
    with pytest.raises(BrokerAuthError) as caught:
        open_broker(url)
    assert "geheim" not in str(caught.value)


@pytest.mark.rabbitmq
def test_a_queue_that_was_declared_otherwise(users: Users, amqp_url: str) -> None:
    from coflows.broker import QueueSpec
    from coflows.broker.topology import dispatch_queue

    (cl,) = users(1, amqp_url)
    name = dispatch_queue(cl.user_id, "coflows_dispatch", 0).name
    cl.declare(QueueSpec(name))
    refused(QueueMismatchError, "queue_mismatch", name, "delete_queue")(
        lambda: serve_flow(cl, "EchoFlowModule.EchoFlow", "echo")
    )


@pytest.mark.postgres
def test_a_wrong_password_of_postgres(postgres_url: str) -> None:
    url = postgres_url.replace("@", "wrong@")
    refused(StoreUnavailableError, "store_unavailable", "'coflows'", "password")(lambda: open_store(url, namespace="x"))


def test_urls_that_nobody_knows() -> None:
    refused(ConfigurationError, "configuration", "'kafka'", "amqp://")(lambda: open_broker("kafka://host"))
    refused(ConfigurationError, "configuration", "'redis'", "sqlite://")(
        lambda: open_store("redis://host", namespace="x")
    )


def test_a_locked_store(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db", namespace="x", busy_timeout=0.2)
    holder = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    refused(StoreLockedError, "store_locked", str(tmp_path / "s.db"))(lambda: store.commit({"a": b""}))
    holder.execute("ROLLBACK")
    store.commit({"a": b""})
    holder.close()
    store.close()


def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"not a database, but long enough to be looked at" * 100)
    refused(StoreError, "store", str(tmp_path / "s.db"))(lambda: SqliteStore(tmp_path / "s.db", namespace="x"))


def test_a_read_only_store(tmp_path: Path) -> None:
    """As an ordinary user: root may write everywhere."""
    SqliteStore(tmp_path / "s.db", namespace="x").close()
    for place in (*tmp_path.iterdir(), tmp_path):
        place.chmod(0o555 if place.is_dir() else 0o444)
    for parent in (tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    program = (
        "import os, sys, pathlib\n"
        "from coflows.errors import StoreReadOnlyError\n"
        "from coflows.store.sqlite import SqliteStore\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "try: SqliteStore(pathlib.Path(sys.argv[1]), namespace='x')\n"
        "except StoreReadOnlyError as error: print(error.code, error)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "s.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.startswith("store_read_only") and "read-only" in done.stdout, done.stderr
    tmp_path.chmod(0o755)


def test_a_user_without_keys(home: Path) -> None:
    refused(UserNotFoundError, "user_not_found", "'alice'", "coflows user create alice")(lambda: connect("alice"))


def test_settings_that_are_no_settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COFLOWS_MAX_MESSAGE_BYTES", "many")
    with pytest.raises(ConfigurationError, match="COFLOWS_MAX_MESSAGE_BYTES"):
        start_users(1)
    assert os.environ["COFLOWS_MAX_MESSAGE_BYTES"] == "many"
