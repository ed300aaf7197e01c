"""Fuzzes what reads bytes of others, guided by coverage: ``python -m tests.security.fuzz_decoder FOLDER -runs=20000``.

Whatever the bytes are: a value within the bounds, or an error of ours. The options are those of libFuzzer; the folder
gets what honest users send, to begin with.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["coflows.codec", "coflows.identity", "coflows.model"]):
    from pydantic import TypeAdapter

    from coflows.codec.bounds import measure
    from coflows.codec.wire import MAX_DEPTH, MAX_ITEMS, SMALL, decode_counted, encode
    from coflows.errors import CoflowsError
    from coflows.identity.keys import Identity
    from coflows.identity.sealing import Item, _sealed, open_envelope, seal, seal_items
    from coflows.model.address import InstanceAddress
    from coflows.model.calls import Call, Reply
    from coflows.model.failure import Failure
    from coflows.model.messages import FlowMessage, ReplyAddress
    from coflows.model.wire import DispatchPayload, DoorPayload, as_mapping, read_payload

ALICE, BOB = (Identity.from_seed(bytes([number]) * 32) for number in (1, 2))
NOW, LIMIT = 1_999_999_990.0, 2**20
HEADER = [2, ALICE.public_key, BOB.public_key, 2_000_000_000]
READERS = [
    Call.from_dict,
    Reply.from_dict,
    lambda value: Failure.from_dict(as_mapping(value)),
    lambda value: FlowMessage.from_dict(as_mapping(value)),
    lambda value: ReplyAddress.from_dict(as_mapping(value)),
    lambda value: InstanceAddress.from_dict(as_mapping(value)),
    lambda value: read_payload(TypeAdapter(DispatchPayload), value),
    lambda value: read_payload(TypeAdapter(DoorPayload), value),
]
PADDING = b"\x92\xc5\x04\x00" + bytes(SMALL)


def _value(data: bytes) -> object:
    value, elements = decode_counted(data, max_bytes=LIMIT)
    assert elements <= MAX_ITEMS
    again, counted = decode_counted(PADDING + data, max_bytes=LIMIT)
    assert counted == elements + 2 and encode(again[1]) == encode(value)
    assert measure(data, MAX_DEPTH, MAX_ITEMS) == elements
    return value


def _read(data: bytes) -> None:
    """The first byte says as what the others are read."""
    kind, data = data[:1], data[1:]
    if kind < b"\x20":
        open_envelope(BOB, data, NOW, LIMIT)
    elif kind < b"\x60":
        for item in open_envelope(BOB, _sealed(ALICE, BOB.user_id, HEADER, data, bytes(24)), NOW, LIMIT).items:
            _value(item.payload)
    elif kind < b"\x80":
        _value(data)
    else:
        READERS[kind[0] % len(READERS)](_value(data))


def one(data: bytes) -> None:
    """One case."""
    try:
        _read(data)
    except CoflowsError as error:
        assert len(str(error)) < 1000 and "\n" not in str(error).replace("\n         ", "")


def seeds() -> list[bytes]:
    """What honest users send, as ``_read`` reads it."""
    token, flow_id = "0" * 32, "00000000-0000-0000-0000-000000000000"
    address = InstanceAddress(ALICE.user_id, "endpoint", flow_id, "point", 3).to_dict()
    reply = {"mode": "storage", "session": token, "user_id": ALICE.user_id, "message_id": token}
    failure = Failure("code", "Error", "text", "hint").to_dict()
    items = [{"key": "a", "flow_endpoint": "e", "config_overrides": {"a": {"b": [1.5]}}}]
    fetch = {"kind": "fetch", "request_id": token, "session": token, "items": items, "deadline": 1.0}
    said = [
        Call(flow_id, {"a": [1, "b", None, b"c"]}, 1.0, flow_id, reply, token, failure).to_dict(),
        Reply(token, {"a": 1}, token, 1.0, flow_id, {"b": 2}, failure, True, True).to_dict(),
        failure,
        FlowMessage({"a": 1}, token, token, 1.0, ALICE.user_id, flow_id, ReplyAddress.from_dict(reply)).to_dict(),
        {**reply, "mode": "push", "flow_id": flow_id, "dispatch_point": "p", "partition": 1},
        address,
        {"kind": "recall", "flow_id": flow_id, "message_id": token, "session": token},
        fetch,
    ]
    values = [encode(value) for value in said]
    found = [bytes([0x80 + number]) + value for number, value in enumerate(values)]
    found += [b"\x40" + encode([[bytes(16), value, bytes(8), 1], [bytes(16), value, None, 0]]) for value in values]
    found.append(b"\x10" + seal(ALICE, BOB.user_id, token, 2_000_000_000, values[0], nonce=bytes(24)))
    item = Item(token, values[0], "0" * 16, 1)
    return [*found, b"\x10" + seal_items(ALICE, BOB.user_id, 2_000_000_000, [item], nonce=bytes(24))]


if __name__ == "__main__":
    for folder in (one for one in sys.argv[1:] if not one.startswith("-")):
        Path(folder).mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds()):
            (Path(folder) / f"honest-{number}").write_bytes(seed)
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
