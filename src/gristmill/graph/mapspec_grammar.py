"""The grammar of mapspecs: text to terms with their places, so that an error can point at one.

    spec  = ( "..." | terms ) "->" terms
    terms = term { "," term }
    term  = name [ "[" axis { "," axis } "]" ]
    axis  = ":" | [ "*" ] identifier
    name  = identifier { "." identifier }

Knows the syntax only; what a spec means, and which well-formed ones make no sense, is in `mapspec`.
"""

import re
from dataclasses import dataclass
from typing import NoReturn

from gristmill.errors import MapSpecError

Span = tuple[int, int]
"""Start and stop of a place in the text."""

TOKENS = re.compile(r"(?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)|(?P<mark>->|\.\.\.|[\[\],:*])|(?P<space>\s+)")
EXAMPLE = "a mapspec looks like 'x[i], y[j] -> z[i, j]'"


@dataclass(frozen=True)
class Token:
    """One word or mark of the text; the end of the text is an empty one."""

    text: str
    span: Span

    @property
    def is_name(self) -> bool:
        """Whether this is a name rather than a mark or the end."""
        return self.text[:1].isidentifier()

    def __str__(self) -> str:
        return repr(self.text) if self.text else "the end"


@dataclass(frozen=True)
class Term:
    """One array of a spec as written: axes are texts like `i`, `:` or `*j`."""

    name: str
    axes: tuple[str, ...]
    span: Span
    """The place of the name."""
    axis_spans: tuple[Span, ...]
    """The place of each axis."""


@dataclass(frozen=True)
class Sides:
    """A whole spec as written."""

    text: str
    inputs: tuple[Term, ...]
    outputs: tuple[Term, ...]


def refuse(text: str, span: Span, problem: str) -> NoReturn:
    """Raise the error for `problem`, with a caret line under the place."""
    start, stop = span
    shown = re.sub(r"\s", " ", text)
    caret = " " * start + "^" * max(1, stop - start)
    raise MapSpecError(f"mapspec {text!r}: {problem}\n    {shown}\n    {caret}")


def read(text: str) -> Sides:
    """The terms of a spec.

    Raises
    ------
    MapSpecError
        If the text does not follow the grammar.

    Examples
    --------
    >>> [term.name for term in read("x[i], k -> y[i]").inputs]
    ['x', 'k']
    """
    return _Reader(text).spec()


def _tokens(text: str) -> list[Token]:
    found, place = [], 0
    while place < len(text):
        match = TOKENS.match(text, place)
        if match is None:
            refuse(text, (place, place + 1), f"{text[place]!r} has no meaning here; {EXAMPLE}")
        if match.lastgroup != "space":
            found.append(Token(match.group(), match.span()))
        place = match.end()
    return [*found, Token("", (len(text), len(text)))]


class _Reader:
    """A recursive descent over the tokens: one method per rule of the grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.place = 0

    @property
    def next(self) -> Token:
        return self.tokens[self.place]

    def take(self, *marks: str) -> Token | None:
        token = self.next
        if token.text not in marks:
            return None
        self.place += 1
        return token

    def expect(self, what: str, advice: str) -> NoReturn:
        refuse(self.text, self.next.span, f"expected {what}, found {self.next}; {advice}")

    def spec(self) -> Sides:
        if not self.text.strip():
            self.expect("an array", f"{EXAMPLE}; for none leave it out")
        inputs = () if self.take("...") else self.terms("->")
        if self.take("->") is None:
            self.expect("'->'", "'...' stands alone on the left" if not inputs else EXAMPLE)
        return Sides(self.text, inputs, self.terms(""))

    def terms(self, end: str) -> tuple[Term, ...]:
        found = [self.term()]
        while self.next.text != end:
            if self.take(",") is None:
                self.expect(f"',' or {repr(end) if end else 'the end'}", "separate arrays with commas")
            found.append(self.term())
        return tuple(found)

    def term(self) -> Term:
        name = self.name("the name of a parameter or output", EXAMPLE)
        if self.take("[") is None:
            return Term(name.text, (), name.span, ())
        if self.next.text == "]":
            self.expect("an axis", f"write {name.text!r} without brackets to pass all of it to each call")
        axes = [self.axis()]
        while self.take("]") is None:
            if self.take(",") is None:
                self.expect("',' or ']'", "separate axes with commas and close the bracket")
            axes.append(self.axis())
        return Term(name.text, tuple(text for text, _ in axes), name.span, tuple(span for _, span in axes))

    def axis(self) -> tuple[str, Span]:
        if colon := self.take(":"):
            return ":", colon.span
        star = self.take("*")
        name = self.name("an axis", "an axis is a name like 'i', or ':' for all of a dimension")
        if "." in name.text:
            refuse(self.text, name.span, f"an axis is a plain name, found {name}; leave out the dot")
        start = star.span[0] if star else name.span[0]
        return ("*" if star else "") + name.text, (start, name.span[1])

    def name(self, what: str, advice: str) -> Token:
        token = self.next
        if not token.is_name:
            self.expect(what, advice)
        self.place += 1
        return token
