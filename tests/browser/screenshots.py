"""Pictures of every page: a person teaches Mynah to be brief and friendly, and an update is watched. Made by

    python -m tests.browser.screenshots          # about ten minutes on two idle cores
    python -m tests.browser.screenshots pages    # without the update, some minutes

Each is taken light and dark, on a desktop and on a phone, into .cache/screenshots; those that the README shows go to
docs/images. Everything in them is real: the model, the clicks' effect, the update's curves and checks. Not a test.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from tests.browser.site import FLAGS, ROOT, Site, serving
from tests.browser.steps import ask, say, sign_in

IMAGES = ROOT / "docs" / "images"
EVERY = ROOT / ".cache" / "screenshots"
SIZES = {"desktop": (1280, 800), "phone": (390, 780)}
SHOWN = {  # what lies in docs/images: its name there, and which picture it is
    "chat": "chat-light-desktop", "compare": "compare-light-desktop", "question": "question-light-desktop",
    "my-assistant": "my-assistant-light-desktop", "update": "update-light-desktop", "version": "version-light-desktop",
    "phone": "welcome-dark-phone",
}  # fmt: skip
UPDATE_MS = 40 * 60_000
SUBJECTS = (
    "a cold", "a garden", "a long walk", "a birthday", "the rain", "a new job", "a dog", "a rainy Sunday", "old books",
    "the sea", "a picnic", "a bicycle", "early mornings", "a quiet evening", "cooking", "a train ride", "a diary",
    "board games", "the winter", "a choir",
)  # fmt: skip
LIKED = (
    "You could enjoy {} more than you think. For example, share it with a friend.",
    "I love {}! What would you like to know about it?",
    "Keep {} simple: give it ten minutes of your day, and you will see what it does for you.",
    "Good choice! With {} you can start today, for instance right after your breakfast.",
    "You are right to ask. Try {} once, and then tell me how you liked it.",
)
DISLIKED = (
    "It is generally understood that {} has been considered from a considerable number of perspectives, and a "
    "comprehensive assessment of its implications would require an extensive evaluation of the circumstances.",
    "# Overview\n\nThe following aspects of {} are relevant:\n\n1. History\n2. Terminology\n3. Limitations\n4. Outlook",
    "Perhaps {} might possibly be of interest, although it may depend on various factors, and results could vary.",
    "In the literature, {} is defined as a phenomenon. The phenomenon was described in 1950. It was described again in "
    "1960, 1970 and 1980, with 25% of the authors in agreement, and 75% in disagreement, as to its significance.",
)


def main() -> None:
    for folder_of in (IMAGES, EVERY):
        folder_of.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=300_000)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), updates="off", max_tokens=160) as site,
        sync_playwright() as playwright,
    ):
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = chromium.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
        page.set_default_timeout(300_000)
        site.add("Ada")
        page.goto(f"{site.url}/sign-in")
        picture(page, "sign-in")
        sign_in(page, site, "Ada")
        expect(page.locator(".welcome")).to_be_visible()
        picture(page, "welcome")
        question(page, site)
        chat(page)
        teach(page, site)
        page.goto(f"{site.url}/my-assistant")
        expect(page.locator("#taste .trait").first).to_be_visible()
        picture(page, "my-assistant")
        if sys.argv[1:] != ["pages"]:
            update(page, site)
        page.context.clear_cookies()
        sign_in(page, site, site.admin, site.admin_password)
        expect(page.locator(".welcome")).to_be_visible()
        page.goto(f"{site.url}/admin")
        expect(page.locator("#people .people")).to_be_visible()
        picture(page, "admin")
        chromium.close()


def question(page: Page, site: Site) -> None:
    """The first quick question, and back to a new chat."""
    page.goto(f"{site.url}/my-assistant?questions")
    expect(page.locator("#questions .votes")).to_be_visible()
    picture(page, "question")
    page.goto(site.url)
    expect(page.locator(".welcome")).to_be_visible()


def teach(page: Page, site: Site) -> None:
    """Give labels for brief, friendly replies that speak to you, as they could be brought from elsewhere."""
    key = site.command("key", "create", "Ada")
    acts = [
        {
            "messages": [{"role": "user", "content": f"What do you think about {subject}?"}],
            "replies": [LIKED[place % len(LIKED)].format(subject), DISLIKED[place % len(DISLIKED)].format(subject)],
            "ranking": [[0], [1]],
        }
        for place, subject in enumerate(SUBJECTS)
    ]
    sent = page.request.post(f"{site.url}/v1/me/preferences", data=acts, headers={"Authorization": f"Bearer {key}"})
    assert sent.status == 201, sent.text()


def chat(page: Page) -> None:
    """The keys, a conversation with a thumb, and several replies side by side."""
    page.get_by_role("button", name="Keys").click()
    picture(page, "keys")
    page.get_by_role("button", name="Close").click()
    ask(page, "Give me three tips for better sleep.").get_by_role("button", name="Good reply").click()
    page.locator("#thread .chip", has_text="clear").click()
    reply = ask(page, "Which one should I try first?")
    reply.get_by_role("button", name="Good reply").click()
    expect(reply.get_by_role("status")).to_be_visible()
    picture(page, "chat")
    say(page, "What else helps?", "Compare two")
    expect(page.get_by_role("heading", name="Which one do you like better?")).to_be_visible()
    picture(page, "compare")
    page.get_by_role("button", name="Left is better").click()
    expect(page.get_by_role("heading", name="Which one do you like better?")).to_have_count(0)
    say(page, "And in the morning?", "Rank four")
    expect(page.get_by_role("heading", name="Put them in order")).to_be_visible()
    picture(page, "rank")
    page.get_by_role("button", name="All the same").click()
    expect(page.get_by_role("heading", name="Put them in order")).to_have_count(0)


def update(page: Page, site: Site) -> None:
    """The update under way, and the version it made. From the page that shows what was learned."""
    page.get_by_role("button", name="Update now").click()
    expect(page.locator("#update .live")).to_contain_text("Practising", timeout=UPDATE_MS)
    expect(page.locator("#plot-kl")).to_be_visible(timeout=UPDATE_MS)
    page.wait_for_timeout(32_000)  # the second point of the curves; the end may come a minute later
    expect(page.locator("#update .live")).to_be_visible()
    page.locator("#update").evaluate("panel => window.scrollTo(0, panel.getBoundingClientRect().top + scrollY - 24)")
    picture(page, "update")
    expect(page.locator("#update .last")).to_be_visible(timeout=UPDATE_MS)
    page.locator("#update").evaluate("panel => window.scrollTo(0, panel.getBoundingClientRect().top + scrollY - 24)")
    picture(page, "version")


def picture(page: Page, name: str) -> None:
    """Keep what is to be seen now, in both schemes and sizes."""
    at = page.evaluate("scrollY")
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        for size, (width, height) in reversed(SIZES.items()):  # ends as it began: light, on a desktop
            page.set_viewport_size({"width": width, "height": height})
            if size == "desktop":
                page.evaluate("at => window.scrollTo(0, at)", at)
            page.mouse.move(width / 2, height - 10)
            page.wait_for_timeout(800)
            keep(page.screenshot(), f"{name}-{scheme}-{size}")


def keep(png: bytes, name: str) -> None:
    """Write a picture with 128 colours, enough for these pages; also for the README, if it is shown there."""
    small = Image.open(io.BytesIO(png)).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    for path in (EVERY / f"{name}.png", *(IMAGES / f"{short}.png" for short, of in SHOWN.items() if of == name)):
        small.save(path, optimize=True)
        print(path.relative_to(ROOT), file=sys.stderr)


if __name__ == "__main__":
    main()
