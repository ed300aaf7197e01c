"""Envelopes: only the recipient opens them, unchanged and in time, and knows who sent them."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflows.errors import EnvelopeError
from coflows.identity.keys import Identity, verify
from coflows.identity.sealing import MAX_ITEMS, Item, _sealed, open_envelope, seal, seal_items

ALICE, BOB, EVE = (Identity.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
MESSAGE_ID = "00112233445566778899aabbccddeeff"
LIMIT = 10_000
NOW = 1_999_999_990.0
GOLDEN = seal(ALICE, BOB.user_id, MESSAGE_ID, 2_000_000_000, b"golden", nonce=bytes(range(24)))

GOLDEN_HEX = (
    "93c45d9501c4208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5cc4208139770ea87d175f56"
    "a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394c41000112233445566778899aabbccddeeffce77359400c4180001"
    "02030405060708090a0b0c0d0e0f1011121314151617c416f3c8a827f83b878b7e640070099d70bfdf14e492c108"
)


def test_golden_bytes() -> None:
    """These bytes were sealed by the first version; whatever changes, they open."""
    assert GOLDEN.hex() == GOLDEN_HEX
    opened = open_envelope(BOB, bytes.fromhex(GOLDEN_HEX), NOW, LIMIT)
    assert (opened.sender, opened.message_id, opened.expiry, opened.payload) == (
        ALICE.user_id,
        MESSAGE_ID,
        2_000_000_000,
        b"golden",
    )


@given(payload=st.binary(max_size=500))
def test_round_trip(payload: bytes) -> None:
    opened = open_envelope(BOB, seal(ALICE, BOB.user_id, MESSAGE_ID, 10, payload), 10.0, LIMIT)
    assert (opened.sender, opened.payload) == (ALICE.user_id, payload)


@given(data=st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(EnvelopeError):
        open_envelope(BOB, data, NOW, LIMIT)


@pytest.mark.parametrize(
    ("opener", "now", "limit", "text"),
    [
        (EVE, NOW, LIMIT, "another user"),
        (BOB, 2_000_000_001.0, LIMIT, "expired"),
        (BOB, NOW, 10, "at most 10"),
    ],
)
def test_what_is_not_for_us_now(opener: Identity, now: float, limit: int, text: str) -> None:
    with pytest.raises(EnvelopeError, match=text):
        open_envelope(opener, GOLDEN, now, limit)


def test_eve_cannot_speak_for_alice() -> None:
    forged = seal(EVE, BOB.user_id, MESSAGE_ID, 2_000_000_000, b"x").replace(EVE.public_key, ALICE.public_key)
    with pytest.raises(EnvelopeError, match="not sealed by its sender"):
        open_envelope(BOB, forged, NOW, LIMIT)


def test_signatures() -> None:
    signature = ALICE.sign(b"data")
    assert verify(ALICE.user_id, b"data", signature)
    assert not verify(BOB.user_id, b"data", signature) and not verify(ALICE.user_id, b"date", signature)


def test_an_identity_keeps_its_secret() -> None:
    import pickle

    assert ALICE.seed.hex() not in repr(ALICE)
    with pytest.raises(TypeError):
        pickle.dumps(ALICE)


ITEMS = (Item(MESSAGE_ID, b"one"), Item("ab" * 16, b"two", "cd" * 8, 7))


def test_a_parcel_opens_to_what_was_put_in() -> None:
    opened = open_envelope(BOB, seal_items(ALICE, BOB.user_id, 2_000_000_000, ITEMS), NOW, LIMIT)
    assert (opened.sender, opened.expiry, opened.items) == (ALICE.user_id, 2_000_000_000, ITEMS)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [[b"short", b"x", None, 0]],
        [[bytes(16), "text", None, 0]],
        [[bytes(16), b"x", bytes(7), 1]],
        [[bytes(16), b"x", bytes(8), 0]],
        [[bytes(16), b"x", bytes(8), True]],
        [[bytes(16), b"x", bytes(8), 2**63]],
        [[bytes(16), b"x"]],
        {"a": 1},
        [[bytes(16), b"x", None, 0]] * (MAX_ITEMS + 1),
    ],
)
def test_a_malformed_parcel_of_a_proven_sender_is_refused(rows: object) -> None:
    header = [2, ALICE.public_key, BOB.public_key, 2_000_000_000]
    sealed = _sealed(ALICE, BOB.user_id, header, msgpack.packb(rows), None)
    with pytest.raises(EnvelopeError):
        open_envelope(BOB, sealed, NOW, 2**20)
