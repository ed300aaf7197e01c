"""A query's tree as a condition of SQL: fixed texts with a mark for each value, which is handed over beside it."""

from __future__ import annotations

import unicodedata

from coflows.registry.query import And, Compare, Not, Or, Tree, Words

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
_TEXTS = ("name", "organization", "author", "description", "tags", "flow_endpoint")
_PIECED = ("name", "author", "description")
_INDEXED = ("name", "organization", "author", "url", "node", "user_id", "flow_endpoint", "id", "tag")
_PIECE, _MAX_PIECES = 3, 8
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
        parts = [condition_of(part) for part in tree.parts]
        return _joined(" OR ", parts) if not all(map(_by_index, tree.parts)) else _united(parts)
    words = [part for part in tree.parts if isinstance(part, Words)]
    others = [condition_of(part) for part in tree.parts if not isinstance(part, Words)]
    return _joined(" AND ", ([_words(words)] if words else []) + others) if tree.parts else ("1", [])


def _by_index(tree: Tree) -> bool:
    """Whether an index leads to what the tree finds, rather than a look at every flow."""
    if isinstance(tree, Compare):
        pieced = tree.operator == "~" and tree.field in _PIECED and len(tree.value.casefold()) >= _PIECE
        return pieced or (tree.operator == "=" and tree.field in _INDEXED)
    if isinstance(tree, And):
        return any(map(_by_index, tree.parts))
    if isinstance(tree, Or):
        return all(map(_by_index, tree.parts))
    return isinstance(tree, Words) and any(len(word) > 1 for word in _spoken(tree.text.casefold()))


def _united(parts: list[Condition]) -> Condition:
    """Any of them, each found by its own index."""
    found = " UNION ALL ".join(f"SELECT flow FROM flows WHERE {text}" for text, _ in parts)
    return f"flow IN ({found})", [value for _, values in parts for value in values]


def _joined(word: str, parts: list[Condition]) -> Condition:
    return word.join(f"({text})" for text, _ in parts), [value for _, values in parts for value in values]


def _compare(tree: Compare) -> Condition:
    value = tree.value.casefold()
    if "\0" in value:
        return ("1" if tree.operator in _OPPOSITE else "0"), []
    positive = _OPPOSITE.get(tree.operator, tree.operator)
    if tree.field in _COLUMNS:
        column = _COLUMNS[tree.field]
        if positive == "~" and column in _PIECED and len(value) >= _PIECE:
            return _contains(column, value, "NOT " if tree.operator in _OPPOSITE else "")
        return _COMPARED[tree.operator].format(column), [value]
    how = "NOT IN" if tree.operator in _OPPOSITE else "IN"
    if tree.field == "tag":
        return f"flow {how} (SELECT flow FROM tags WHERE {_COMPARED[positive].format('folded')})", [value]
    column = _OF_NODE[tree.field]
    return f"node {how} (SELECT node FROM nodes WHERE {_COMPARED[positive].format(column)})", [value]


def _contains(column: str, value: str, no: str) -> Condition:
    """By the index of pieces, which finds where all are; then by looking whether they are one text."""
    pieces = dict.fromkeys(value[at : at + _PIECE] for at in range(min(len(value) - _PIECE + 1, _MAX_PIECES)))
    wanted = " AND ".join(_quoted(piece) for piece in pieces)
    found = "flow IN (SELECT rowid FROM pieces WHERE pieces MATCH ?)"
    return f"{no}({found} AND instr({column}, ?) > 0)", [wanted, value]


def _words(words: list[Words]) -> Condition:
    """Beginnings of words, by the index of words; single letters are words. Signs that are no part of words are looked
    for as they are, and so are texts of several words once each word is found."""
    wanted: list[str] = []
    parts: list[Condition] = []
    for one in words:
        text = one.text.casefold().replace("\0", " ").strip()
        spoken = _spoken(text)
        wanted += [_quoted(word) + ("*" if len(word) > 1 else "") for word in spoken]
        if len(spoken) != 1 or spoken[0] != text:
            parts.append((" OR ".join(f"instr({column}, ?) > 0" for column in _TEXTS), [text] * len(_TEXTS)))
    found = "flow IN (SELECT rowid FROM words WHERE words MATCH ?)"
    return _joined(" AND ", [*([(found, [" AND ".join(wanted)])] if wanted else []), *parts])


def _quoted(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def _spoken(text: str) -> list[str]:
    """The words of a text as the index has them: letters, numbers and marks; the rest parts words."""
    return "".join(sign if unicodedata.category(sign)[0] in "LNM" or unicodedata.category(sign) == "Co" else " "
                   for sign in text).split()  # fmt: skip
