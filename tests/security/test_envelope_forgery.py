"""Envelopes under attack: whatever bytes come, opening them gives the truth or an EnvelopeError, and nothing else."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coflows.errors import EnvelopeError
from coflows.identity.keys import Identity
from coflows.identity.sealing import open_envelope, seal

ALICE, BOB = (Identity.from_seed(bytes([number]) * 32) for number in (1, 2))
MESSAGE_ID = "00112233445566778899aabbccddeeff"
LIMIT = 10_000
NOW = 2**31 - 10.0
ODD = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=3)
ODD_BYTES = st.sampled_from([0, 15, 16, 17, 24, 32, 33]).flatmap(lambda size: st.binary(min_size=size, max_size=size))
FIELD = ODD | ODD_BYTES | st.just(BOB.public_key) | st.just(ALICE.public_key) | st.just(bytes(32)) | st.just(1)
PARTS = FIELD | st.recursive(FIELD, lambda inner: st.lists(inner, max_size=6)) | st.just(msgpack.ExtType(1, b""))


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
