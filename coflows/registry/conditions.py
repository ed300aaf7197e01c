"""A query's tree as a condition of SQL: fixed texts with a mark for each value, which is handed over beside it."""

from __future__ import annotations

import unicodedata

from coflows.registry.query import Compare, Not, Or, Tree, Words

_COLUMNS = {
    **{
        name: name
        for name in ("name", "organization", "author", "description", "url", "user_id", "flow_endpoint", "id")
    },
    "node": "node_url",
}
_COMPARED = {
    **{sign: f"{{}} {sign} ?" for sign in ("=", "<", "<=", ">", ">=")},
    "!=": "{} <> ?",
    "~": "instr({}, ?) > 0",
    "!~": "instr({}, ?) = 0",
}
_OPPOSITE = {"!=": "=", "!~": "~"}
_OF_NODE = {"broker": "coalesce(broker, '')", "status": "state"}
Condition = tuple[str, list[str]]


def condition_of(tree: Tree) -> Condition:
    """The condition on a row of ``flows``, and its values."""
    if isinstance(tree, Words):
        return _words([tree])
    if isinstance(tree, Compare):
        return _compare(tree)
    if isinstance(tree, Not):
        text, values = condition_of(tree.part)
        return f"NOT ({text})", values
    if isinstance(tree, Or):
        return _joined(" OR ", [condition_of(part) for part in tree.parts])
    words = [part for part in tree.parts if isinstance(part, Words)]
    others = [condition_of(part) for part in tree.parts if not isinstance(part, Words)]
    return _joined(" AND ", ([_words(words)] if words else []) + others) if tree.parts else ("1", [])


def _joined(word: str, parts: list[Condition]) -> Condition:
    return word.join(f"({text})" for text, _ in parts), [value for _, values in parts for value in values]


def _compare(tree: Compare) -> Condition:
    value = tree.value.casefold()
    if tree.field in _COLUMNS:
        return _COMPARED[tree.operator].format(_COLUMNS[tree.field]), [value]
    positive = _OPPOSITE.get(tree.operator, tree.operator)
    how = "NOT IN" if tree.operator in _OPPOSITE else "IN"
    if tree.field == "tag":
        return f"flow {how} (SELECT flow FROM tags WHERE {_COMPARED[positive].format('folded')})", [value]
    column = _OF_NODE[tree.field]
    return f"node {how} (SELECT node FROM nodes WHERE {_COMPARED[positive].format(column)})", [value]


def _words(words: list[Words]) -> Condition:
    """Beginnings of words, by the index of words; signs that are no part of words are looked for as they are."""
    indexed = [f'"{_spoken(one.text)}"*' for one in words if _spoken(one.text).strip()]
    parts: list[Condition] = []
    if indexed:
        parts.append(("flow IN (SELECT rowid FROM words WHERE words MATCH ?)", [" AND ".join(indexed)]))
    for one in words:
        if not _spoken(one.text).strip():
            sign = one.text.casefold().strip()
            parts.append(("instr(name, ?) > 0 OR instr(description, ?) > 0", [sign, sign]))
    return _joined(" AND ", parts)


def _spoken(text: str) -> str:
    """What of a text the index of words has: letters, numbers and marks; the rest parts words."""
    return "".join(sign if unicodedata.category(sign)[0] in "LNM" or unicodedata.category(sign) == "Co" else " "
                   for sign in text.casefold())  # fmt: skip
