"""An admin's day: invite, disable, change settings, stop an update, export an adapter, and read what was done."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from peft import PeftModel
from playwright.sync_api import Locator, Page, expect

from adapters.base_model import BaseFiles, load_unquantized
from adapters.policy import Policy
from tests.browser.site import PASSWORD, Site
from tests.browser.steps import bring, sign_in
from tests.browser.versions import give_version

pytestmark = pytest.mark.browser


@pytest.fixture
def admin(page: Page, site: Site) -> Page:
    """The admin page, with the admin in front of it."""
    sign_in(page, site, site.admin, site.admin_password)
    page.locator("#side").get_by_role("link", name="Admin").click()
    expect(page.locator("#people .people > li").first).to_be_visible()
    return page


def entry(page: Page, name: str) -> Locator:
    """Somebody's line."""
    return page.locator("#people .people > li").filter(has=page.get_by_text(name, exact=True))


def newest(page: Page) -> Locator:
    """The newest line of the audit log."""
    return page.locator("#audit tbody tr").first


def test_an_invitation_makes_one_account(admin: Page, site: Site, new_page: Callable[..., Page]) -> None:
    admin.get_by_label("Whom it is for").fill("Cleo, from the choir")
    admin.get_by_role("button", name="Make a link").click()
    link = admin.locator("#people .secret code").inner_text()
    assert link.startswith(f"{site.url}/sign-up?invitation=")
    expect(newest(admin)).to_contain_text("invited somebody")
    guest = new_page()
    guest.goto(link)
    expect(guest.get_by_text("You are invited.")).to_be_visible()
    guest.get_by_label("Name").fill("Cleo")
    guest.get_by_label("Password").fill(PASSWORD)
    guest.get_by_role("button", name="Make my account").click()
    expect(guest.get_by_role("heading", name="Hello, Cleo.")).to_be_visible()
    expect(guest.locator("#side").get_by_role("link", name="Admin")).to_have_count(0)
    late = new_page()
    late.goto(link)
    expect(late.get_by_role("alert")).to_contain_text("was used already")
    admin.reload()
    expect(entry(admin, "Cleo")).to_be_visible()
    expect(admin.get_by_text("from the choir")).to_have_count(0)  # used, and so no longer open
    admin.get_by_role("button", name="Make a link").click()
    admin.get_by_role("button", name="Withdraw").click()
    admin.get_by_role("button", name="Close it?").click()
    expect(admin.get_by_text("opens nothing any more")).to_be_visible()


def test_disabling_shuts_out_at_once(admin: Page, site: Site, new_page: Callable[..., Page]) -> None:
    site.add("Dan")
    key = site.command("key", "create", "Dan")
    dan = new_page()
    sign_in(dan, site, "Dan")
    expect(dan.get_by_role("heading", name="Hello, Dan.")).to_be_visible()
    admin.reload()
    entry(admin, "Dan").get_by_role("button", name="Disable").click()
    entry(admin, "Dan").get_by_role("button", name="Shut Dan out?").click()
    expect(entry(admin, "Dan")).to_contain_text("disabled")
    expect(newest(admin)).to_contain_text("disabled Dan")
    refused = dan.request.get(f"{site.url}/v1/me", headers={"Authorization": f"Bearer {key}"})
    assert refused.status == 401
    dan.goto(site.url)
    expect(dan).to_have_url(f"{site.url}/sign-in")
    sign_in(dan, site, "Dan")
    expect(dan.get_by_role("alert")).to_contain_text("wrong")
    entry(admin, "Dan").get_by_role("button", name="Enable").click()
    expect(admin.get_by_text("Dan can sign in again.")).to_be_visible()
    sign_in(dan, site, "Dan")
    expect(dan.get_by_role("heading", name="Hello, Dan.")).to_be_visible()
    expect(entry(admin, site.admin).get_by_role("button", name="Disable")).to_have_count(0)


def test_settings_count_at_once(admin: Page, site: Site, new_page: Callable[..., Page]) -> None:
    fixed = admin.locator("form[data-name=updates]")
    expect(fixed).to_contain_text("MYNAH_UPDATES")
    expect(fixed.get_by_role("button", name="Save")).to_have_count(0)
    change(admin, "labels_per_update", "33")
    expect(newest(admin)).to_contain_text("labels_per_update, was: 20, now: 33")
    admin.locator("form[data-name=labels_per_update] input").evaluate("field => { field.type = 'text' }")
    admin.locator("form[data-name=labels_per_update] input").fill("many")
    admin.locator("form[data-name=labels_per_update]").get_by_role("button", name="Save").click()
    expect(admin.get_by_role("alert")).to_contain_text("must be a number")
    admin.reload()
    change(admin, "labels_per_update", "20")
    stranger = new_page()
    stranger.goto(f"{site.url}/sign-up")
    expect(stranger.get_by_role("alert")).to_contain_text("without an invitation")
    choose(admin, "open")
    try:
        stranger.goto(f"{site.url}/sign-in")
        stranger.get_by_text("New here?").click()
        form = stranger.locator(".join form")
        form.get_by_label("Name").fill(site.admin.upper())
        form.get_by_label("Password").fill(PASSWORD)
        form.get_by_role("button", name="Make my account").click()
        expect(stranger.get_by_role("alert")).to_contain_text("already")
        form.get_by_label("Name").fill("Eli")
        form.get_by_label("Password").fill(PASSWORD)
        form.get_by_role("button", name="Make my account").click()
        expect(stranger.get_by_role("heading", name="Hello, Eli.")).to_be_visible()
    finally:
        choose(admin, "invitation")
    admin.reload()
    expect(entry(admin, "Eli")).to_be_visible()


def change(page: Page, name: str, value: str) -> None:
    form = page.locator(f"form[data-name={name}]")
    form.get_by_role("spinbutton").fill(value)
    form.get_by_role("button", name="Save").click()
    expect(page.locator("#settings .said")).to_be_visible()
    expect(form.get_by_role("spinbutton")).to_have_value(value)
    page.reload()
    expect(form.get_by_role("spinbutton")).to_have_value(value)


def choose(page: Page, value: str) -> None:
    form = page.locator("form[data-name=sign_up]")
    form.get_by_role("combobox").select_option(value)
    form.get_by_role("button", name="Save").click()
    expect(page.locator("#settings .said")).to_be_visible()
    expect(page.locator("#audit tbody tr").first).to_contain_text(f"now: {value}")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks for it
def test_an_update_is_stopped_and_a_version_exported(
    admin: Page, site: Site, new_page: Callable[..., Page], policy: Policy, base_files: BaseFiles, tmp_path: Path
) -> None:
    site.add("Fay")
    fay = new_page()
    sign_in(fay, site, "Fay")
    expect(fay.get_by_role("heading", name="Hello, Fay.")).to_be_visible()
    bring(fay, site, "Fay", 12)
    fay.goto(f"{site.url}/my-assistant")
    fay.get_by_role("button", name="Update now").click()
    job = admin.locator("#server .keys li", has_text="Fay")
    expect(job).to_be_visible()  # the page looks by itself
    job.get_by_role("button", name="Cancel").click()
    job.get_by_role("button", name="Cancel it?").click()
    expect(admin.get_by_text("No update is under way.")).to_be_visible()
    expect(newest(admin)).to_contain_text("cancelled an update of Fay")
    expect(fay.locator("#update .last")).to_contain_text("An admin cancelled it.")
    give_version(site, policy, "Fay")
    admin.reload()
    expect(admin.locator("#server")).to_contain_text(re.compile(r"\d+ MB"))
    expect(admin.locator("#server")).to_contain_text("nf4, 4 bits a weight")
    entry(admin, "Fay").get_by_text("1 version").click()
    with admin.expect_download(timeout=180_000) as download:  # it is made and checked first
        entry(admin, "Fay").get_by_role("link", name="Adapter (PEFT)").click()
    zipfile.ZipFile(download.value.path()).extractall(tmp_path)
    loaded = PeftModel.from_pretrained(load_unquantized(base_files)[0], str(tmp_path))
    strengths = [parameter.norm() for name, parameter in loaded.named_parameters() if "lora_B" in name]
    assert strengths and all(strength > 0 for strength in strengths), "plain PEFT finds what the version learned"
    admin.reload()
    expect(newest(admin)).to_contain_text("exported a version of Fay")
    entry(admin, "Fay").get_by_role("button", name="Remove").click()
    entry(admin, "Fay").get_by_role("button", name=re.compile("Delete Fay")).click()
    expect(admin.get_by_text("all that was theirs is gone: 0 chats, 12 clicks, 1 versions")).to_be_visible()
    expect(newest(admin)).to_contain_text("removed somebody who is gone")
    expect(admin.locator("#audit")).not_to_contain_text("Fay")
