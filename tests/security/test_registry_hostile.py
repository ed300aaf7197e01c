"""What hostile nodes, registries and clients try, refused by the parts of registries that decide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coflows.cli.context import Options
from coflows.errors import AccessDeniedError, FlowAmbiguousError, QueryInvalidError, RegistryError, SerializationError
from coflows.identity.keys import Identity
from coflows.model.flow_names import FlowName
from coflows.registry import listing, lookup
from coflows.registry.choosing import Candidate, choose
from coflows.registry.database import Database
from coflows.registry.entry import FlowEntry
from coflows.registry.order import parse_order
from coflows.registry.peers import Peers
from coflows.registry.query import parse_query
from coflows.registry.record import Beat
from coflows.registry.requests import Asker
from coflows.registry.signed import Signed


@pytest.mark.parametrize(
    "schema",
    ['{"a":NaN}', '{"a":1e999}', '{"a":"\\ud800"}', '{"a":' + "[" * 250 + "]" * 250 + "}", '{"a":1,"a":2}', '{"a": 1}'],
)
def test_an_entry_that_not_everybody_can_read_is_none(schema: str) -> None:
    """Kept, it would have failed every page that it is in."""
    text = FlowEntry(key="f", name="F").text().replace('"input_schema":{}', f'"input_schema":{schema}')
    with pytest.raises(SerializationError):
        FlowEntry.from_text(text)


def test_a_flow_whose_schema_nobody_could_read_is_not_offered() -> None:
    schema: dict[str, Any] = {}
    for _ in range(250):
        schema = {"a": schema}
    with pytest.raises(SerializationError):
        FlowEntry(key="f", name="F", input_schema=schema).text()
    odd: dict[str, Any] = {"a": [1.5, 1e22, -0.0, None, True, 10**40]}
    entry = FlowEntry(key="f", name='Rückwärts \u2028 "\\ 😀', input_schema=odd)
    assert FlowEntry.from_text(entry.text()) == entry


def test_what_others_wrote_makes_no_line_of_a_log() -> None:
    key = "\nCRITICAL all is lost\x1b[2J\x9b2J"
    said = {"user_id": Identity.generate().user_id, "url": "http://a.example", "beat": 1, key: 1}
    with pytest.raises(SerializationError) as caught:
        Beat.read(Signed(json.dumps(said), ""))
    assert caught.value.message.isprintable() and len(caught.value.message) < 1000


def test_errors_command_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    organization = "\x9b2J\u202eemcA"
    found = [Candidate(user, "f", organization) for user in ("u", "v")]
    with pytest.raises(FlowAmbiguousError) as caught:
        choose(FlowName("f"), found)
    Options().fail(caught.value)
    shown = capsys.readouterr().err
    assert "??" not in shown and "?2J?emcA" in shown
    assert all(line.isprintable() for line in shown.splitlines())


def test_a_registry_lists_no_ids_that_are_none() -> None:
    for odd in ("\x1b[2J", "../" * 9, "", None, 5, "0" * 33):
        with pytest.raises(RegistryError):
            lookup._listed({"items": [{"id": odd}]}, "http://registry.example", 10)


def test_a_query_that_takes_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may look at every text for each of its terms; what it is asked on goes on."""
    db = Database(tmp_path / "cache.db")
    flows = [(str(number), "f" * 500) for number in range(2000)]
    with db.write() as writing:
        writing.executemany(
            "INSERT INTO flows (node, digest, id, name, organization, author, url, node_url, user_id, flow_endpoint, "
            "description, tags) VALUES (1, '', ?, ?, '', '', '', '', '', '', '', '')",
            flows,
        )
    listed = listing.Listing(db)
    slow = parse_query(" or ".join(f'name ~ "{one}"' for one in "abcdeghijklmnopq"))
    assert listed.page(slow, parse_order(""), 10, 0).total == 2000
    db.version += 1
    monkeypatch.setattr(listing, "QUERY_SECONDS", 0.0)
    with pytest.raises(QueryInvalidError, match="longer"):
        listed.page(slow, parse_order(""), 10, 0)
    monkeypatch.undo()
    assert listed.page(slow, parse_order(""), 10, 0).filtered == 0
    db.close()


def test_what_an_owner_commanded_is_never_commanded_again(tmp_path: Path) -> None:
    """His command, noted by who was on the wire, would have been taken once more when he had been silent for long."""
    db = Database(tmp_path / "cache.db")
    peers = Peers(db)
    owner, peer = Asker("u", "", 5), Asker("u", "http://a.example", 5)
    with db.write() as writing:
        for one in (owner, peer):
            peers.use_number(writing, one, 0.0, 10)
        peers.forget(writing, 1e9)
        with pytest.raises(AccessDeniedError):
            peers.use_number(writing, owner, 1e9, 10)
        peers.use_number(writing, peer, 1e9, 10)
    db.close()
