"""The formula that opens an operation's docstring, set as mathematics in HTML.

The value comes first, the gradients after five spaces or on lines of their own: ``a · b     ∂L/∂a = g b``.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

SYMBOLS = {"input": "xzp", "weight": "Wγ", "bias": "bβ", "target": "y"}
"""What formulas call the arguments whose names are words."""

SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉"


class Formula(NamedTuple):
    value: str
    gradients: tuple[str, ...]
    """Each of the form ``∂L/∂x = …``; one input may have several, for different cases."""

    @property
    def result(self) -> str:
        """What the formula calls the value, y if it has no name."""
        named = re.match(r"([^\W\d_])\S? = |([^\W\d_])\S?\(\S*\) = ", self.value)
        return named[1] if named and named[1] else "y"

    def symbol(self, argument: str) -> str:
        """What the formula calls the argument of this name."""
        known = [symbol_of(gradient) for gradient in self.gradients]
        for candidate in (argument, argument.upper(), *SYMBOLS.get(argument, "")):
            if candidate in known:
                return candidate
        return argument

    def gradients_of(self, symbol: str) -> list[str]:
        """Those by the input of this symbol: ``∂L/∂xᵢ = …`` is that by x₁, x₂, and so on."""
        return [gradient for gradient in self.gradients if symbol_of(gradient) == symbol.rstrip(SUBSCRIPTS)]


def parse(formula: str) -> Formula:
    value, *gradients = (part.strip() for part in re.split(r" {5}|\n", formula))
    return Formula(value, tuple(gradients))


def symbol_of(gradient: str) -> str:
    """``x`` of ``∂L/∂xᵢ = …``."""
    found = re.match(r"∂L/∂([A-Za-z]{2,}|[^\W\d_])", gradient)
    return found[1] if found else ""


def typeset(text: str) -> str:
    """HTML of a formula with words: variables in italics, stacked fractions, raised and lowered scripts.

    A fraction written tightly, as in ``∂L/∂x``, takes what touches it; one with spaces takes the whole product before
    it and the one factor behind it.
    """
    return "".join(piece.markup for piece in _fractions(_pieces(text)))


class Piece(NamedTuple):
    kind: str
    """space, operator, slash, code, or run: what stands together without a space."""
    markup: str
    bare: str
    """The markup without the parentheses around all of it."""


TOKEN = re.compile(r"""
    (?P<space>\s+) | `(?P<code>[^`]*)` | (?P<scripted>[\^_])\{ | (?P<slash>/) | (?P<operator>[-−+=·,;:<>≤≥×←→∗…])
    | (?P<word>[A-Za-z][A-Za-z0-9]+) | (?P<open>[(\[]) | (?P<letter>.[\u0300-\u036f]*)
""", re.VERBOSE)


def _pieces(text: str) -> list[Piece]:
    pieces: list[Piece] = []
    run: list[tuple[str, str]] = []

    def end_run() -> None:
        if run:
            whole, bare = "".join(markup for markup, _ in run), run[0][1]
            pieces.append(Piece("run", whole, bare if len(run) == 1 else whole))
            run.clear()

    position = 0
    while position < len(text):
        match = TOKEN.match(text, position)
        assert match is not None, "any character is at least a letter"
        kind, token = match.lastgroup, match[0]
        position = match.end()
        if kind in ("space", "operator", "slash", "code"):
            end_run()
            markup = f"<code>{html.escape(match['code'])}</code>" if kind == "code" else html.escape(token)
            pieces.append(Piece(kind, markup, markup))
            continue
        if kind in ("scripted", "open"):
            end = _closing(text, position - 1)
            inner, position = text[position : end], end + 1
            if kind == "scripted":
                tag = "sup" if token[0] == "^" else "sub"
                run.append((f"<{tag}>{typeset(inner)}</{tag}>",) * 2)
            else:
                run.append((f"{token}{typeset(inner)}{html.escape(text[end : end + 1])}", typeset(inner)))
            continue
        run.append((_symbol(token, text, match.start()),) * 2)
    end_run()
    return pieces


def _closing(text: str, opening: int) -> int:
    """Where the bracket at `opening` is closed, the end of the text if nowhere."""
    pairs = {"(": ")", "[": "]", "{": "}"}
    close, depth = pairs[text[opening]], 0
    for place in range(opening, len(text)):
        depth += (text[place] == text[opening]) - (text[place] == close)
        if depth == 0:
            return place
    return len(text)


def _symbol(token: str, text: str, start: int) -> str:
    kind = unicodedata.decomposition(token[0]).partition(" ")[0]
    if kind in ("<super>", "<sub>"):
        tag, plain = kind[1:4], unicodedata.normalize("NFKC", token)
        return f"<{tag}>{plain if plain == 'T' else _symbol(plain, plain, 0)}</{tag}>"
    is_word = re.match(r"[A-Za-z]\w", token) or token in ("Σ", "Π")
    is_article = re.match(r"a [a-z]{2}", text[start:]) and re.search(r"[a-z]{2} $", text[:start])
    return f"<i>{token}</i>" if token[0].isalpha() and not (is_word or is_article) else html.escape(token)


def _fractions(pieces: Sequence[Piece]) -> list[Piece]:
    """Pieces in which every slash between runs has become a fraction."""
    done: list[Piece] = []
    index = 0
    while index < len(pieces):
        piece = pieces[index]
        index += 1
        if piece.kind != "slash":
            done.append(piece)
            continue
        spaced = bool(done) and done[-1].kind == "space"
        over = _taken_back(done, spaced)
        below, index = _taken_ahead(pieces, index, spaced)
        markup = (f'<span class="fraction"><span>{_joined(over)}</span><span class="slash">/</span>'
                  f"<span>{_joined(below)}</span></span>")
        done.append(Piece("run", markup, markup))
    return done


def _taken_back(done: list[Piece], product: bool) -> list[Piece]:
    """The numerator, removed from the end of `done`: the last run, or all runs since the last operator."""
    start = len(done)
    while start > 0 and done[start - 1].kind in (("run", "space") if product else ("run",)):
        start -= 1
        if not product:
            break
    while start < len(done) and done[start].kind == "space":
        start += 1
    taken = done[start:]
    del done[start:]
    return taken


def _taken_ahead(pieces: Sequence[Piece], index: int, spaced: bool) -> tuple[list[Piece], int]:
    """The denominator: the next run, a Σ together with what it sums."""
    start = index + (spaced and index < len(pieces) and pieces[index].kind == "space")
    end = start + 1
    if start < len(pieces) and pieces[start].markup.startswith("Σ") and len(pieces) > start + 2:
        end = start + 3
    return list(pieces[start:end]), end


def _joined(pieces: Sequence[Piece]) -> str:
    pieces = list(pieces)
    while pieces and pieces[-1].kind == "space":
        pieces.pop()
    return pieces[0].bare if len(pieces) == 1 else "".join(piece.markup for piece in pieces)
