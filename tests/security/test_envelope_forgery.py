"""Envelopes under attack: whatever bytes come, opening them gives the truth or an EnvelopeError, and nothing else."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coflows.config import load_settings
from coflows.errors import ConfigurationError, EnvelopeError
from coflows.identity.keys import Identity
from coflows.identity.sealing import LONGEST, SKEW, Item, open_envelope, seal, seal_items

ALICE, BOB = (Identity.from_seed(bytes([number]) * 32) for number in (1, 2))
MESSAGE_ID = "00112233445566778899aabbccddeeff"
LIMIT = 10_000
NOW = 2**31 - 10.0
ODD = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=3)
ODD_BYTES = st.sampled_from([0, 15, 16, 17, 24, 32, 33]).flatmap(lambda size: st.binary(min_size=size, max_size=size))
FIELD = ODD | ODD_BYTES | st.just(BOB.public_key) | st.just(ALICE.public_key) | st.just(bytes(32)) | st.just(1)
PARTS = FIELD | st.recursive(FIELD, lambda inner: st.lists(inner, max_size=6)) | st.just(msgpack.ExtType(1, b""))


GOLDEN = seal(ALICE, BOB.user_id, MESSAGE_ID, 2**31, b"golden", nonce=bytes(range(24)))
ITEMS = (Item(MESSAGE_ID, b"one"), Item("ab" * 16, b"two", "cd" * 8, 7))
PARCEL = seal_items(ALICE, BOB.user_id, 2**31, ITEMS, nonce=bytes(24))
BOTH = pytest.mark.parametrize("sent", [GOLDEN, PARCEL], ids=["single", "parcel"])


def with_header(sent: bytes, fields: list[Any]) -> bytes:
    _, nonce, sealed = msgpack.unpackb(sent)
    return bytes(msgpack.packb([msgpack.packb(fields), nonce, sealed]))


@BOTH
def test_every_flipped_byte_is_noticed(sent: bytes) -> None:
    for position in range(len(sent)):
        for mask in (0x01, 0x40, 0x80):
            changed = bytearray(sent)
            changed[position] ^= mask
            with pytest.raises(EnvelopeError):
                open_envelope(BOB, bytes(changed), NOW, LIMIT)


@BOTH
def test_every_truncation_and_every_addition_is_noticed(sent: bytes) -> None:
    for length in range(len(sent)):
        with pytest.raises(EnvelopeError):
            open_envelope(BOB, sent[:length], NOW, LIMIT)
    for more in (b"\x00", b"\xc0", sent):
        with pytest.raises(EnvelopeError):
            open_envelope(BOB, sent + more, NOW, LIMIT)


@BOTH
def test_header_fields_stripped_added_or_in_another_order(sent: bytes) -> None:
    fields = msgpack.unpackb(msgpack.unpackb(sent)[0])
    others = [list(order) for order in permutations(fields) if list(order) != fields]
    others += [[*fields[:number], *fields[number + 1 :]] for number in range(len(fields))]
    others += [[*fields, more] for more in (None, 0, b"", fields[0])]
    for changed in others:
        with pytest.raises(EnvelopeError):
            open_envelope(BOB, with_header(sent, changed), NOW, LIMIT)


def test_a_version_that_is_not_the_senders() -> None:
    """A parcel is not read as a single message, nor the other way, nor as a version that is to come, or none."""
    single = [1, ALICE.public_key, BOB.public_key, bytes.fromhex(MESSAGE_ID), 2**31]
    parcel = [2, ALICE.public_key, BOB.public_key, 2**31]
    for sent, fields in ((PARCEL, single), (GOLDEN, parcel)):
        with pytest.raises(EnvelopeError, match="was changed"):
            open_envelope(BOB, with_header(sent, fields), NOW, LIMIT)
    for version in (0, 3, -1, 2**32, True, 1.0, "1", None):
        with pytest.raises(EnvelopeError):
            open_envelope(BOB, with_header(GOLDEN, [version, *single[1:]]), NOW, LIMIT)


def test_an_expiry_far_ahead_or_long_past() -> None:
    """What is valid for longer than it would be remembered could be worked off twice."""
    for expiry, text in (
        (int(NOW) - 1, "expired"),
        (0, "expired"),
        (-(2**63), "expired"),
        (int(NOW + LONGEST + SKEW) + 1, "at most 90"),
        (2**63, "at most 90"),
        (2**64 - 1, "at most 90"),
    ):
        for sent in (
            seal(ALICE, BOB.user_id, MESSAGE_ID, expiry, b"x"),
            seal_items(ALICE, BOB.user_id, expiry, ITEMS),
        ):
            with pytest.raises(EnvelopeError, match=text):
                open_envelope(BOB, sent, NOW, LIMIT)
    assert open_envelope(BOB, seal(ALICE, BOB.user_id, MESSAGE_ID, int(NOW), b"x"), NOW, LIMIT).payload == b"x"


def test_the_longest_validity_is_what_the_settings_allow() -> None:
    with pytest.raises(ConfigurationError, match="CALL_TTL"):
        load_settings(call_ttl=LONGEST + 1)
    assert load_settings(call_ttl=LONGEST).call_ttl == LONGEST


def test_a_nonce_used_again() -> None:
    """Parts of two envelopes make no third, even under one nonce; and no nonce is used again."""
    other = seal(ALICE, BOB.user_id, "11" * 16, 2**31, b"silver", nonce=bytes(range(24)))
    for first, second in ((GOLDEN, other), (other, GOLDEN)):
        header, nonce, _ = msgpack.unpackb(first)
        with pytest.raises(EnvelopeError, match="was changed"):
            open_envelope(BOB, msgpack.packb([header, nonce, msgpack.unpackb(second)[2]]), NOW, LIMIT)
    nonces = {msgpack.unpackb(seal(ALICE, BOB.user_id, MESSAGE_ID, 2**31, b"x"))[1] for _ in range(2000)}
    assert len(nonces) == 2000


def test_the_same_envelope_in_other_bytes() -> None:
    """Lengths may be written longer than they need be: it is still the message of that id."""
    header, nonce, sealed = msgpack.unpackb(GOLDEN)
    longer = b"\xdd\x00\x00\x00\x03" + b"".join(
        b"\xc6" + len(part).to_bytes(4) + part for part in (header, nonce, sealed)
    )
    opened = open_envelope(BOB, longer, NOW, LIMIT)
    assert longer != GOLDEN and (opened.sender, opened.message_id) == (ALICE.user_id, MESSAGE_ID)


def test_a_header_that_announces_what_does_not_come() -> None:
    for header in (
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x91" * 5000,
        b"\xc6\xff\xff\xff\xff",
        b"\xc7\x00\x01",
    ):
        for data in (header, msgpack.packb([header, bytes(24), bytes(16)])):
            with pytest.raises(EnvelopeError):
                open_envelope(BOB, data, NOW, LIMIT)


@given(header=st.lists(PARTS, min_size=4, max_size=6), rest=st.lists(PARTS, min_size=1, max_size=3))
@example(header=[1, bytes(32), BOB.public_key, bytes(16), 2**64 - 1], rest=[bytes(24), bytes(16)])
@example(header=[1, b"\xff" * 32, BOB.public_key, bytes(16), 0], rest=[bytes(24), bytes(16)])
def test_made_up_structures_are_refused(header: list[Any], rest: list[Any]) -> None:
    for data in (msgpack.packb([msgpack.packb(header), *rest]), msgpack.packb([header, *rest])):
        with pytest.raises(EnvelopeError):
            open_envelope(BOB, data, NOW, LIMIT)


@given(position=st.integers(0, 10_000), mask=st.integers(1, 255), payload=st.binary(max_size=200))
def test_a_changed_byte_never_changes_what_is_read(position: int, mask: int, payload: bytes) -> None:
    data = bytearray(seal(ALICE, BOB.user_id, MESSAGE_ID, 2**31, payload, nonce=bytes(24)))
    data[position % len(data)] ^= mask
    with pytest.raises(EnvelopeError):
        open_envelope(BOB, bytes(data), NOW, LIMIT)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        (0, 4, "version 4"),
        (2, ALICE.public_key, "another user"),
        (3, bytes(16), "was changed"),
        (4, 2**32, "was changed"),
        (1, BOB.public_key, "was changed"),
        (1, bytes(32), "was changed"),
    ],
)
def test_it_is_bound_to_every_field_of_its_header(field: int, value: object, text: str) -> None:
    header, nonce, sealed = msgpack.unpackb(seal(ALICE, BOB.user_id, MESSAGE_ID, 2**31, b"x"))
    fields = msgpack.unpackb(header)
    fields[field] = value
    with pytest.raises(EnvelopeError, match=text) as caught:
        open_envelope(BOB, msgpack.packb([msgpack.packb(fields), nonce, sealed]), NOW, LIMIT)
    assert caught.value.code == "envelope"


def test_what_alice_sent_cannot_be_turned_back_on_her() -> None:
    sent = seal(ALICE, BOB.user_id, MESSAGE_ID, 2**31, b"x")
    with pytest.raises(EnvelopeError, match="another user"):
        open_envelope(ALICE, sent, NOW, LIMIT)
    header, nonce, sealed = msgpack.unpackb(sent)
    version, sender, recipient, message_id, expiry = msgpack.unpackb(header)
    turned = msgpack.packb([msgpack.packb([version, recipient, sender, message_id, expiry]), nonce, sealed])
    with pytest.raises(EnvelopeError, match="was changed"):
        open_envelope(ALICE, turned, NOW, LIMIT)


def test_the_first_thing_wrong_is_told() -> None:
    sent = seal(ALICE, BOB.user_id, MESSAGE_ID, 10, b"x")
    changed = sent[:-1] + bytes([sent[-1] ^ 1])
    for opener, data, limit, text in (
        (ALICE, changed, 5, "at most 5"),
        (ALICE, changed, LIMIT, "another user"),
        (BOB, changed, LIMIT, "was changed"),
        (BOB, sent, LIMIT, "expired"),
    ):
        with pytest.raises(EnvelopeError, match=text):
            open_envelope(opener, data, 99.0, limit)


def test_a_user_writes_to_himself() -> None:
    opened = open_envelope(BOB, seal(BOB, BOB.user_id, MESSAGE_ID, 10, b"x"), 10.0, LIMIT)
    assert (opened.sender, opened.payload) == (BOB.user_id, b"x")
