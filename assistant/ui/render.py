"""Templates and Markdown. Everything a person or the model wrote is escaped; only Markdown's own tags come out.

Raw HTML in a reply is shown as text, links open apart and only to http(s) and mail, and images become links: a page
never fetches what a model names. A text that would take long to read is shown as it was written: work is counted.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.parser_inline import ParserInline
from markdown_it.renderer import RendererHTML, RendererProtocol
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markupsafe import Markup, escape
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from assistant.ui import language, words
from assistant.ui.language import say
from assistant.ui.maths import add_maths

HERE = Path(__file__).parent
MOST_STEPS = 60_000  # of reading one text, some tenths of a second; 32,000 characters of links or short lines take half
MOST_CODE = 4_000  # characters of one block in colours: some lexers take the square of it, a second for 8,000 of Java
_SCHEME = re.compile(r"[^/?#]*:")


class _TooMuch(Exception):
    """A text needs more than MOST_STEPS."""


def _step(env: MutableMapping[str, Any]) -> None:
    env["steps"] = env.get("steps", 0) + 1
    if env["steps"] > MOST_STEPS:
        raise _TooMuch


def _count(state: StateBlock, _start: int, _end: int, _silent: bool) -> bool:
    """A rule that fits nothing; all others are tried after it."""
    _step(state.env)
    return False


class _Inline(ParserInline):
    """Counts the texts it reads, of which a table has many, and the steps to the end of what may be a link: each
    bracket that opens takes them anew."""

    def parse(self, src: str, md: MarkdownIt, env: MutableMapping[str, Any], tokens: list[Token]) -> list[Token]:
        _step(env)
        return super().parse(src, md, env, tokens)

    def skipToken(self, state: StateInline) -> None:
        _step(state.env)
        super().skipToken(state)


class _Markdown(MarkdownIt):
    """Lets links lead only to the web, to mail, and within the site: other schemes start programs."""

    def validateLink(self, url: str) -> bool:
        scheme = _SCHEME.match(url)
        return scheme is None or scheme[0].lower() in ("http:", "https:", "mailto:")


def _code(text: str, language: str, _attrs: str) -> str:
    if len(text) > MOST_CODE:
        return str(escape(text))
    try:
        lexer = get_lexer_by_name(language or "text")
    except ClassNotFound:
        return str(escape(text))
    return str(highlight(text, lexer, HtmlFormatter(nowrap=True)))


def _link_open(self: RendererProtocol, tokens: list[Token], index: int, options: Any, _env: Any) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    tokens[index].attrSet("target", "_blank")
    return str(self.renderToken(tokens, index, options, _env))  # type: ignore[attr-defined]


def _image(_self: RendererProtocol, tokens: list[Token], index: int, _options: Any, _env: Any) -> str:
    token = tokens[index]
    source, words = escape(str(token.attrGet("src") or "")), escape(token.content or "image")
    return f'<a href="{source}" rel="noopener noreferrer nofollow" target="_blank">{words}</a>'


def _fence(self: RendererProtocol, tokens: list[Token], index: int, options: Any, env: Any) -> str:
    assert isinstance(self, RendererHTML)
    label, text = say("Copy the code"), say("Copy")
    button = f'<button type="button" class="plain" data-act="copy" aria-label="{label}">{text}</button>'
    written_in = tokens[index].info.split()[:1]
    name = f"<span>{escape(written_in[0])}</span>" if written_in else ""
    return f'<div class="code"><div class="bar">{name}{button}</div>{self.fence(tokens, index, options, env)}</div>\n'


def _parser() -> MarkdownIt:
    parser = _Markdown("js-default", {"html": False, "linkify": False, "breaks": True, "highlight": _code})
    parser.add_render_rule("link_open", _link_open)
    parser.add_render_rule("image", _image)
    parser.add_render_rule("fence", _fence)
    parser.inline = _Inline()
    add_maths(parser)
    parser.block.ruler.before("table", "count", _count, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    return parser


_MARKDOWN = _parser()


def markdown(text: str) -> Markup:
    """Markdown as safe HTML."""
    return _markdown(text, language.language())


@lru_cache(maxsize=2048)
def _markdown(text: str, _language: str) -> Markup:
    try:
        return Markup(_MARKDOWN.render(text))
    except _TooMuch:
        return Markup("<p>{}</p>\n").format(Markup("<br>\n").join(text.split("\n")))


def _say(text: str, **values: Any) -> Markup:
    """A text of a template. It may hold tags, since it is ours; what is filled in is escaped."""
    return Markup(language.template(text)).format(**values)


def _counted(count: int, one: str, many: str) -> Markup:
    return Markup(language.counted(count, one, many))


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(markdown=markdown, ago=words.ago, duration=words.duration, told=language.told)
    environment.globals.update(words=words, say=_say, counted=_counted, language=language.language)
    return environment


_ENVIRONMENT = _environment()


def show(template: str, **values: Any) -> str:
    """A template of this folder, filled in."""
    return _ENVIRONMENT.get_template(template).render(**values)


def static(name: str) -> str:
    """The text of a file in static/."""
    return (HERE / "static" / name).read_text(encoding="utf-8")
