"""Sessions: the lock after ten failures, other sites, what a page may load, and what is told without an account."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from assistant.accounts import FAILURES, Accounts
from assistant.attempts import REMEMBERED, WINDOW_SECONDS, Attempts, place_of
from assistant.ui.render import markdown
from assistant.ui.session import COOKIE, DATA_HEADERS, HEADERS
from feedback.errors import Busy, NotSignedIn
from feedback.store import Store
from tests.security.world import ORIGIN, World
from tests.soak import cases

PASSWORD = "a long enough password"
WRONG = "not the password"


class Clock:
    """Time that passes when told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def browser(world: World, address: str, origin: str = ORIGIN, **headers: str) -> TestClient:
    """A browser somewhere else."""
    headers = {"Origin": origin, **headers}
    return TestClient(world.app, origin, client=(address, 4000), headers=headers, follow_redirects=False)


def typed(name: str, password: str) -> dict[str, Any]:
    """The sign-in form, filled in."""
    return {"data": {"name": name, "password": password}}


# ---- the lock --------------------------------------------------------------------------------------------------------


def test_an_address_is_locked_after_ten_failures_whatever_the_names(store: Store) -> None:
    clock = Clock()
    accounts = Accounts(store, clock=clock)
    accounts.add("Ada", PASSWORD)
    accounts.add("Eve", PASSWORD)
    for number in range(FAILURES):
        if number == FAILURES // 2:
            assert accounts.sign_in("Eve", PASSWORD, "203.0.113.5"), "a success neither counts nor forgives the others"
        with pytest.raises(NotSignedIn):
            accounts.sign_in(f"Name {number}", WRONG, "203.0.113.5")
        clock.now += 1
    with pytest.raises(Busy, match="from your address") as caught:
        accounts.sign_in("Ada", PASSWORD, "203.0.113.5")
    assert 0 < caught.value.retry_after <= WINDOW_SECONDS
    assert accounts.sign_in("Ada", PASSWORD, "203.0.113.6"), "other addresses stay open"
    assert accounts.sign_in("Ada", PASSWORD), "and so does the machine's own command line"
    clock.now += WINDOW_SECONDS
    assert accounts.sign_in("Ada", PASSWORD, "203.0.113.5")


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a socket", "a socket"),
        ("", ""),
    ],
)
def test_one_visitor_has_one_place(address: str, place: str) -> None:
    assert place_of(address) == place


def test_the_memory_of_failures_is_bounded() -> None:
    attempts = Attempts(Clock(), 2, "Too many")
    for number in range(REMEMBERED + 50):
        attempts.begin(str(number))
    assert len(attempts._times) <= REMEMBERED
    attempts.forgive("nobody")
    attempts.begin("last")
    attempts.begin("last")
    with pytest.raises(Busy):
        attempts.begin("last")


def test_a_locked_browser_is_told_when_to_come_again(world: World) -> None:
    here, there = browser(world, "198.51.100.7"), browser(world, "198.51.100.8")
    world.mynah.accounts.add("Locked", PASSWORD)
    for number in range(FAILURES):
        assert here.post("/sign-in", **typed(f"Guess {number}", WRONG)).status_code == 401
    answer = here.post("/sign-in", **typed("Locked", PASSWORD))
    assert answer.status_code == 429 and 0 < int(answer.headers["retry-after"]) <= WINDOW_SECONDS
    assert "from your address; try again in 15 minutes" in answer.text and COOKIE not in answer.cookies
    assert there.post("/sign-in", **typed("Locked", PASSWORD)).status_code == 303


# ---- a session's life ------------------------------------------------------------------------------------------------


def test_sign_out_ends_the_session_on_the_server(world: World) -> None:
    world.mynah.accounts.add("Leaver", PASSWORD)
    here = browser(world, "198.51.100.9")
    cookie = here.post("/sign-in", **typed("Leaver", PASSWORD)).headers["set-cookie"].lower()
    assert {"httponly", "samesite=lax", "path=/"} <= {part.strip() for part in cookie.split(";")}
    token = here.cookies[COOKIE]
    copied = browser(world, "198.51.100.9", Cookie=f"{COOKIE}={token}")
    assert copied.get("/v1/me").status_code == 200
    assert here.post("/sign-out").status_code == 303
    assert copied.get("/v1/me").status_code == 401, "a copy of the cookie opens nothing either"
    assert copied.get("/").headers["location"] == "/sign-in"
    secure = browser(world, "198.51.100.9", "https://testserver")
    assert "secure" in secure.post("/sign-in", **typed("Leaver", PASSWORD)).headers["set-cookie"].lower()


def test_a_key_is_shown_once(world: World) -> None:
    person = world.somebody("other")
    made = person.program.post("/v1/me/keys").json()
    assert made["key"].startswith("mynah-")
    listed = person.program.get("/v1/me/keys").text + person.program.get("/v1/me").text
    assert made["id"] in listed and made["key"] not in listed
    assert made["key"] not in "\n".join(world.mynah.store.database._db.conn.iterdump())


# ---- other sites -----------------------------------------------------------------------------------------------------

ELSEWHERE = [
    "https://evil.example", "http://testserver.evil.example", "http://evil.example/testserver", "null", "", "http://[",
    "testserver", "http://testserver@evil.example", "http://testserver:81", "\x7f",
]  # fmt: skip


@pytest.mark.parametrize("origin", ELSEWHERE)
@pytest.mark.parametrize("header", ["Origin", "Referer"])
def test_what_another_site_sends_is_refused(world: World, header: str, origin: str) -> None:
    person = world.somebody("other")
    del person.browser.headers["Origin"]
    for path in ("/sign-in", "/sign-up", "/sign-out", "/gradio_api/run/predict"):
        assert person.browser.post(path, headers={header: origin}).status_code == 403, path
    for method, path in (("POST", "/v1/me/keys"), ("DELETE", "/v1/me"), ("POST", "/v1/me/reset")):
        assert person.browser.request(method, path, headers={header: origin}).status_code == 401, path
    assert person.user is not None and world.mynah.store.people.find(person.user.name.casefold())


def test_a_change_that_says_nothing_about_its_origin_is_refused(world: World) -> None:
    person = world.somebody("other")
    del person.browser.headers["Origin"]
    assert person.browser.post("/v1/me/keys").status_code == 401
    assert person.browser.post("/sign-out").status_code == 403
    for site, status in (("cross-site", 401), ("same-site", 401), ("same-origin", 201)):
        assert person.browser.post("/v1/me/keys", headers={"Sec-Fetch-Site": site}).status_code == status


# ---- what a page may load --------------------------------------------------------------------------------------------


def test_every_answer_says_what_may_be_loaded(world: World) -> None:
    person = world.somebody("other")
    for path in ("/", "/sign-in", "/search?q=x", "/nothing", "/theme.css", "/conversations/c_0.md"):
        headers = person.browser.get(path).headers
        assert all(headers[name] == value for name, value in HEADERS.items()), path
    for path in ("/v1/me", "/v1/nothing", "/v1/me/export", "/healthz", "/metrics"):
        headers = person.program.get(path).headers
        assert all(headers[name] == value for name, value in DATA_HEADERS.items()), path


def test_the_policy_names_no_place_but_this() -> None:
    rules = dict(rule.strip().split(" ", 1) for rule in HEADERS["Content-Security-Policy"].split(";"))
    assert rules["frame-ancestors"] == rules["object-src"] == "'none'" and rules["form-action"] == "'self'"
    ways = {"img-src", "media-src", "connect-src", "font-src", "style-src", "script-src", "frame-src", "manifest-src"}
    for way in ways:
        sources = rules.get(way, rules["default-src"]).split()
        assert set(sources) <= {"'self'", "'none'", "'unsafe-inline'", "'unsafe-eval'", "data:", "blob:"}, way


TAGS = set(
    [
        "a",
        "p",
        "br",
        "hr",
        "em",
        "strong",
        "s",
        "code",
        "pre",
        "span",
        "div",
        "ul",
        "ol",
        "li",
        "blockquote",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "button",
    ]
)
TAGS |= {"h1", "h2", "h3", "h4", "h5", "h6"}
LOADING = {"src", "srcset", "poster", "background", "ping", "formaction", "action", "data", "xlink:href"}


class Tags(HTMLParser):
    """Gathers what in a page would make a browser fetch or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: list[str] = []
        self.maths = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.maths += tag == "math"
        known = tag in TAGS or tag == "math" or (self.maths and re.fullmatch(r"m[a-z]+|semantics|annotation", tag))
        if not known:
            self.bad.append(tag)
        for name, value in attrs:
            address = re.sub(r"[\s\x00-\x1f]", "", value or "").casefold()
            if name in LOADING or name.startswith("on") or (name != "href" and "url(" in address):
                self.bad.append(f"{tag} {name}={value}")
            if name == "href" and (tag != "a" or address.startswith(("javascript:", "vbscript:", "data:", "file:"))):
                self.bad.append(f"{tag} {name}={value}")

    def handle_endtag(self, tag: str) -> None:
        self.maths -= tag == "math"


BEACONS = [
    "![](http://evil.example/x)",
    "![a][b]\n\n[b]: http://evil.example/x",
    "<img src=http://evil.example/x>",
    "![x](//evil.example)",
    "<script>fetch('http://evil.example')</script>",
    "[x](javascript:alert(1))",
    "![x](javascript:alert(1))",
    "[x](data:text/html,x)",
    "<style>*{background:url(http://evil.example)}</style>",
    "$\\href{http://evil.example}{x}$",
    "$$\\includegraphics{http://evil.example}$$",
    "```html\n<img src=http://evil.example>\n```",
    "`<img src=x onerror=alert(1)>`",
    "$<img src=x onerror=alert(1)>$",
    '[x](http://evil.example "onmouseover=alert(1)")',
    '!["onerror=alert(1)](http://evil.example/"onerror="x)',
    '<http://evil.example/"onmouseover=alert(1)>',
    "| <img src=x> |\n|-|\n| ![](http://evil.example) |",
    "$\\text{<script>}$",
    "$\\style{background:url(http://evil.example)}{x}$",
    '```" onload="x\nhi\n```',
    "\u202e<img src=x>\u202c",
    "\x00<img\x00src=x>",
]


def loads_nothing(text: str) -> None:
    """Check that the HTML of a text has no tag and no attribute that makes a browser fetch or run anything."""
    page = Tags()
    page.feed(str(markdown(text)))
    page.close()
    assert not page.bad, text


@pytest.mark.parametrize("text", BEACONS)
def test_a_reply_loads_nothing(text: str) -> None:
    loads_nothing(text)


@settings(max_examples=cases(3000), deadline=None, database=None, derandomize=True)
@given(
    st.lists(
        st.one_of(st.sampled_from(BEACONS), st.text(max_size=12), st.sampled_from(list("`*_$\\<>[]()!\"'&\n"))),
        max_size=8,
    )
)
def test_nor_does_any_mixture(pieces: list[str]) -> None:
    loads_nothing("".join(pieces))


def test_nobody_without_an_account_learns_what_there_is(world: World) -> None:
    anonymous, person = world.somebody("anonymous"), world.somebody("other")
    for path in (
        "/openapi.json",
        "/docs",
        "/redoc",
        "/v1/openapi.json",
        "/gradio_api/info",
        "/gradio_api/openapi.json",
    ):
        answer = anonymous.program.get(path)
        assert answer.status_code in (401, 404) and "/v1/me/keys" not in answer.text, path
    assert "/v1/me/keys" in person.program.get("/v1/openapi.json").text
