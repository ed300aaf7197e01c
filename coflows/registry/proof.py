"""What shows that the user whom a registry names offers a flow: his node's signed record, and the entry in it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from coflows.errors import CoflowsError, ProofInvalidError
from coflows.registry.entry import MAX_ENTRY_BYTES, FlowEntry, digest_of, first_problem, flow_id
from coflows.registry.item import Item, item_of
from coflows.registry.judging import OFFLINE, ONLINE
from coflows.registry.page import SignedText
from coflows.registry.record import Record


class Proof(BaseModel):
    """The record that names the entry's digest, and the entry's text."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    record: SignedText
    entry: Annotated[str, StringConstraints(max_length=MAX_ENTRY_BYTES)]


def proven(asked: str, status: object, proof: object) -> Item:
    """The item of the flow with the id ``asked``, made of what its user has signed; only whether he is there is the
    registry's word. Raises ProofInvalidError."""
    try:
        said = Proof.model_validate(proof)
        record, entry = _read(said)
    except (CoflowsError, ValidationError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else error.message
        raise ProofInvalidError(f"Flow {asked}: {problem}", hint="Do not trust the registry that lists it.") from error
    if digest_of(said.entry) not in record.flows or flow_id(record.user_id, record.url, entry.key) != asked:
        raise ProofInvalidError(
            f"Flow {asked}: user {record.user_id} does not offer it in the record that is to prove it.",
            hint="Do not trust the registry that lists it.",
        )
    state = ONLINE if status == ONLINE else OFFLINE
    return item_of(asked, entry, record.organization, record.url, record.user_id, record.broker, state)


def _read(said: Proof) -> tuple[Record, FlowEntry]:
    record = Record.read(said.record.signed).check(said.record.signed)
    return record, FlowEntry.from_text(said.entry)
