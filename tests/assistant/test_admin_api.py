"""What an admin does over HTTP, what a disabled person can still do (nothing), and starting over."""

from __future__ import annotations

import json
import re
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
    di = Person(mynah, app, "Di")
    for method, path in (
        ("GET", "settings"), ("PUT", "settings"), ("GET", "audit"), ("POST", "invitations"), ("PATCH", "users/Boss"),
        ("DELETE", "invitations/i_1"),
    ):  # fmt: skip
        body = {} if method == "GET" else {"json": {}}
        assert di.http.request(method, f"/v1/admin/{path}", **body).status_code in (400, 404), path
    assert di.http.get("/v1/admin/audit").status_code == 404


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
