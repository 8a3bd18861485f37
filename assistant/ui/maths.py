r"""Mathematics in Markdown: $…$, $$…$$, \(…\) and \[…\] as MathML, which browsers draw by themselves.

latex2mathml reads the LaTeX; its own output is not used, because it undoes all escaping and takes `\href`, `\style` and
`\class` from whoever wrote the formula. Here the tree it made is written out: known elements, known attributes, text
escaped. What it cannot read is shown as it was written. Left out on purpose: macros, which can grow without end.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from html import unescape
from xml.etree.ElementTree import Element

from latex2mathml.converter import Converter
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererProtocol
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markupsafe import escape

MOST_CHARACTERS = 2000  # of one formula
_MACROS = re.compile(r"\\(re)?newcommand|\\def|\\let|\\providecommand|\\DeclareMathOperator")

# A lone dollar opens before and closes after what is no space, and never before a digit: $5 and $10 are prices.
_DOLLAR = re.compile(r"\$((?=\S)[^$]*?(?<=[^\s\\]))\$(?!\d)")
_INLINE = {"$$": "$$", r"\(": r"\)", r"\[": r"\]"}
_BLOCK = {"$$": "$$", r"\[": r"\]"}

_ELEMENTS = re.compile(
    "math|mrow|mi|mn|mo|ms|mtext|mspace|mfrac|msqrt|mroot|msup|msub|msubsup|mover|munder|munderover|mtable|mtr|mtd|"
    "mpadded|mphantom|menclose|mstyle|merror|mmultiscripts|mprescripts|none"
)
_ATTRIBUTES = re.compile(
    "display|displaystyle|scriptlevel|mathvariant|stretchy|fence|form|accent|accentunder|movablelimits|separator|"
    "symmetric|largeop|columnalign|columnspacing|columnlines|rowspacing|rowlines|rowalign|frame|linethickness|notation|"
    "width|height|depth|lspace|rspace|voffset|minsize|maxsize|mathcolor"
)
_VALUE = re.compile(
    r"[#+\-]?([a-zA-Z]+|[0-9a-fA-F]{3,6}|\d{1,3}(\.\d+)?(em|ex|px|pt|%)?|\.\d+em)([ ][\w.]{1,12}){0,12}"
)


def mathml(latex: str, *, block: bool = False) -> str:
    """A formula as MathML, or as code when it cannot be read."""
    written = latex.strip()
    if len(written) > MOST_CHARACTERS or _MACROS.search(written):
        return _as_written(written)
    try:
        tree = Converter(display="block" if block else "inline").convert_to_element(written)
        return _markup(tree)
    except Exception:  # it raises whatever its parser stumbles over, RecursionError too
        return _as_written(written)


def add_maths(parser: MarkdownIt) -> None:
    """Teach a Markdown parser to read formulas."""
    parser.inline.ruler.before("escape", "math", _inline_rule)
    parser.block.ruler.before(
        "fence", "math_block", _block_rule, {"alt": ["paragraph", "reference", "blockquote", "list"]}
    )
    parser.add_render_rule("math", _render)
    parser.add_render_rule("math_block", _render)


def _inline_rule(state: StateInline, silent: bool) -> bool:
    begin = state.pos
    if state.src[begin] not in "$\\":
        return False
    opened = state.src[begin : begin + 2]
    if close := _INLINE.get(opened):
        found = state.src.find(close, begin + 3, state.posMax) if begin + 3 <= _last(state, close) else -1
        inside, after = state.src[begin + 2 : max(found, 0)], found + 2
    else:
        lone = _DOLLAR.match(state.src, begin, state.posMax)
        inside, after = (lone[1], lone.end()) if lone else ("", 0)
    if not inside.strip():
        return False
    if not silent:
        token = state.push("math", "math", 0)
        token.content = inside
        token.meta = {"block": opened in _BLOCK}
    state.pos = after
    return True


def _last(state: StateInline, close: str) -> int:
    """Where a text holds something for the last time, -1 for nowhere: sought once, not at each opener."""
    known: dict[tuple[str, str], int] = state.env.setdefault("last", {})
    if (close, state.src) not in known:
        known[close, state.src] = state.src.rfind(close)
    return known[close, state.src]


def _block_rule(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Lines from one that begins with $$ or \\[ to one that ends with what closes it, not too far down: this runs for
    every line, so it costs little where nothing closes."""
    begin = state.bMarks[start] + state.tShift[start]
    close = _BLOCK.get(state.src[begin : begin + 2])
    if close is None or state.is_code_block(start):
        return False
    found = state.src.find(close, begin + 2, begin + 4 + MOST_CHARACTERS)
    while found > 0 and close == "$$" and state.src.startswith("$", found + 2):  # the last two of several close
        found += 1
    last = bisect_left(state.eMarks, found + 2)
    if found < 0 or last >= end or state.src[found + 2 : state.eMarks[last]].strip():
        return False
    if any(state.sCount[line] < state.blkIndent for line in range(start + 1, last)):
        return False
    inside = state.getLines(start, last + 1, state.blkIndent, False).strip()[2:-2]
    if close in inside or not inside.strip():
        return False
    if not silent:
        token = state.push("math_block", "math", 0)
        token.content, token.block, token.meta, token.map = inside, True, {"block": True}, [start, last + 1]
        state.line = last + 1
    return True


def _render(_self: RendererProtocol, tokens: list[Token], index: int, _options: object, _env: object) -> str:
    token = tokens[index]
    shown = mathml(token.content, block=bool(token.meta["block"]))
    return f'<div class="formula">{shown}</div>\n' if token.block else shown


def _as_written(latex: str) -> str:
    return f'<code class="formula">{escape(latex)}</code>'


def _markup(element: Element) -> str:
    """An element and all in it; one that is not known becomes a row of what is in it."""
    tag = element.tag if _ELEMENTS.fullmatch(element.tag) else "mrow"
    attributes = "".join(
        f' {name}="{escape(value)}"'
        for name, value in element.attrib.items()
        if _ATTRIBUTES.fullmatch(name) and _VALUE.fullmatch(value)
    )
    inside = "".join(_markup(child) + str(escape(unescape(child.tail or ""))) for child in element)
    return f"<{tag}{attributes}>{escape(unescape(element.text or ''))}{inside}</{tag}>"
