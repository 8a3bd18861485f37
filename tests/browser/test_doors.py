"""Who gets in, and where: passwords, the admin's page, other people's things, other sites, Gradio's own back doors."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.site import PASSWORD, Site
from tests.browser.steps import ask, sign_in

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def bo(site: Site) -> str:
    """A person who is no admin."""
    site.add("Bo")
    return "Bo"


@pytest.fixture
def client(site: Site, bo: str) -> Iterator[httpx.Client]:
    """Bo's session in a program's hands."""
    with httpx.Client(base_url=site.url, headers={"Origin": site.url}, timeout=30) as client:
        answer = client.post("/sign-in", data={"name": bo, "password": PASSWORD})
        assert answer.status_code == 303
        yield client


def test_wrong_password(page: Page, site: Site, bo: str) -> None:
    sign_in(page, site, bo, "not the password")
    expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
    expect(page.get_by_label("Name")).to_have_value(bo)
    page.goto(site.url)
    expect(page).to_have_url(f"{site.url}/sign-in")


def test_sign_out(page: Page, site: Site, bo: str) -> None:
    sign_in(page, site, bo)
    expect(page.get_by_role("heading", name=f"Hello, {bo}.")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(f"{site.url}/sign-in")
    page.goto(site.url)
    expect(page).to_have_url(f"{site.url}/sign-in")


def test_the_cookie_is_kept_from_scripts_and_other_sites(client: httpx.Client, site: Site, bo: str) -> None:
    cookie = client.post("/sign-in", data={"name": bo, "password": PASSWORD}).headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=lax" in cookie
    refused = client.post(
        "/sign-in", data={"name": bo, "password": PASSWORD}, headers={"Origin": "https://evil.example"}
    )
    assert refused.status_code == 403


def test_admin_is_not_there_for_others(page: Page, site: Site, bo: str) -> None:
    sign_in(page, site, bo)
    expect(page.get_by_role("heading", name=f"Hello, {bo}.")).to_be_visible()
    expect(page.locator("#side").get_by_role("link", name="Admin")).to_have_count(0)
    answer = page.goto(f"{site.url}/admin")
    assert answer is not None and answer.status == 404


def test_admin_handlers_check_the_role_themselves(client: httpx.Client, site: Site) -> None:
    """Gradio's events can be called by number from any session, whichever page they belong to."""
    config = client.get("/config").json()
    wanted = ("people", "settings", "server", "audit")
    panels = {part["id"] for part in config["components"] if part["props"].get("elem_id") in wanted}
    events = [(number, event) for number, event in enumerate(config["dependencies"]) if panels & set(event["outputs"])]
    assert len(events) == 6
    pressed = {"act": "add", "name": "Eve", "password": PASSWORD, "value": "open"}
    for number, event in events:
        told = call(client, number, [""] * len(event["inputs"]), pressed)
        assert "There is nothing here." in told and "Bo" not in told
    assert "Eve" not in site.command("user", "list")


def call(client: httpx.Client, number: int, data: list[str], event: dict[str, str]) -> str:
    """What Gradio answers when one of its events is called directly."""
    body = {"fn_index": number, "data": data, "session_hash": "test", "event_data": event, "trigger_id": None}
    answer = client.post("/gradio_api/run/predict", json=body)
    assert answer.status_code == 200
    return answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/upload",
        "/gradio_api/info",
        "/gradio_api/runs",
        "/monitoring",
        "/login",
    ],
)
def test_gradios_own_doors_are_shut(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404
    assert client.post(path).status_code == 404


def test_pages_may_not_load_from_elsewhere_or_be_framed(client: httpx.Client) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy


def test_anothers_chat_is_not_there(page: Page, site: Site, bo: str) -> None:
    sign_in(page, site, site.admin, site.admin_password)
    ask(page, "Nobody else may read this.")
    address = page.url
    assert "?c=" in address
    page.context.clear_cookies()
    sign_in(page, site, bo)
    page.goto(address)
    expect(page.get_by_role("heading", name=f"Hello, {bo}.")).to_be_visible()
    expect(page.get_by_text("Nobody else may read this.")).to_have_count(0)


def test_downloads_take_the_session(client: httpx.Client, site: Site) -> None:
    assert client.get("/v1/me/export").status_code == 200
    assert client.get("/v1/admin/users").status_code == 404
    assert client.get("/v1/me/export", headers={"Origin": "https://evil.example"}).status_code == 401
    client.cookies.clear()
    assert client.get("/v1/me/export").status_code == 401
