"""Templates and Markdown. Everything a person or the model wrote is escaped; only Markdown's own tags come out.

Raw HTML in a reply is shown as text, links open apart and only to http(s) and mail, and images become links: a page
never fetches what a model names.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML, RendererProtocol
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


def _code(text: str, language: str, _attrs: str) -> str:
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
    parser = MarkdownIt("js-default", {"html": False, "linkify": False, "breaks": True, "highlight": _code})
    parser.add_render_rule("link_open", _link_open)
    parser.add_render_rule("image", _image)
    parser.add_render_rule("fence", _fence)
    add_maths(parser)
    return parser


_MARKDOWN = _parser()


def markdown(text: str) -> Markup:
    """Markdown as safe HTML."""
    return _markdown(text, language.language())


@lru_cache(maxsize=2048)
def _markdown(text: str, _language: str) -> Markup:
    return Markup(_MARKDOWN.render(text))


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
