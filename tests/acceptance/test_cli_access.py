"""``coflows access``, ``group``, ``grant``, ``grants`` and ``revoke``: what they print, as JSON and for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from coflows import connect
from coflows.access.grants import Limits, read_grant
from coflows.cli.app import run
from coflows.cli.flows import QUOTAS
from coflows.endpoint_quotas import EndpointQuotas
from coflows.identity.home import Home
from coflows.quotas.quota import Quota


@pytest.fixture
def users(home: Path) -> dict[str, str]:
    return {name: Home(home).create_user(name).user_id for name in ("alice", "bob", "carol")}


@pytest.fixture
def coflows(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.setattr(sys, "argv", ["coflows"])

    def call(*words: str, code: int = 0, user: str = "alice") -> str:
        with pytest.raises(SystemExit) as ended:
            run(["--as", user, *words])
        told = capsys.readouterr()
        assert ended.value.code in (code, code or None), told.err
        return told.err if code else told.out

    return call


def loaded(text: str) -> Any:
    return json.loads(text)


def test_rules_and_groups(coflows: Callable[..., str], users: dict[str, str]) -> None:
    both = sorted((users["bob"], users["carol"]))
    coflows("serve", "EchoFlowModule.EchoFlow", "echo", "--access", "bob,carol")
    rule = {"endpoint": "echo", "mode": "users", "users": both, "group": None, "roots": False}
    assert loaded(coflows("access", "echo", "--json")) == rule
    assert coflows("access", "echo").split("\n")[:3] == ["echo: 2 users", *both]
    assert "already served" in coflows("serve", "EchoFlowModule.EchoFlow", "echo", "--access", "everybody", code=6)
    assert "(2 users)" in coflows("flows") and loaded(coflows("flows", "--json"))[0]["access"] == "2 users"
    assert loaded(coflows("group", "add", "friends", "bob", users["carol"], "--json"))["members"] == both
    assert loaded(coflows("group", "remove", "friends", "bob", "--json"))["members"] == [users["carol"]]
    assert loaded(coflows("group", "list", "--json")) == {"friends": [users["carol"]]}
    told = coflows("access", "echo", "group:friends", "--roots")
    assert "root callers too" in told and users["carol"] in told and "Nobody" not in told
    assert loaded(coflows("access", "echo", "--json"))["roots"] is True
    assert coflows("group", "delete", "friends") == "Done.\n"
    assert "coflows group add friends" in coflows("access", "echo"), "whoever mistypes a group shuts everybody out"
    assert coflows("group", "list") == "There are no groups.\n"
    assert "no access rule" in coflows("access", "echo", "group:", code=2)
    assert "neither a user id" in coflows("access", "echo", "dave", code=2)
    assert "serves nothing" in coflows("access", "nothing", "grant", code=7)


def test_quotas(coflows: Callable[..., str], users: dict[str, str]) -> None:
    limits = ("--quota", "messages=10", "--quota", "bytes_per_second=1e6", "--quota", "instances=none")
    serve = ("serve", "EchoFlowModule.EchoFlow", "echo")
    assert "Serving" in coflows(*serve, *limits)
    with connect("alice") as cl:
        own = EndpointQuotas(cl.store, Quota()).of("echo")
        assert own == Quota(messages=10, bytes_per_second=1e6, instances=None)
        assert "only its quota was set" in coflows(*serve, "--recursive", "--quota", "turn_seconds=30")
        assert EndpointQuotas(cl.store, Quota()).of("echo") == Quota(turn_seconds=30)
        assert "nothing changed" in coflows(*serve)
    assert QUOTAS.split(", ") == [one.name for one in fields(Quota)]
    for wrong in ("messages", "messages=many", "messages=0", "letters=1", "messages=[1]"):
        assert "quota" in coflows(*serve, "--quota", wrong, code=2)


def test_grants(coflows: Callable[..., str], users: dict[str, str]) -> None:
    coflows("serve", "EchoFlowModule.EchoFlow", "echo", "--access", "grant")
    assert coflows("grants") == "There are no grants.\n"
    token = coflows("grant", "bob", "echo", "--calls", "5", "--bytes", "900", "--days", "2").strip()
    part = loaded(coflows("grant", "carol", "--narrow", token, "--calls", "2", "--json", user="bob"))["grant"]
    whole, less = read_grant(token), read_grant(part)
    assert (less.owner, less.holder, less.endpoint) == (users["alice"], users["carol"], "echo")
    assert (less.limits, less.expires) == (Limits(2, None, 900), whole.expires)
    assert "held by" in coflows("grant", "bob", "--narrow", token, code=8, user="carol")
    assert "gives more" in coflows("grant", "carol", "--narrow", token, "--calls", "6", code=8, user="bob")
    assert "for an endpoint of yours" in coflows("grant", "bob", code=2)
    (row,) = loaded(coflows("grants", "--json"))
    assert (row["id"], row["holder"], row["revoked"]) == (whole.id, users["bob"], False)
    assert row["limits"] == {"calls": 5, "instances": None, "bytes": 900} and row["spent"]["calls"] == 0
    assert "0 of 5 calls, 0 of 900 bytes" in coflows("grants")
    assert "Only he can take it back" in coflows("revoke", token, code=8, user="bob")
    assert whole.id in coflows("revoke", whole.id)
    assert "taken back" in coflows("grants")
    assert "not valid" in coflows("revoke", "nonsense", code=2)
