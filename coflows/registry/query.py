"""The search language: a text becomes a tree of comparisons, which nothing ever evaluates as code.

    query   = every {"or" every}
    every   = one {["and"] one}
    one     = "not" one | "(" query ")" | field operator value | "@" field "(" value ")" | value
    value   = a word, or a text in quotes, where a backslash takes the next sign as it is

Words alone are looked for in all texts. A text that is no query, and has nothing in it that only a query has, is words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from coflows.errors import QueryInvalidError

MAX_QUERY = 1000
MAX_TERMS = 64
MAX_NESTING = 32
FIELDS = (
    *("name", "organization", "author", "description", "tag", "url", "node", "user_id"),
    *("flow_endpoint", "broker", "status", "id"),
)
OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "~", "!~")
_TOKEN = re.compile(
    r"""\s*(?:(?P<sign><=|>=|!=|!~|[=<>~()@])|(?P<word>[^\s=<>~()@"'!]+|!)"""
    r"""|"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:[^'\\]|\\.)*)')""",
    re.S,
)


@dataclass(frozen=True, slots=True)
class Words:
    """A text to look for in all that is said of a flow."""

    text: str


@dataclass(frozen=True, slots=True)
class Compare:
    """A field beside a value: equal, different, before, after, or containing it."""

    field: str
    operator: str
    value: str


@dataclass(frozen=True, slots=True)
class Not:
    """What the part is not true of."""

    part: Tree


@dataclass(frozen=True, slots=True)
class And:
    """What all parts are true of; of no parts: everything."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """What one of the parts is true of."""

    parts: tuple[Tree, ...]


Tree = Words | Compare | Not | And | Or


def asks_status(tree: Tree) -> bool:
    """Whether what a query finds changes with who is online."""
    if isinstance(tree, And | Or):
        return any(map(asks_status, tree.parts))
    return asks_status(tree.part) if isinstance(tree, Not) else isinstance(tree, Compare) and tree.field == "status"


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


def parse_query(text: str) -> Tree:
    """The tree of a query; an empty one is true of everything. Raises QueryInvalidError, which says where."""
    if len(text) > MAX_QUERY:
        raise QueryInvalidError(f"The query has {len(text)} characters; at most {MAX_QUERY} are taken.")
    try:
        return _Parser(_tokens(text), len(text)).whole()
    except QueryInvalidError:
        if re.search(r"[=<>~@]", text):
            raise
        return _plain_words(text)


def _plain_words(text: str) -> Tree:
    words = text.split()
    if len(words) > MAX_TERMS:
        raise QueryInvalidError(f"The query has {len(words)} words; at most {MAX_TERMS} are taken.")
    return And(tuple(Words(word) for word in words))


def _tokens(text: str) -> list[_Token]:
    found, position = [], 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            at = position + len(text[position:]) - len(text[position:].lstrip())
            raise QueryInvalidError(f"A quote opens at {at} and does not close.", position=at)
        kind = str(match.lastgroup)
        value = match[kind] if kind in ("sign", "word") else re.sub(r"\\(.)", r"\1", match[kind], flags=re.S)
        found.append(_Token("text" if kind in ("single", "double") else kind, value, match.start(kind)))
        position = match.end()
    return found


class _Parser:
    def __init__(self, tokens: list[_Token], length: int) -> None:
        self._tokens = [*tokens, _Token("end", "", length)]
        self._next = 0
        self._terms = 0
        self._depth = 0

    def whole(self) -> Tree:
        if self._peek().kind == "end":
            return And(())
        tree = self._any()
        if self._peek().kind != "end":
            self._fail("and, or, or the end")
        return tree

    def _any(self) -> Tree:
        parts = [self._every()]
        while self._is_word("or"):
            self._take()
            parts.append(self._every())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _every(self) -> Tree:
        parts = [self._one()]
        while True:
            if self._is_word("and"):
                self._take()
            elif self._peek().kind == "end" or self._is_sign(")") or self._is_word("or"):
                return parts[0] if len(parts) == 1 else And(tuple(parts))
            parts.append(self._one())

    def _one(self) -> Tree:
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise QueryInvalidError(f"The query is nested deeper than {MAX_NESTING}.", position=self._peek().position)
        tree = self._not() if self._is_word("not") else self._group() if self._is_sign("(") else self._term()
        self._depth -= 1
        return tree

    def _not(self) -> Tree:
        self._take()
        return Not(self._one())

    def _group(self) -> Tree:
        self._take()
        tree = self._any()
        self._expect(")")
        return tree

    def _term(self) -> Tree:
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise QueryInvalidError(f"The query has more than {MAX_TERMS} terms.", position=self._peek().position)
        if self._is_sign("@"):
            self._take()
            field = self._field(self._take())
            self._expect("(")
            value = self._value()
            self._expect(")")
            return Compare(field, "=", value)
        token = self._take()
        if token.kind == "word" and self._peek().text in OPERATORS and self._peek().kind == "sign":
            return Compare(self._field(token), self._take().text, self._value())
        if token.kind not in ("word", "text") or (token.kind == "word" and token.text.lower() in ("and", "or", "!")):
            self._fail("a word, a comparison or a parenthesis", token)
        return Words(token.text)

    def _field(self, token: _Token) -> str:
        name = {"tags": "tag"}.get(token.text.lower(), token.text.lower())
        if token.kind != "word" or name not in FIELDS:
            raise QueryInvalidError(
                f"There is no field {token.text[:80]!r}, at {token.position}.",
                position=token.position,
                hint=f"Fields are {', '.join(FIELDS)}.",
            )
        return name

    def _value(self) -> str:
        token = self._take()
        if token.kind not in ("word", "text"):
            self._fail("a word or a text in quotes", token)
        return token.text

    def _expect(self, sign: str) -> None:
        token = self._take()
        if token.kind != "sign" or token.text != sign:
            self._fail(f"'{sign}'", token)

    def _is_sign(self, sign: str) -> bool:
        return self._peek().kind == "sign" and self._peek().text == sign

    def _is_word(self, word: str) -> bool:
        return self._peek().kind == "word" and self._peek().text.lower() == word

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _fail(self, wanted: str, token: _Token | None = None) -> NoReturn:
        token = token or self._peek()
        found = f"{token.text[:80]!r}" if token.kind != "end" else "the end"
        raise QueryInvalidError(
            f"The query has {found} at {token.position}; expected {wanted}.",
            position=token.position,
            hint='For instance: name ~ "reverse" and @tag("math").',
        )
