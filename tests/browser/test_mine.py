"""The page "My assistant": why something was learned, versions side by side, taking everything out, starting over."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from adapters.latents import LATENTS
from adapters.policy import Policy
from feedback.common import Common
from feedback.population import load_population
from feedback.store import Store
from feedback.traits import TRAIT_NAMES
from tests.browser.site import Site
from tests.browser.steps import ask, bring, sign_in
from tests.browser.versions import give_version

pytestmark = pytest.mark.browser


def test_my_assistant(page: Page, site: Site, policy: Policy) -> None:
    like_a_reply(page, site, "Mia")
    bring(page, site, "Mia", 11)
    page.goto(f"{site.url}/my-assistant")
    take_a_click_back(page)
    start_and_cancel_an_update(page)
    expect(page.locator("#try section")).to_have_count(0)  # nothing to compare the base with yet
    give_version(site, policy, "Mia")
    expect(page.locator("#versions .here")).to_contain_text("v1")  # the page looks by itself
    before_and_after(page)
    try_two_side_by_side(page)
    expect(page.locator("#record")).to_contain_text("1 of 1")
    take_everything_out(page)
    start_over(page)
    expect(page.locator("#side .talks")).to_contain_text("What is a hive?")


def test_quick_questions(page: Page, site: Site) -> None:
    """From the first page to ten answers, with the keyboard, and on to the first reply, which is chosen by them."""
    site.add("Quinn")
    sign_in(page, site, "Quinn")
    page.get_by_role("link", name="answer ten quick questions").click()
    choice = page.locator("#questions .choice")
    seen = set[str]()
    for number in range(1, 11):
        expect(choice).to_contain_text(f"Question {number}.")
        expect(choice.get_by_role("heading", name="Which one do you like better?")).to_be_focused()
        expect(choice.locator(".draft")).to_have_count(2)
        seen.add(choice.locator(".asked").inner_text())
        left, right = (len(text) for text in choice.locator(".draft .text").all_inner_texts())
        page.keyboard.down("1" if left < right else "2")
        page.keyboard.down("1" if left < right else "2")  # it is held: no answer to the next question
        page.keyboard.up("1" if left < right else "2")
        expect(page.locator("#taste")).to_contain_text("From 1 click." if number == 1 else f"From {number} clicks.")
    assert len(seen) == 10, "each question comes once"
    page.set_viewport_size({"width": 390, "height": 600})
    choice.locator(".vote.right").scroll_into_view_if_needed()
    before = choice.get_attribute("data-question")
    choice.get_by_role("button", name="Skip this one").click()
    expect(choice).not_to_have_attribute("data-question", str(before))
    expect(choice.get_by_role("heading", name="Which one do you like better?")).to_be_in_viewport()
    page.set_viewport_size({"width": 1280, "height": 800})
    trait = page.locator("#taste .trait", has_text="shorter replies").first
    expect(trait).to_be_visible()
    expect(choice).to_contain_text("Question 12.")
    expect(page.get_by_text("From 10 clicks.")).to_be_visible()
    choice.get_by_role("button", name="That is enough").click()
    expect(page.locator("#questions")).to_contain_text("chosen by your answers")
    trait.get_by_label("Correct:").click()
    trait.get_by_role("button", name="Take back").first.click()
    trait.get_by_role("button", name="Forget this click?").click()
    expect(page.get_by_text("From 9 clicks.")).to_be_visible()
    page.goto(site.url)
    expect(page.get_by_role("heading", name="Hello, Quinn.")).to_be_visible()
    expect(page.get_by_role("link", name="answer ten quick questions")).to_have_count(0)
    expect(ask(page, "What is a hive?").locator(".by")).to_have_text("best of 16")
    page.goto(f"{site.url}/my-assistant?questions")
    expect(choice).to_contain_text("Question 12.")
    page.get_by_text("Start over").click()
    page.get_by_role("button", name="Forget what was learned").click()
    page.get_by_role("button", name="Forget everything?").click()
    expect(page.locator("#questions")).to_contain_text("Ten answers take a few minutes")
    page.get_by_role("button", name="Ask me").click()
    expect(choice).to_contain_text("Question 1.")


def like_a_reply(page: Page, site: Site, name: str) -> None:
    site.add(name)
    sign_in(page, site, name)
    expect(page.get_by_role("heading", name=f"Hello, {name}.")).to_be_visible()
    ask(page, "What is a hive?").get_by_role("button", name="Good reply").click()
    expect(page.locator("#thread .said").first).to_be_visible()


def take_a_click_back(page: Page) -> None:
    expect(page.get_by_text("From 12 clicks.")).to_be_visible()
    trait = page.locator("#taste .traits .trait:not(:empty)").first
    trait.get_by_label("Correct:").click()
    click = trait.locator(".behind li", has_text="A choice").first
    expect(click.locator("q").first).to_contain_text("You can count to")
    expect(click.locator("q").last).to_contain_text("is a number.")
    click.get_by_role("button", name="Take back").click()
    click.get_by_role("button", name="Forget this click?").click()
    expect(page.locator("#taste .said")).to_contain_text("The click is taken back.")
    expect(page.get_by_text("From 11 clicks.")).to_be_visible()


def start_and_cancel_an_update(page: Page) -> None:
    page.get_by_role("button", name="Update now").click()
    expect(page.get_by_role("progressbar", name="Progress of the update")).to_be_visible()
    page.get_by_role("button", name="Cancel the update").click()
    page.get_by_role("button", name="Cancel it?").click()
    expect(page.locator("#update .last")).to_contain_text("You cancelled it.")


def before_and_after(page: Page) -> None:
    page.get_by_role("button", name="Show before and after").click()
    sides = page.locator("#versions .pair article")
    expect(sides).to_have_count(2)
    expect(sides.first).to_contain_text("Before: base")
    expect(sides.last.locator(".text")).to_be_visible()
    shown = sides.all_inner_texts()
    page.reload()
    page.get_by_text("Before and after, to the same prompt").click()
    expect(sides.first).to_be_visible()
    assert sides.all_inner_texts() == shown, "written once, kept from then on"


def try_two_side_by_side(page: Page) -> None:
    page.get_by_label("Prompt").fill("Tell me about the sea.")
    expect(page.get_by_label("Left")).to_have_value("base")
    expect(page.get_by_label("Right")).to_have_value("v1")
    page.get_by_role("button", name="Let both answer").click()
    sides = page.locator("#tried .pair article")
    expect(sides).to_have_count(2)
    expect(page.locator("#tried").get_by_role("button", name="Stop")).to_have_count(0)
    expect(sides.first.locator(".text")).to_contain_text(re.compile(r"\w"))
    expect(sides.last.locator(".text")).to_contain_text(re.compile(r"\w"))
    expect(page.locator("#side .talks li")).to_have_count(1)
    page.get_by_label("Right").select_option("base")
    page.get_by_role("button", name="Let both answer").click()
    expect(page.get_by_role("alert")).to_contain_text("two different versions")
    expect(page.get_by_label("Prompt")).to_have_value("Tell me about the sea.")


def take_everything_out(page: Page) -> None:
    with page.expect_download() as download:
        page.get_by_role("link", name="Take everything out").click()
    archive = zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes()))
    assert "adapters/v1/adapter_model.safetensors" in archive.namelist()
    kept = {name: json.loads(archive.read(f"{name}.json")) for name in ("conversations", "replies", "examples")}
    assert len(kept["conversations"]) == 1 and list(kept["examples"]) == ["v1"]
    assert "Tell me about the sea." not in json.dumps(kept), "what was only tried is kept nowhere"


def start_over(page: Page) -> None:
    page.get_by_text("Start over").click()
    page.get_by_role("button", name="Forget what was learned").click()
    page.get_by_role("button", name="Forget everything?").click()
    expect(page.locator("#account .said")).to_contain_text("1 versions. Chats stay.")
    expect(page.locator("#taste")).to_contain_text("Nothing yet.")
    expect(page.locator("#versions .here")).to_contain_text("base")
    expect(page.locator("#versions")).not_to_contain_text("v1")
    expect(page.locator("#update")).to_contain_text("you have given 0")
    expect(page.locator("#try section")).to_have_count(0)
    expect(page.locator("#tried section")).to_have_count(0)


def test_a_click_taken_back_says_which_versions_go_with_it(page: Page, site: Site, policy: Policy) -> None:
    like_a_reply(page, site, "Ulla")
    give_version(site, policy, "Ulla")
    page.reload()
    page.get_by_role("button", name="Good reply").click()
    sure = page.get_by_role("button", name="Forget this click and v1?")
    expect(sure).to_be_visible()
    expect(sure).to_have_count(0, timeout=6000)  # who does nothing loses nothing
    page.get_by_role("button", name="Good reply").click()
    sure.click()
    said = page.locator("#thread .said").first
    expect(said).to_have_text(
        "Taken back. Gone with it, having learned from it: v1. From now on it is base that answers."
    )
    expect(page.get_by_role("button", name="Good reply")).to_have_attribute("aria-pressed", "false")
    page.goto(f"{site.url}/my-assistant")
    version = page.locator("#versions li", has_text="v1")
    expect(version).to_contain_text("gone: it had learned from a click that was taken back")
    expect(version.get_by_role("button")).to_have_count(0)
    expect(page.locator("#versions .here")).to_contain_text("base")


def test_what_people_have_in_common(page: Page, site: Site) -> None:
    site.add("Cora")
    sign_in(page, site, "Cora")
    expect(page.get_by_role("heading", name="Hello, Cora.")).to_be_visible()
    page.goto(f"{site.url}/my-assistant")
    account = page.locator("#account")
    expect(account).to_contain_text("It takes 5 people who let their clicks count")
    expect(account).to_contain_text("Your clicks do not count in it.")
    account.get_by_role("button", name="Let them count").click()
    expect(account.locator(".said")).to_contain_text("From now on your clicks count")
    find_something_in_common(site, "Cora")
    page.reload()
    expect(account).to_contain_text("They like shorter replies. From the clicks of 5 people.")
    account.get_by_role("button", name="Begin with nothing").click()
    expect(account.locator(".said")).to_contain_text("Your assistant knows nothing but your own clicks.")
    account.get_by_role("button", name="Begin with it").click()
    expect(account).to_contain_text("Your assistant begins with it.")
    account.get_by_role("button", name="Take them out").click()
    expect(account.locator(".said")).to_contain_text("what was made of them is gone")
    expect(account).to_contain_text("Nothing is known yet.")


def find_something_in_common(site: Site, name: str) -> None:
    """As the server does while nobody chats: something of this person's and four others'."""
    store = Store(Path(site.environment["MYNAH_DATA_DIR"]) / "mynah.db")
    somebody = store.people.find(name.casefold())
    assert somebody is not None
    others = [store.people.add(f"{name}{number}", f"{name.casefold()}{number}", "no password") for number in range(4)]
    population = load_population(LATENTS)
    parts = np.zeros((5, len(population.names)))
    parts[:, TRAIT_NAMES.index("length")] = -1.0
    stamp = store.commons.stamp([user.id for user in (somebody, *others)])
    assert store.commons.keep(population.version, Common(parts, 1.0, 0.1), stamp)
    store.database.close()


def test_everything_goes_with_a_receipt(page: Page, site: Site) -> None:
    site.add("Noa")
    sign_in(page, site, "Noa")
    expect(page.get_by_role("heading", name="Hello, Noa.")).to_be_visible()
    page.goto(f"{site.url}/my-assistant")
    page.get_by_text("Delete me").click()
    page.get_by_label("Your name").fill("Nora")
    page.get_by_role("button", name="Delete everything").click()
    expect(page.get_by_role("alert")).to_contain_text("type your name, Noa")
    page.get_by_label("Your name").fill("Noa")
    page.get_by_role("button", name="Delete everything").click()
    expect(page.get_by_role("heading", name="Everything about you is deleted")).to_be_visible()
    assert json.loads(page.locator(".receipt").inner_text())["name"] == "Noa"
    assert "Noa" not in site.command("user", "list")
    page.goto(site.url)
    expect(page).to_have_url(f"{site.url}/sign-in")
