"""Which function an executor runs and with what: names, trust and signatures; arguments of parents."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from coflows.errors import AccessDeniedError, NameInvalidError, SerializationError, WorkflowError, WorkflowInvalidError
from coflows.identity.keys import Identity
from coflows.workflow import Workflow, func_spec
from coflows.workflow.colonies.function_spec import FunctionSpec, read_spec, read_specs
from coflows.workflow.colonies.functions import Functions, bind
from coflows.workflow.colonies.places import GraphId, ProcessId, colony_address, executor_place, run_address
from coflows.workflow.colonies.process_graph import is_packed, packed, restored

OWNER, AUTHOR, OTHER = (Identity.generate() for _ in range(3))
FLOW = "12345678-1234-1234-1234-123456789012"


def call(function: Any, *inputs: Any, args: Any = (), kwargs: Any = None, ctx: Any = None) -> Any:
    spec = func_spec("f", args, kwargs, "c", "t")
    return bind(function, [packed(one) for one in inputs], spec, ctx or {})()


def test_arguments_are_what_parents_gave_in_order_then_its_own() -> None:
    def f(*all: Any, **more: Any) -> Any:
        return all, more

    assert call(f, (1, 2), [3], {"a": 4}, args=[5], kwargs={"six": 6}) == ((1, 2, [3], {"a": 4}, 5), {"six": 6})
    assert call(f, ()) == ((), {})
    assert call(lambda a, ctx: (a, ctx), 1, ctx={"process": 2}) == (1, {"process": 2})


def test_nothing_is_an_argument_where_there_is_room_for_it() -> None:
    assert call(lambda x: x is None, None) is True
    assert call(lambda: "none", None) == "none"
    assert call(lambda a, ctx={}: a, None, 1) == 1
    with pytest.raises(TypeError):
        call(lambda a: a, 1, 2)
    with pytest.raises(TypeError):
        call(lambda: 0, (None,))


def test_coroutines_are_awaited() -> None:
    async def later(a: int) -> int:
        return a + 1

    assert call(later, 1) == 2


@pytest.mark.parametrize("value", [None, 1, (1, 2), (), [1], {"a": (1,)}])
def test_outputs_keep_being_tuples(value: Any) -> None:
    assert restored(packed(value)) == value and is_packed(packed(value))


@pytest.mark.parametrize("value", [None, 1, [], [True, 1], [1, 2, 3], {"a": 1}, [2, 2]])
def test_what_is_no_output(value: Any) -> None:
    assert not is_packed(value)


def signed(by: Identity = AUTHOR, colony: str = "c", **more: Any) -> FunctionSpec:
    return func_spec("f", executortype="t", **{"code": "def f(): return 7", **more}).signed(by, OWNER.user_id, colony)


def functions() -> Functions:
    return Functions(OWNER.user_id, "c", {AUTHOR.user_id})


def test_code_is_run_of_who_is_trusted_as_he_signed_it() -> None:
    found = functions()
    assert found.find(signed())() == 7
    assert found.find(signed()) is found.find(signed()), "loaded once"
    with pytest.raises(AccessDeniedError, match="not run here"):
        found.find(signed(OTHER))
    for forged in (
        signed(colony="other"),
        signed().model_copy(update={"code": "def f(): return 8"}),
        signed().model_copy(update={"funcname": "g"}),
        signed().model_copy(update={"signature": None}),
        signed(OTHER).model_copy(update={"code_by": AUTHOR.user_id}),
    ):
        with pytest.raises(AccessDeniedError, match="not signed"):
            found.find(forged)


def test_pickled_code_is_not_opened_for_others() -> None:
    opened = []

    class Trap:
        def __reduce__(self) -> Any:
            return opened.append, (1,)

    spec = func_spec("f", executortype="t").model_copy(update={"code": __import__("cloudpickle").dumps(Trap())})
    with pytest.raises(AccessDeniedError):
        functions().find(spec.signed(OTHER, OWNER.user_id, "c"))
    assert opened == []


def test_a_registered_function_goes_before_code() -> None:
    found = functions()
    found.register(lambda: 1, "f")
    assert found.find(signed(OTHER))() == 1
    with pytest.raises(WorkflowError, match="This executor has: f"):
        found.find(func_spec("g", executortype="t"))
    with pytest.raises(WorkflowError, match="has no function"):
        functions().find(signed(code="x = 1"))


def test_specs_are_checked() -> None:
    def f() -> None: ...

    made = func_spec(f, executortype="t", maxretries=2, nodename="n")
    assert read_spec(made.to_dict()) == made and made.funcname == "f" and made.process().policy.maxretries == 2
    for wrong in ({}, {"funcname": "f"}, {**made.to_dict(), "more": 1}, {**made.to_dict(), "maxretries": -1}, 7):
        with pytest.raises(WorkflowInvalidError):
            read_spec(wrong)
    lock = threading.Lock()
    with pytest.raises(SerializationError, match=r"Function locked cannot be sent: .*Open connections, locks"):
        func_spec(lambda: lock, executortype="t", nodename="locked")
    for wrong, said in (
        ({"funcname": "f", "nodename": "f", "conditons": {}}, "f: conditons is not known.*conditions"),
        ({"funcname": "f", "nodename": "f", "conditions": {"need": []}}, "conditions.need is not known.*dependencies"),
        ({"funcname": "f", "nodename": "f"}, "f has no executortype.*--type"),
    ):
        with pytest.raises(WorkflowInvalidError, match=said):
            read_spec(wrong)
    with pytest.raises(NameInvalidError):
        func_spec("f", executortype="no:type")
    with pytest.raises(NameInvalidError):
        Workflow("a/b")
    with pytest.raises(WorkflowInvalidError, match="no functions"):
        read_specs([])


def test_places_and_ids() -> None:
    owner = OWNER.user_id
    assert colony_address(owner, "c") == colony_address(owner, "c") != colony_address(OTHER.user_id, "c")
    assert executor_place(owner, "c", "t") != executor_place(OTHER.user_id, "c", "t")
    assert run_address(owner, "c", FLOW).dispatch_point == colony_address(owner, "c").dispatch_point
    process = ProcessId(GraphId("c", FLOW), "with/slash")
    assert ProcessId.parse(str(process)) == process and GraphId.parse(str(process.graph)) == process.graph
    for wrong in ("", "c", f"c/{FLOW}", f"c:{FLOW}/x", f"/{FLOW}/x"):
        with pytest.raises(NameInvalidError):
            ProcessId.parse(wrong)


def test_code_that_needs_what_is_not_there_says_so() -> None:
    for code in ("import not_there\ndef f(): pass", b"cnot_there\nf\n."):
        with pytest.raises(WorkflowError, match="step f needs module not_there"):
            functions().find(
                func_spec("f", executortype="t").model_copy(update={"code": code}).signed(AUTHOR, OWNER.user_id, "c")
            )
