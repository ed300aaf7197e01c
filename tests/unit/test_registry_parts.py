"""The parts of registries that decide, and the log that others read."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflows.errors import AccessDeniedError, NameInvalidError
from coflows.identity.keys import Identity
from coflows.registry import change_log
from coflows.registry.backoff import CAP, delay
from coflows.registry.change_log import ChangeLog
from coflows.registry.database import Database, next_beat, next_number
from coflows.registry.judging import GONE, OFFLINE, ONLINE, Known, Times, Verdict, judge, state_of
from coflows.registry.nodes import Claim, Nodes
from coflows.registry.page import Cursor
from coflows.registry.record import Beat, Record
from coflows.registry.requests import Asker, check_request, sign_request
from coflows.registry.sharing import gives_way
from coflows.registry.urls import check_url, may_dial

TIMES = Times(offline_after=30, ttl=1000)
TABLES = ("nodes", "peers")
NOW = 1_700_000_000.0
numbers = st.integers(0, 5)


@given(st.lists(st.tuples(st.none() | numbers, numbers), max_size=20))
def test_what_is_known_only_grows(said: list[tuple[int | None, int]]) -> None:
    """Whatever comes in whatever order, the greatest record and beat stand in the end, and nothing is taken twice."""
    known: Known | None = None
    for sequence, beat in said:
        stamp = int(NOW * 1000) + beat
        verdict = judge(known, sequence, stamp, 0.0, NOW, TIMES)
        if verdict is Verdict.RECORD:
            assert sequence is not None and (known is None or sequence > known.sequence)
            known = Known(sequence, max(stamp, known.beat if known else 0), NOW, ONLINE)
        elif verdict is Verdict.BEAT:
            assert known is not None and stamp > known.beat
            known = known._replace(beat=stamp)
        else:
            assert verdict is Verdict.UNKNOWN if known is None else verdict is Verdict.NOTHING
    records = [sequence for sequence, _ in said if sequence is not None]
    assert (known.sequence if known else None) == max(records, default=None)


def test_what_is_too_old_is_stale() -> None:
    assert judge(None, 1, int(NOW * 1000), 1001, NOW, TIMES) is Verdict.STALE
    assert judge(None, 1, int((NOW - 2000) * 1000), 0, NOW, TIMES) is Verdict.STALE
    withdrawn = Known(5, 5, NOW, GONE, True)
    assert judge(withdrawn, None, int(NOW * 1000), 0, NOW, TIMES) is Verdict.UNKNOWN
    assert judge(withdrawn, 6, int(NOW * 1000), 0, NOW, TIMES) is Verdict.RECORD


def test_what_is_dated_ahead_is_not_taken() -> None:
    """It would never have been stale: whoever kept it could list the node again for as long as it is ahead."""
    known = Known(5, 5, NOW, ONLINE)
    for beat, verdict in ((NOW + 599, Verdict.RECORD), (NOW + 601, Verdict.AHEAD)):
        assert judge(None, 1, int(beat * 1000), 0, NOW, TIMES) is verdict
        assert judge(known, 6, int(beat * 1000), 0, NOW, TIMES) is verdict


def test_a_clock_that_was_wrong_once_does_not_stay_wrong(tmp_path: Path) -> None:
    db = Database(tmp_path / "cache")
    with contextlib.closing(db), db.write() as writing:
        far = next_number(writing, "beat", int(time.time() * 1000) + 10**9)
        first = next_beat(writing)
        assert first < far and next_beat(writing) > first


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9)), st.lists(st.sampled_from("abcd"), max_size=60))
def test_who_comes_from_elsewhere_finds_room(held: dict[str, int], newcomers: list[str]) -> None:
    """In a full registry; and nobody falls below what is a fair share."""
    most = sum(held.values())
    for place in newcomers:
        way = gives_way(held, place, 1)
        if way is None:
            assert all(number <= held.get(place, 0) + 1 for number in held.values())
            continue
        held[way] -= 1
        held[place] = held.get(place, 0) + 1
        assert sum(held.values()) == most and held[way] >= held[place]


def test_a_cache_of_before_is_made_a_new_one(tmp_path: Path) -> None:
    db = Database(tmp_path / "cache")
    with db.write() as writing:
        number = next_number(writing, "sequence")
        columns = [writing.execute(f"SELECT name FROM pragma_table_info('{table}')").fetchall() for table in TABLES]
        writing.execute("DROP INDEX nodes_by_place")
        for table, column in (("nodes", "place"), ("nodes", "bytes"), ("peers", "place")):
            writing.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        writing.execute("PRAGMA user_version=1")
    db.close()
    with contextlib.closing(Database(tmp_path / "cache")) as db, db.write() as writing:
        assert next_number(writing, "sequence") > number
        again = [writing.execute(f"SELECT name FROM pragma_table_info('{table}')").fetchall() for table in TABLES]
        assert list(map(set, again)) == list(map(set, columns))


def test_states() -> None:
    assert [state_of(NOW - silent, NOW, TIMES) for silent in (0, 30, 31, 1000, 1001)] == [
        *(ONLINE, ONLINE, OFFLINE, OFFLINE, GONE),
    ]


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_delays_grow_up_to_a_cap(attempts: int, chance: float) -> None:
    assert 0 < delay(attempts, chance) <= CAP
    assert delay(attempts, chance) <= delay(attempts + 1, chance)
    assert delay(attempts, 0) / 2 <= delay(attempts, chance)


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        *(
            ("8.8.8.8", ""),
            ("2606:4700::1", ""),
            ("127.0.0.1", "loopback"),
            ("::1", "loopback"),
            ("10.1.2.3", "private"),
        ),
        *(("192.168.0.1", "private"), ("fd12::1", "private"), ("100.64.0.1", "private"), ("169.254.169.254", "never")),
        *(("fe80::1", "never"), ("0.0.0.0", "never"), ("::", "never"), ("224.0.0.1", "never"), ("ff02::1", "never")),
        *(("::ffff:127.0.0.1", "loopback"), ("::ffff:169.254.1.1", "never"), ("64:ff9b::7f00:1", "loopback")),
        *(
            ("fd00:ec2::254", "never"),
            ("100.100.100.200", "never"),
            ("192.0.0.192", "never"),
            ("168.63.129.16", "never"),
            ("255.255.255.255", "never"),
            ("2002:7f00:1::", "loopback"),
        ),
    ],
)
def test_which_addresses_are_dialled(address: str, reach: str) -> None:
    parsed = ipaddress.ip_address(address)
    for given_reach in ((), ("loopback",), ("private",)):
        assert may_dial(parsed, given_reach) == (reach in ("", *given_reach)), given_reach
    assert may_dial(parsed, ("loopback", "private")) == (reach != "never")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "localhost:80",
            "ftp://a",
            "http://",
            "http://a:99999",
            "http://a@b",
            "http://a?b",
            "http://a#b",
            "http://a b",
        ),
        *("http://a\\b", "http://[::1", "http://a\n", "x" * 501, 3, None, "http://é..b"),
    ],
)
def test_urls_that_are_none(url: object) -> None:
    with pytest.raises(NameInvalidError):
        check_url(url)


@given(st.text(max_size=30).map(lambda text: f"http://{text}"))
def test_a_url_has_one_form(text: str) -> None:
    try:
        place = check_url(text)
    except NameInvalidError:
        return
    assert check_url(place.url) == place


def test_a_signature_is_for_one_request() -> None:
    user = Identity.generate()
    said = {"to": "http://r", "method": "POST", "path": "/update", "body": b"{}"}
    headers = sign_request(user, **said, number=7, url="http://n")
    asker = check_request(headers, **said)
    assert asker == Asker(user.user_id, "http://n", 7)
    assert check_request({}, **said) is None
    for name, value in {"to": "http://s", "method": "DELETE", "path": "/connect", "body": b"{ }"}.items():
        with pytest.raises(AccessDeniedError):
            check_request(headers, **{**said, name: value})
    for name in headers:
        for value in ("", "8", "http://m", Identity.generate().user_id, "ab" * 64, "x"):
            if name != "coflows-signature" or value:
                with pytest.raises(AccessDeniedError):
                    check_request({**headers, name: value}, **said)


@pytest.mark.parametrize("seed", range(3))
def test_who_reads_the_log_has_all_of_it(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of a few nodes each, read while nodes change: in the end the reader knows what is known, and what did not
    change is not read again."""
    import random

    monkeypatch.setattr(change_log, "MAX_RECORDS", 2)
    monkeypatch.setattr(change_log, "MAX_BEATS", 3)
    chance = random.Random(seed)
    db = Database(tmp_path / "cache.db")
    nodes, log, user = Nodes(db, TIMES), ChangeLog(db), Identity.generate()
    known: dict[str, int] = {}
    beats: dict[str, int] = {}
    cursor, stamp = Cursor(), int(time.time() * 1000)

    def change() -> None:
        nonlocal stamp
        stamp += 1
        url = f"http://node{chance.randrange(9)}"
        beat = Beat(user_id=user.user_id, url=url, beat=stamp)
        record = None
        if nodes.known(user.user_id, url) is None or chance.random() < 0.4:
            record = Record(user_id=user.user_id, url=url, sequence=stamp, registry=False, feed=False)
        signed = None if record is None else record.sign(user)
        claim = Claim(record, signed, beat, beat.sign(user), time.time(), "via")
        with db.write() as writing:
            if record is None:
                nodes.take_beat(writing, claim)
            else:
                nodes.take_record(writing, claim)

    def read() -> bool:
        nonlocal cursor
        page = log.page(cursor, False, time.time())
        for offer in page.offers:
            beat = Beat.read(offer.beat.signed)
            if offer.record is not None:
                known[beat.url] = Record.read(offer.record.signed).sequence
            assert beat.url in known, "a beat says nothing to who does not know the record"
            beats[beat.url] = beat.beat
        cursor = page.upto
        return page.more

    for _ in range(200):
        change()
        if chance.random() < 0.5:
            read()
    while read():
        pass
    rows = db.read().execute("SELECT url, sequence, beat FROM nodes").fetchall()
    assert known == {url: sequence for url, sequence, _ in rows}
    assert beats == {url: beat for url, _, beat in rows}
    assert log.page(cursor, False, time.time()).offers == []
    db.close()
