"""The search language: every text is a tree or an error, and what is listed is what the tree says."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from coflows.errors import QueryInvalidError
from coflows.identity.keys import Identity
from coflows.registry import listing, steps
from coflows.registry.database import Database
from coflows.registry.entry import FlowEntry, digest_of
from coflows.registry.judging import Times
from coflows.registry.kept import Kept
from coflows.registry.listing import Item, Listing
from coflows.registry.nodes import Claim, Nodes
from coflows.registry.order import parse_order
from coflows.registry.query import And, Compare, Not, Or, Tree, Words, parse_query
from coflows.registry.record import Beat, Record

WORDS = ("reverse", "Number", "straße", "agent", "c++", "a", 'say "hi"', "über", "100%", "it's", "under_score")


SIGNS = ('"', "'", "(", ")", "and", "or", "not", "name", "=", "~", "@tag", "\\", "x", "!", " ")


@given(st.text(max_size=60) | st.lists(st.sampled_from(SIGNS), max_size=20).map("".join))
@example("@tag(\x00)")
@example("not")
@example("(" * 40)
def test_every_text_is_a_tree_or_an_error(text: str) -> None:
    try:
        parse_query(text)
    except QueryInvalidError as error:
        assert 0 <= error.position <= len(text) and str(error)


def values() -> st.SearchStrategy[str]:
    return st.sampled_from([word[at : at + size] for word in WORDS for at in (0, 1) for size in (1, 3, 20)]).filter(
        bool
    )


def trees() -> st.SearchStrategy[Tree]:
    field = st.sampled_from(("name", "author", "description", "tag", "flow_endpoint", "status", "organization"))
    operator = st.sampled_from(("=", "!=", "<", "<=", ">", ">=", "~", "!~"))
    leaves = st.builds(Compare, field, operator, values()) | values().map(Words)
    return st.recursive(
        leaves,
        lambda inner: (
            inner.map(Not)
            | st.lists(inner, min_size=2, max_size=3).map(lambda parts: And(tuple(parts)))
            | st.lists(inner, min_size=2, max_size=3).map(lambda parts: Or(tuple(parts)))
        ),
        max_leaves=6,
    )


def written(tree: Tree) -> str:
    if isinstance(tree, Words):
        return quoted(tree.text)
    if isinstance(tree, Compare):
        return f"{tree.field} {tree.operator} {quoted(tree.value)}"
    if isinstance(tree, Not):
        return f"not ({written(tree.part)})"
    word = " or " if isinstance(tree, Or) else " and "
    return word.join(f"({written(part)})" for part in tree.parts)


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@given(trees())
def test_a_written_tree_is_read_back(tree: Tree) -> None:
    assert parse_query(written(tree)) == tree


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", And(())),
        ("reverse number", And((Words("reverse"), Words("number")))),
        ("C++ (beta", And((Words("C++"), Words("(beta")))),
        ("it's", And((Words("it's"),))),
        ('name="x" AND @tag(y)', And((Compare("name", "=", "x"), Compare("tag", "=", "y")))),
        ("a or b c", Or((Words("a"), And((Words("b"), Words("c")))))),
        ("not a b", And((Not(Words("a")), Words("b")))),
    ],
)
def test_what_is_meant(text: str, tree: Tree) -> None:
    assert parse_query(text) == tree


@pytest.mark.parametrize(
    "text",
    [
        *("name =", "= x", "size > 3", '@tag("x"', "@x(y)", 'name = "x', "name = (a)", "x" * 1001, "__class__ = 1"),
        *("not " * 40 + "a = b", " ".join(["a"] * 70), "(" * 40 + "a = b" + ")" * 40),
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(QueryInvalidError):
        parse_query(text)


@pytest.mark.parametrize("text", ["size", "name:x", "name;drop table flows", "name,,author", "name:d:d"])
def test_orders_that_are_refused(text: str) -> None:
    with pytest.raises(QueryInvalidError):
        parse_order(text)


# -- what is listed ----------------------------------------------------------------------------------------


@dataclass
class Listed:
    listing: Listing
    items: list[Item]


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listed]:
    folder: Path = tmp_path_factory.mktemp("listing")
    db = Database(folder / "cache.db")
    nodes = Nodes(db, Times(30, 60))
    for number in range(3):
        flows = [
            FlowEntry(
                key=f"{one}",
                name=f"{WORDS[one % 11]} {WORDS[(one + number) % 7]}",
                author=WORDS[one % 4],
                description=" ".join(WORDS[(one * number + part) % 11] for part in range(4)),
                tags=list(dict.fromkeys([WORDS[one % 5], WORDS[number]])),
                flow_endpoint=f"under_{one}" if one % 2 else None,
            )
            for one in range(40)
        ]
        put(nodes, db, f"http://node{number}", f"Org {number}", flows)
    yield Listed(Listing(db), Listing(db).page(And(()), parse_order(""), 1000, 0).items)
    db.close()


def put(nodes: Nodes, db: Database, url: str, organization: str, flows: list[FlowEntry]) -> None:
    user = Identity.generate()
    texts = {digest_of(flow.text()): flow.text() for flow in flows}
    record = Record(
        user_id=user.user_id, url=url, sequence=1, organization=organization, registry=False, feed=False,
        flows=sorted(texts),
    )  # fmt: skip
    beat = Beat(user_id=user.user_id, url=url, beat=int(time.time() * 1000))
    with db.write() as writing:
        nodes.keep_entries(writing, texts, time.time())
        nodes.take_record(writing, Claim(record, record.sign(user), beat, beat.sign(user), time.time(), "via"))
    db.version += 1


def holds(tree: Tree, item: Item) -> bool:
    """What a query means, said once more, the slow way."""
    if isinstance(tree, Not):
        return not holds(tree.part, item)
    if isinstance(tree, And | Or):
        return (all if isinstance(tree, And) else any)(holds(part, item) for part in tree.parts)
    if isinstance(tree, Words):
        return has_words(tree.text.casefold().strip(), item)
    value = tree.value.casefold()
    negative = tree.operator.startswith("!")
    texts = item["tags"] if tree.field == "tag" else [item[tree.field] or ""]
    compare = {
        "=": lambda text: text == value,
        "<": lambda text: text < value,
        "<=": lambda text: text <= value,
        ">": lambda text: text > value,
        ">=": lambda text: text >= value,
        "~": lambda text: value in text,
    }[tree.operator.lstrip("!") if negative else tree.operator]
    return any(compare(text.casefold()) for text in texts) != negative


def plain(text: str) -> str:
    """As the index of words takes letters: without their dots."""
    return text.replace("ü", "u")


def has_words(text: str, item: Item) -> bool:
    texts = [item[field].casefold() for field in ("name", "organization", "author", "description")]
    texts += ["\n".join(item["tags"]).casefold(), (item["flow_endpoint"] or "").casefold()]

    def parts(whole: str) -> list[str]:
        return "".join(sign if sign.isalnum() else " " for sign in plain(whole)).split()

    there = [part for one in texts for part in parts(one)]
    wanted = parts(text)
    found = all(any(one.startswith(word) if len(word) > 1 else one == word for one in there) for word in wanted)
    return found and (wanted == [plain(text)] or any(text in one for one in texts))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(tree=trees())
def test_what_is_listed_is_what_the_query_says(listed: Listed, tree: Tree) -> None:
    found = listed.listing.page(tree, parse_order(""), 1000, 0)
    wanted = [item["id"] for item in listed.items if holds(tree, item)]
    assert [item["id"] for item in found.items] == wanted
    assert (found.total, found.filtered) == (120, len(wanted))


@pytest.mark.parametrize("by", ["name", "name:d,author", "author", "organization:d,name", "node,author:d", "url:d"])
@pytest.mark.parametrize("q", ["", "not name ~ reverse", "name = 'reverse reverse'"])
@pytest.mark.parametrize("many", [3, 10_000])
def test_pages_are_the_whole_in_order(
    listed: Listed, by: str, q: str, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_FEW", 10)
    monkeypatch.setattr(listing, "_MANY", many)
    monkeypatch.setattr(steps, "MAX_STEPS", 5000 if many == 3 else 2)
    monkeypatch.setattr(listed.listing, "_of_columns", Kept(7))
    order, query = parse_order(by), parse_query(q)
    whole = listed.listing.page(query, order, 1000, 0).items
    pages = [item for p in range(30) for item in listed.listing.page(query, order, 7, p).items]
    assert [item["id"] for item in pages] == [item["id"] for item in whole]
    wanted = sorted(
        (item for item in listed.items if holds(query, item)), key=lambda item: (item["name"].casefold(), item["id"])
    )
    for key in reversed(order):
        wanted.sort(key=lambda item: (item[key.field] or "").casefold(), reverse=key.down)
    assert [item["id"] for item in whole] == [item["id"] for item in wanted]


def test_what_all_have_the_same_of_sorts_nothing(tmp_path: Path) -> None:
    with closing(Database(tmp_path / "cache")) as db:
        put(Nodes(db, Times(30, 60)), db, "http://node", "Org", [FlowEntry(key=word, name=word) for word in WORDS])
        names = sorted(set(WORDS), key=str.casefold)
        for by, wanted in (("organization:d,user_id,name:d", names[::-1]), ("user_id:d", names), ("", names)):
            found = Listing(db).page(And(()), parse_order(by), 1000, 0).items
            assert [item["name"].casefold() for item in found] == [name.casefold() for name in wanted]
            deep = [item for p in range(len(names)) for item in Listing(db).page(And(()), parse_order(by), 1, p).items]
            assert [item["id"] for item in deep] == [item["id"] for item in found]


@given(st.lists(st.sampled_from("abcd"), max_size=20), st.booleans())
def test_steps_lead_to_each_place(values: list[str], down: bool) -> None:
    counts = sorted(Counter(values).items())
    there = steps.Steps([value for value, _ in counts], list(accumulate(number for _, number in counts)))
    inorder = sorted(values, reverse=down)
    for offset, value in enumerate(inorder):
        assert there.at(offset, down) == (value, inorder.index(value), inorder.count(value))
    assert there.at(len(values), down) is None
