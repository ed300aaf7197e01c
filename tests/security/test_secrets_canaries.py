"""Canaries planted as secrets are found nowhere: files, databases, wire, logs, errors, registry, commands, reprs."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import psycopg
import pytest

from coflows import Client, connect
from coflows.broker.rabbitmq_server import RabbitServer
from coflows.cli.context import Options
from coflows.config import load_settings
from coflows.errors import CoflowsError, RemoteFlowError
from coflows.identity.home import Home
from coflows.identity.keys import Identity
from coflows.identity.passphrase import KDF
from coflows.redaction import Redactor
from coflows.registry import Registry, RunningService
from coflows.serving import get_flow_instance, serve_flow
from tests.security.canaries import Hunt, canary
from tests.security.leaky_flow import ENCODINGS
from tests.services.proxy import Proxy
from workers.process import ProcessOptions

ROOT = Path(__file__).parents[2]
RAISING = ("raise", "raise from", "raise group", "raise long")
KEEPING = ("state", "pickled state", "record", "reply", "key of a reply", "timer")


class World:
    """An owner whose worker is a process that logs everything, and a caller in this one; all canaries are planted."""

    def __init__(self, folder: Path, canaries: dict[str, str | bytes], environment: dict[str, str]) -> None:
        self.hunt = Hunt(canaries)
        self.log = folder / "worker.log"
        self.environment = environment
        command = [sys.executable, "-m", "coflows.cli", "-v", "--as", "owner", "worker", "all"]
        with self.log.open("wb") as log:
            self.worker = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.worker.stdout is not None
        self.ready = self.worker.stdout.readline()
        assert self.ready.startswith("Ready"), self.log.read_text()

    def command(self, *words: str) -> str:
        """What the command line says, as the owner."""
        command = [sys.executable, "-m", "coflows.cli", "-v", "--as", "owner", *words]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=60)
        return done.stdout + done.stderr

    def end(self) -> None:
        """What the worker has not written by now it writes."""
        self.worker.terminate()
        self.worker.wait(60)
        assert self.worker.stdout is not None
        self.worker.stdout.close()


@pytest.fixture
def world(
    request: pytest.FixtureRequest, home: Path, tmp_path: Path, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """On RabbitMQ with PostgreSQL (both with passwords, and the wire watched), and on what needs nothing."""
    for name in ("owner", "caller"):
        Home(home).create_user(name)
    passphrase, secret = canary("passphrase"), canary("secret")
    monkeypatch.setattr(KDF, "OPSLIMIT_MODERATE", KDF.OPSLIMIT_MIN)  # How long a guess takes is not tested here.
    monkeypatch.setattr(KDF, "MEMLIMIT_MODERATE", KDF.MEMLIMIT_MIN)
    Home(home).set_passphrase("owner", None, passphrase)
    owner = Home(home).load_user("owner", passphrase)
    canaries: dict[str, str | bytes] = {"passphrase": passphrase, "secret": secret, "key": owner.seed}
    canaries |= {"curve key": owner.first_secret, "store key": owner.derived(b"coflows/keyring/1")}
    settings = {"COFLOWS_PASSPHRASE": passphrase, "COFLOWS_SECRET_API_KEY": secret, "COFLOWS_LOG_LEVEL": "DEBUG"}
    settings["COFLOWS_FLOW_MODULES"] = str(ROOT)
    proxy: Proxy | None = None
    if broker_url.startswith("amqp"):
        node = request.getfixturevalue("rabbitmq_node")
        canaries["broker password"] = canary("broker")
        account = f"canary{os.getpid()}"
        name, by, everything = f'<<"{account}">>', '<<"tests">>', ", ".join(['<<".*">>'] * 3)
        password = f"<<{', '.join(map(str, str(canaries['broker password']).encode()))}>>"
        node.evaluate(
            f"rabbit_auth_backend_internal:add_user({name}, {password}, {by}), "
            f'rabbit_auth_backend_internal:set_permissions({name}, <<"/">>, {everything}, {by})'
        )
        place = f"{account}:{quote(str(canaries['broker password']), safe='')}@127.0.0.1:{node.port}"
        proxy = Proxy(f"amqp://{place}/")
        settings["COFLOWS_BROKER_URL"] = proxy.url
        canaries["store password"] = canary("store")
        settings["COFLOWS_STORE_URL"] = _postgres_account(
            request.getfixturevalue("postgres_url"), account, str(canaries["store password"])
        )
    for name, value in settings.items():
        if name != "COFLOWS_SECRET_API_KEY":
            monkeypatch.setenv(name, value)
    world = World(tmp_path, canaries, {**os.environ, **settings})
    yield world
    world.end()
    if proxy is not None:
        world.hunt.through("the wire", bytes(proxy.said), but=("broker password",))  # SASL PLAIN says it: use amqps.
        proxy.close()
        node = request.getfixturevalue("rabbitmq_node")
        world.hunt.through_folder(node.folder)
        node.evaluate(f'rabbit_auth_backend_internal:delete_user(<<"{account}">>, <<"tests">>)')
        world.hunt.through("PostgreSQL", _dumped(request.getfixturevalue("postgres_url")))
    world.hunt.through_folder(home, but=("key",))
    world.hunt.through("the key file", (home / "users" / "owner" / "key").read_bytes())
    world.hunt.through("the log", world.log.read_bytes())
    assert b"flow: Calling with" in world.log.read_bytes()
    assert not world.hunt.found, world.hunt.found


def _postgres_account(url: str, name: str, password: str) -> str:
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {name} SUPERUSER LOGIN")
        # As an application would, hashed on its side: the server writes statements that fail into its log.
        hashed = admin.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
        admin.execute(f"ALTER ROLE {name} PASSWORD '{hashed}'")
    parts = urlsplit(url)
    return parts._replace(netloc=f"{name}:{quote(password, safe='')}@{parts.hostname}:{parts.port}").geturl()


def _dumped(url: str) -> bytes:
    """All rows of all tables, as the server sends them; and what it knows of its accounts."""
    with psycopg.connect(url) as admin:
        tables = [row[0] for row in admin.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        tables += ["pg_authid", "pg_stat_activity"]
        rows = b""
        for table in tables:
            with admin.cursor().copy(f"COPY (SELECT * FROM {table}) TO STDOUT (FORMAT binary)") as copy:
                rows += b"".join(bytes(part) for part in copy)
    return rows


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_canaries_are_found_nowhere(
    world: World, serve: Callable[..., RunningService], caplog: pytest.LogCaptureFixture
) -> None:
    hunt = world.hunt
    caplog.set_level(logging.DEBUG)
    with connect("owner") as owner, connect("caller") as caller:
        serve_flow(owner, "tests.security.leaky_flow.LeakyFlow", "leaky")
        serve_flow(owner, "tests.security.leaky_flow.LeakyProcessFlow", "process")
        for endpoint in ("leaky", "process"):
            _misuse(hunt, caller, owner, endpoint, everything=endpoint == "leaky")
        hunt.through("cores", repr([owner, owner.identity, owner.settings, owner.broker, owner.store, owner.session]))
        hunt.through("cores", repr([owner.keyring, owner.settings.home, world.ready]))
        service = serve(owner)
        for path in (
            "/",
            "/flows",
            "/map",
            "/connect",
            f"/flows/{Registry(service.url).flows()['items'][0]['id']}/proof",
        ):
            hunt.through(f"registry {path}", httpx.get(f"{service.url}{path}").text)
    hunt.through("logs of this process", caplog.text)
    data = json.dumps({"how": "raise", "encoding": "url"})
    for words in (
        ("--json", "call", "leaky", "--data", data),
        ("doctor",),
        ("key", "rotate"),
    ):
        hunt.through(f"coflows {' '.join(words)}", world.command(*words))


def _misuse(hunt: Hunt, caller: Client, owner: Client, endpoint: str, *, everything: bool) -> None:
    flow = get_flow_instance(caller, endpoint, user_id=owner.user_id, config_overrides={})
    own = get_flow_instance(owner, endpoint)
    assert flow.ask({"how": "use"}, timeout=60)["known"] == "<Secrets API_KEY>"
    for encoding in ENCODINGS if everything else ("plain",):
        plain = encoding == "plain"
        for how in RAISING if plain else ("raise", "raise group"):
            for asked in (flow, own) if plain else (own,):
                with pytest.raises(RemoteFlowError) as raised:
                    asked.ask({"how": how, "encoding": encoding}, timeout=60)
                hunt.through(f"{how} {encoding}", f"{raised.getrepr()} {raised.value!r} {vars(raised.value)}")
        flow.ask({"how": "log", "encoding": encoding}, timeout=60)
        for how in KEEPING if plain else ("state",):
            if endpoint == "process" and how in ("record", "timer"):
                continue
            with pytest.raises(CoflowsError, match="secret API_KEY would leave") as refused:
                flow.ask({"how": how, "encoding": encoding}, timeout=60)
            assert isinstance(refused.value, RemoteFlowError) and refused.value.remote_code == "secret_exposed"
            hunt.through(how, str(refused.value))
    assert flow.ask({"how": "use"}, timeout=60)["used"] == 2  # Nothing else was kept.


@pytest.mark.parametrize("url", ["amqp://u:{}@127.0.0.1:1/", "amqp://u:{}@host:port/", "embedded://u:{}@host/x"])
def test_a_password_in_a_broker_url_is_in_no_error(url: str, home: Path) -> None:
    _fails(url.format(quote(secret := canary("broker"), safe="")), "sqlite://", secret, home)


@pytest.mark.parametrize(
    "url",
    ["postgresql://u:{}@127.0.0.1:1/x", "postgresql://u:{}@host:port/x", "postgresql://u:{}@h/x?y=z", "sqlite:u:{}"],
)
def test_a_password_in_a_store_url_is_in_no_error(url: str, home: Path) -> None:
    _fails("embedded://", url.format(quote(secret := canary("store"), safe="")), secret, home)


def _fails(broker_url: str, store_url: str, secret: str, home: Path) -> None:
    owner = Identity.generate()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(CoflowsError) as raised:
        patch.setenv("COFLOWS_CONNECT_TIMEOUT", "0.1")
        connect(owner, broker_url, store_url)
    hunt = Hunt({"password": secret})
    hunt.through("the error", f"{raised.value!r} {raised.value}")

    hunt.through("its traceback", "".join(traceback.format_exception(raised.value)))
    assert hunt.found == []


def test_reprs_show_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = canary("url")
    url = f"amqp://user:{quote(secret, safe='')}@host/"
    monkeypatch.setenv("COFLOWS_BROKER_URL", url)
    monkeypatch.setenv("COFLOWS_STORE_URL", url)
    monkeypatch.setenv("COFLOWS_PASSPHRASE", secret)
    shown: list[Any] = [load_settings(), RabbitServer.from_url(url), Options(None, url, url), Redactor({"x": secret})]
    shown.append(ProcessOptions(broker_url=url, store_url=url, passphrase=secret))
    hunt = Hunt({"password": secret})
    hunt.through("reprs", repr(shown) + str(shown))
    assert hunt.found == []


def test_a_hunt_finds_what_is_there() -> None:
    secret = canary("found")
    for name, encode in ENCODINGS.items():
        hunt = Hunt({"it": secret})
        hunt.through(name, f"before {encode(secret)} after")
        assert hunt.found == [("it", name)], name
