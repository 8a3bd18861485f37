"""How Gradio's own parts (message box, buttons, plots) look, in the colours of static/tokens.css. No web fonts."""

from __future__ import annotations

import gradio as gr

from assistant.ui.render import show, static

_FONTS = ["ui-sans-serif", "system-ui", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "sans-serif"]
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace"]
_BOTH = ("", "_dark")
_SCRIPTS = ("page.js", "drafts.js", "trouble.js", "keys.js", "find.js")  # the others speak by what page.js knows


def theme() -> gr.themes.Base:
    """Gradio's base theme, its colours pointing to ours."""
    colours = {
        "body_background_fill": "var(--paper)",
        "body_text_color": "var(--ink)",
        "body_text_color_subdued": "var(--soft)",
        "background_fill_primary": "var(--surface)",
        "background_fill_secondary": "var(--sunk)",
        "border_color_primary": "var(--line)",
        "border_color_accent": "var(--beak)",
        "color_accent_soft": "var(--beak-wash)",
        "block_background_fill": "transparent",
        "block_border_color": "var(--line)",
        "block_label_text_color": "var(--soft)",
        "block_title_text_color": "var(--soft)",
        "input_background_fill": "var(--surface)",
        "input_border_color": "var(--line)",
        "input_border_color_focus": "var(--beak)",
        "input_placeholder_color": "var(--soft)",
        "button_primary_background_fill": "var(--beak)",
        "button_primary_background_fill_hover": "var(--beak)",
        "button_primary_text_color": "#211e19",
        "button_secondary_background_fill": "var(--sunk)",
        "button_secondary_background_fill_hover": "var(--line)",
        "button_secondary_text_color": "var(--ink)",
        "checkbox_background_color_selected": "var(--beak)",
        "checkbox_border_color_selected": "var(--beak)",
        "checkbox_label_background_fill": "transparent",
        "checkbox_label_background_fill_selected": "var(--beak-wash)",
        "checkbox_label_text_color_selected": "var(--ink)",
        "link_text_color": "var(--beak-ink)",
    }
    base = gr.themes.Base(primary_hue="amber", neutral_hue="stone", font=_FONTS, font_mono=_MONO)
    return base.set(**{f"{name}{mode}": value for name, value in colours.items() for mode in _BOTH})


def styles() -> str:
    """All style sheets."""
    return static("tokens.css") + static("mynah.css")


def head() -> str:
    """What goes into every page's head: our icons and the pages' own scripts."""
    icon = static("logo.svg").replace("#", "%23").replace('"', "'").strip()
    link = f'<link rel="icon" type="image/svg+xml" href="data:image/svg+xml,{icon}">'
    scripts = (f"<script>{static(name)}</script>" for name in _SCRIPTS)
    return link + show("app_head.html") + "".join(scripts)
