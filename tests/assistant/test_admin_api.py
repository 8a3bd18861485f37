"""What an admin does over HTTP, what nobody else finds there, the server's own routes, and starting over."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from adapters.base_model import BaseFiles
from adapters.policy import Policy
from assistant import metrics
from assistant.api.app import create_app
from assistant.mynah import Mynah
from assistant.ui.session import COOKIE
from feedback.errors import NotSignedIn
from tests.assistant.serving import PASSWORD, open_mynah, own_models, settings, teach
from tests.assistant.test_api import Person, give_version

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def mynah(base_files: BaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mynah]:
    folder = tmp_path_factory.mktemp("admin")
    opened = open_mynah(settings(own_models(base_files, folder / "models"), folder / "data"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def app(mynah: Mynah) -> Any:
    return create_app(mynah, browser=False)


@pytest.fixture(scope="module")
def boss(mynah: Mynah, app: Any) -> Person:
    return Person(mynah, app, "Boss", admin=True)


def told(boss: Person) -> list[tuple[str, str, str]]:
    """The newest entries of the audit log."""
    return [(e["admin"], e["action"], e["subject"]) for e in boss.get("/v1/admin/audit?limit=3")["entries"]]


def test_all_that_an_admin_does_over_http_is_in_the_log(mynah: Mynah, app: Any, boss: Person, policy: Policy) -> None:
    assert boss.http.post("/v1/admin/users", json={"name": "Bo", "password": PASSWORD}).status_code == 201
    assert told(boss)[0] == ("Boss", "added", "Bo")
    bo = mynah.accounts.find("Bo")
    give_version(mynah, bo, policy)
    assert boss.http.get("/v1/admin/users/Bo/versions/v1/export").status_code == 200
    assert told(boss)[0] == ("Boss", "exported a version of", "Bo")
    assert boss.http.patch("/v1/admin/users/Bo", json={"password": "another long password"}).status_code == 200
    assert boss.http.patch("/v1/admin/users/Bo", json={"disabled": True}).json()["disabled"] is True
    assert told(boss)[:2] == [("Boss", "disabled", "Bo"), ("Boss", "set the password of", "Bo")]
    assert boss.http.put("/v1/admin/settings", json={"name": "labels_per_update", "value": 25}).status_code == 200
    assert told(boss)[0] == ("Boss", "changed the setting", "")
    assert mynah.updates.schedule.new_labels == 25, "from now on, without a restart"
    link = boss.http.post("/v1/admin/invitations", json={"note": "Cy"}).json()
    assert boss.http.delete(f"/v1/admin/invitations/{link['id']}").status_code == 200
    assert told(boss)[:2] == [("Boss", "withdrew an invitation", ""), ("Boss", "invited somebody", "")]
    assert boss.http.delete("/v1/admin/users/Bo").status_code == 200
    assert told(boss)[0] == ("Boss", "removed", f"somebody who is gone ({bo.id})")
    newest = boss.get("/v1/admin/audit?limit=1")["entries"][0]["number"]
    assert all(e["number"] < newest for e in boss.get(f"/v1/admin/audit?before={newest}")["entries"])


def test_a_fixed_setting_is_refused(boss: Person) -> None:
    fixed = {each["name"]: each["fixed"] for each in boss.get("/v1/admin/settings")["settings"]}
    assert fixed["updates"] and fixed["kl_budget"] and not fixed["sign_up"]
    assert boss.http.put("/v1/admin/settings", json={"name": "updates", "value": "idle"}).status_code == 409
    assert boss.http.put("/v1/admin/settings", json={"name": "sign_up", "value": "maybe"}).status_code == 400


def test_nobody_else_finds_any_of_it(mynah: Mynah, app: Any, boss: Person) -> None:
    """In the words of what does not exist, before the body is looked at."""
    di = Person(mynah, app, "Di")
    for method, path in (
        ("GET", "/v1/admin/settings"), ("PUT", "/v1/admin/settings"), ("GET", "/v1/admin/audit"),
        ("POST", "/v1/admin/invitations"), ("DELETE", "/v1/admin/invitations/i_1"), ("PATCH", "/v1/admin/users/Boss"),
        ("GET", "/v1/admin/users"), ("POST", "/v1/admin/users"), ("DELETE", "/v1/admin/users/Boss"),
        ("GET", "/v1/admin/users/Di/versions"), ("GET", "/metrics"),
    ):  # fmt: skip
        for body in (b'{"name": "Eve", "password": "a password"}', b"{bad"):
            content = None if method == "GET" else body
            answer = di.http.request(method, path, content=content, headers={"Content-Type": "application/json"})
            nowhere = di.http.request(method, "/v1/nowhere", content=content).json()["error"]
            said = answer.json()["error"]
            assert answer.status_code == 404 and said["code"] == "not_found"
            assert said["message"] == nowhere["message"].replace("/v1/nowhere", path), "not told apart"


def test_a_disabled_persons_key_and_session_are_refused_at_once(mynah: Mynah, app: Any, boss: Person) -> None:
    ed = Person(mynah, app, "Ed")
    browser = TestClient(app, cookies={COOKIE: mynah.accounts.sign_in("Ed", PASSWORD)})
    assert browser.get("/v1/me").status_code == 200 and ed.http.get("/v1/me").status_code == 200
    assert boss.http.patch("/v1/admin/users/Ed", json={"disabled": True}).status_code == 200
    assert browser.get("/v1/me").status_code == 401 and ed.http.get("/v1/me").status_code == 401
    with pytest.raises(NotSignedIn):
        mynah.accounts.sign_in("Ed", PASSWORD)
    assert boss.http.patch("/v1/admin/users/Ed", json={"disabled": False}).status_code == 200
    assert browser.get("/v1/me").status_code == 401 and ed.http.get("/v1/me").status_code == 401
    assert mynah.accounts.sign_in("Ed", PASSWORD)


def test_starting_over_forgets_what_was_learned_and_keeps_the_chats(mynah: Mynah, app: Any, policy: Policy) -> None:
    flo = Person(mynah, app, "Flo")
    talk = mynah.chat.open(flo.user)
    mynah.chat.send(flo.user, talk.id, "Hello!", max_tokens=4).replies()
    teach(mynah, flo.user, 12)
    mynah.learning.correct(flo.user, "emoji", -1.0)
    give_version(mynah, flo.user, policy)
    mynah.updates.request(flo.user)
    weights = mynah.versions.path(flo.user.id, 1)
    assert weights.is_dir() and mynah.active(flo.user) is not None
    receipt = flo.http.post("/v1/me/reset").json()
    assert (receipt["acts"], receipt["adapters"], receipt["jobs"]) == (13, 1, 1)
    assert not weights.exists() and mynah.active(flo.user) is None
    assert mynah.store.versions.live_updates(flo.user.id) == []
    assert not mynah.learning.has_learned(flo.user)
    assert {view.words for view in mynah.learning.profile(flo.user)} == {"nothing known yet"}
    me = flo.get("/v1/me")
    assert (me["labels"], me["active_version"], me["served_arm"]) == (0, "base", "base")
    assert len(mynah.chat.history(flo.user, talk.id)) == 2
    assert all(event.retracted_at for event in mynah.store.acts.events(flo.user.id))
    teach(mynah, flo.user, 1)
    assert flo.get("/v1/me")["labels"] == 1
    assert give_version(mynah, flo.user, policy).number == 2, "a number is never used again"


def test_the_dashboard_asks_for_metrics_that_are_served(mynah: Mynah) -> None:
    served = set(re.findall(r"^# TYPE (\S+)", metrics.render(mynah, metrics.Traffic()), re.MULTILINE))
    panels = json.loads((ROOT / "deploy" / "grafana.json").read_text("utf-8"))["panels"]
    asked = {
        name
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"(?:mynah|process)_\w+", target["expr"])
    }
    assert asked <= served and len(asked) >= 10


def test_a_ratio_on_the_dashboard_has_the_same_labels_on_both_sides() -> None:
    panels = json.loads((ROOT / "deploy" / "grafana.json").read_text("utf-8"))["panels"]
    ratios = [t["expr"] for panel in panels for t in panel["targets"] if " / " in t["expr"]]
    assert len(ratios) >= 2
    for ratio in ratios:  # Prometheus divides only what has the same labels, and answers nothing where none has
        above, below = ratio.split(" / ")
        assert above.startswith("sum(") == below.startswith("sum("), ratio


def test_an_admin_manages_people(mynah: Mynah, app: Any, boss: Person, policy: Policy) -> None:
    give_version(mynah, Person(mynah, app, "Ada").user, policy)
    for loosely in ("yes", 1, "true"):  # nobody becomes an admin by a slip
        asked = {"name": "Eve", "password": PASSWORD, "admin": loosely}
        assert boss.http.post("/v1/admin/users", json=asked).json()["error"]["param"] == "admin"
    made = boss.http.post("/v1/admin/users", json={"name": "Eve", "password": PASSWORD})
    assert made.status_code == 201 and made.json()["admin"] is False
    names = {person["name"]: person for person in boss.get("/v1/admin/users")["users"]}
    assert set(names) >= {"Boss", "Ada", "Eve"} and names["Ada"]["active_version"] == "v1"
    assert boss.http.delete("/v1/admin/users/eve").json()["name"] == "Eve"
    assert boss.http.delete("/v1/admin/users/eve").status_code == 404
    assert boss.get("/v1/admin/users/Ada/versions")["active"] == "v1"
    for name, held in (("peft", "adapter_model.safetensors"), ("vllm", "serve.sh")):  # one check is enough for both
        packed = boss.http.get(f"/v1/admin/users/Ada/versions/v1/export?format={name}")
        assert packed.status_code == 200 and packed.headers["content-type"] == "application/zip"
        assert packed.headers["content-disposition"].endswith(f"Ada-v1-{name}.zip")
        members = zipfile.ZipFile(io.BytesIO(packed.content)).namelist()
        assert {held, "adapter_config.json", "README.md", "manifest.json"} <= set(members)
    refused = boss.http.get("/v1/admin/users/Ada/versions/v1/export?format=doc")
    assert refused.status_code == 400 and "doc" in refused.json()["error"]["message"]
    assert list(mynah.config.jobs.iterdir()) == [], "nothing is left of what was made"
    last = boss.http.delete("/v1/me")
    assert last.status_code == 409 and "last admin" in last.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1"), ("OPTIONS", "/v1/me"), ("TRACE", "/v1/x"), ("PUT", "/metrics"), ("POST", "/healthz")],
)
def test_every_refusal_has_the_same_form(boss: Person, method: str, path: str) -> None:
    answer = boss.http.request(method, path)
    assert answer.status_code == 404
    assert set(answer.json()["error"]) == {"message", "type", "code", "param"}
    assert f"{method} {path}" in answer.json()["error"]["message"]


def test_health_is_open_and_metrics_are_for_admins(app: Any, boss: Person) -> None:
    open_http = TestClient(app)
    assert open_http.get("/healthz").status_code == open_http.head("/healthz").status_code == 200
    assert open_http.get("/metrics").status_code == 401
    boss.ask()
    page = boss.http.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = dict(line.rsplit(" ", 1) for line in page.text.splitlines() if not line.startswith("#"))
    assert float(values["mynah_users"]) >= 1 and float(values["mynah_replies"]) >= 1
    assert float(values['mynah_http_requests_total{method="POST",status="200"}']) >= 1
    assert float(values["process_resident_memory_bytes"]) > 1e8
    assert 'mynah_updates{state="running"}' in values
