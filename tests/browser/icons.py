"""Draws the app's icons from static/logo.svg. Made by

    python -m tests.browser.icons    # writes assistant/ui/static/icons/*.png

Those that a phone cuts to its own shape are filled to the edge, the bird in the middle four fifths. Not a test.
"""

from __future__ import annotations

import io
import re
import shutil

from PIL import Image
from playwright.sync_api import sync_playwright

from assistant.ui.install import ICONS
from assistant.ui.render import HERE, static
from tests.browser.site import FLAGS

FOLDER = HERE / "static" / "icons"


def to_the_edge(logo: str) -> str:
    """The logo without round corners, the bird smaller and still standing on the lower edge."""
    wide = logo.replace('viewBox="0 0 64 64"', 'viewBox="-6 -10 74 74"')
    return re.sub(r"<rect [^>]*/>", '<rect x="-6" y="-10" width="74" height="74" fill="#f5a524"/>', wide)


def main() -> None:
    logo = static("logo.svg")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name, edge in ICONS.items():
            page = chromium.new_page(viewport={"width": edge, "height": edge})
            drawing = logo if name.startswith("icon") else to_the_edge(logo)
            page.set_content(f"<style>*{{margin:0}} svg{{display:block;width:100vw;height:100vh}}</style>{drawing}")
            picture = Image.open(io.BytesIO(page.screenshot(omit_background=True)))
            picture.quantize(64).save(FOLDER / f"{name}.png", optimize=True)  # a few flat colours: a third of the size
            page.close()
        chromium.close()


if __name__ == "__main__":
    main()
