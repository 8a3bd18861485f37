"""The HTTP contract over a real Mynah with the real model; what goes wrong is in test_bad_input.py."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from adapters.base_model import BaseFiles
from adapters.policy import Policy
from assistant.api.app import create_app
from assistant.mynah import Mynah, _Each
from feedback.types import AdapterVersion, User, VersionStatus, now
from tests.assistant.serving import PASSWORD, open_mynah, own_models, settings

HELLO = [{"role": "user", "content": "Tell me something about the sea."}]


@pytest.fixture(scope="module")
def mynah(base_files: BaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mynah]:
    folder = tmp_path_factory.mktemp("api")
    opened = open_mynah(settings(own_models(base_files, folder / "models"), folder / "data"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def app(mynah: Mynah) -> Any:
    return create_app(mynah, browser=False)


class Person:
    """Somebody with an API key."""

    def __init__(self, mynah: Mynah, app: Any, name: str, *, admin: bool = False) -> None:
        self.user: User = mynah.accounts.add(name, PASSWORD, admin=admin)
        _, self.key = mynah.accounts.create_key(self.user)
        self.http = TestClient(app, headers={"Authorization": f"Bearer {self.key}"})

    def ask(self, expect: int = 200, **body: Any) -> dict[str, Any]:
        """A chat completion."""
        answer = self.http.post(
            "/v1/chat/completions", json={"model": "mynah", "messages": HELLO, "max_tokens": 8, **body}
        )
        assert answer.status_code == expect, answer.text
        return dict(answer.json())

    def get(self, path: str, expect: int = 200) -> Any:
        answer = self.http.get(path)
        assert answer.status_code == expect, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def boss(mynah: Mynah, app: Any) -> Person:
    return Person(mynah, app, "Boss", admin=True)


@pytest.fixture
def ada(mynah: Mynah, app: Any) -> Iterator[Person]:
    person = Person(mynah, app, "Ada")
    yield person
    if mynah.store.people.find("ada"):
        mynah.remove_person(person.user)


def give_version(
    mynah: Mynah, user: User, policy: Policy, *, passed: bool = True, status: VersionStatus = "active"
) -> AdapterVersion:
    """A version made outside of training: an adapter that changes nothing."""
    number = mynah.store.versions.next_number(user.id)
    policy.new_adapter("for-a-test")
    manifest = mynah.versions.write(user.id, number, policy.adapter_state("for-a-test"), policy.lora_config(), {})
    policy.drop_adapter("for-a-test")
    check = {"check": "kl", "value": 0.0, "bound": 0.1, "passed": passed, "words": "It stays near the base."}
    version = AdapterVersion(
        user.id, number, mynah.engine.base_id, status if passed else "rejected", number - 1 or None, None, 1, 20, 3,
        {"rank": 8}, {"steps": []}, [check], manifest, now(),
    )  # fmt: skip
    mynah.store.versions.add(version, activate=passed, update_state="promoted")
    return version


def test_it_answers_and_names_arm_version_and_reply(ada: Person) -> None:
    answer = ada.ask()
    (choice,) = answer["choices"]
    assert answer["object"] == "chat.completion" and answer["model"] == "mynah"
    assert answer["mynah"] == {"arm": "base", "version": None}
    assert choice["message"]["role"] == "assistant" and choice["message"]["content"]
    assert choice["finish_reason"] in ("stop", "length") and choice["reply_id"]
    usage = answer["usage"]
    assert usage["completion_tokens"] <= 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_the_same_seed_gives_the_same_text(ada: Person) -> None:
    texts = {ada.ask(seed=5, mynah={"arm": "base"})["choices"][0]["message"]["content"] for _ in range(2)}
    assert len(texts) == 1
    assert ada.ask(seed=6, mynah={"arm": "base"})["choices"][0]["message"]["content"] not in texts


def test_several_choices_come_with_ids_of_their_own(ada: Person) -> None:
    choices = ada.ask(n=4)["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert len({choice["reply_id"] for choice in choices}) == 4


def test_a_stop_string_ends_the_reply_and_is_not_shown(ada: Person) -> None:
    whole = ada.ask(seed=5, max_tokens=24, model="base")["choices"][0]["message"]["content"]
    word = whole.split()[3]
    choice = ada.ask(seed=5, max_tokens=24, model="base", stop=word)["choices"][0]
    assert choice["message"]["content"] == whole[: whole.index(word)]
    assert choice["finish_reason"] == "stop"


def test_a_stream_tells_arm_first_and_ids_in_each_choice(ada: Person) -> None:
    body = {"model": "mynah", "messages": HELLO, "max_tokens": 6, "n": 2, "seed": 3, "stream": True}
    body["stream_options"] = {"include_usage": True}
    body["mynah"] = {"arm": "base"}
    with ada.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert chunks[0]["mynah"] == {"arm": "base", "version": None}
    assert not any("mynah" in chunk for chunk in chunks[1:])
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] <= 12
    ids: dict[int, set[str]] = {0: set(), 1: set()}
    texts, finishes = {0: "", 1: ""}, {}
    for chunk in chunks[:-1]:
        assert chunk["object"] == "chat.completion.chunk" and chunk["usage"] is None
        (choice,) = chunk["choices"]
        ids[choice["index"]].add(choice["reply_id"])
        texts[choice["index"]] += choice["delta"].get("content", "")
        if choice["finish_reason"]:
            finishes[choice["index"]] = choice["finish_reason"]
    assert all(len(each) == 1 for each in ids.values()) and set(finishes) == {0, 1}
    whole = ada.ask(n=2, seed=3, max_tokens=6, mynah={"arm": "base"})["choices"]
    assert texts == {choice["index"]: choice["message"]["content"] for choice in whole}
    given = ada.http.post("/v1/feedback", json={"reply_id": ids[0].pop(), "thumb": 1})
    assert given.status_code == 201


def test_a_conversation_that_is_too_long_loses_its_oldest_turns_and_says_so(ada: Person) -> None:
    filler = [{"role": role, "content": "word " * 700} for role in ("user", "assistant")]
    answer = ada.ask(messages=[{"role": "system", "content": "Be brief."}, *filler * 2, *HELLO], max_tokens=1)
    assert answer["mynah"]["dropped"] >= 2 and "left out" in answer["mynah"]["notice"]
    assert answer["usage"]["prompt_tokens"] <= 1536
    longer = ada.ask(messages=[*[{"role": "user", "content": "word " * 1000}] * 100, *HELLO], max_tokens=1)
    assert 98 <= longer["mynah"]["dropped"] <= 100, "what was left out unread counts as well"


def test_what_many_clients_send_for_nothing_is_taken_as_nothing(ada: Person) -> None:
    for nothing in (None, {}, {"arm": None, "learn": None}):
        answer = ada.ask(mynah=nothing, max_tokens=1)
        assert answer["mynah"]["arm"] == "base"
    given = {"reply_id": answer["choices"][0]["reply_id"], "thumb": 1, "reasons": None, "comment": None}
    assert ada.http.post("/v1/feedback", json=given).status_code == 201
    assert ada.ask(expect=400, mynah={"arm": "best"})["error"]["param"] == "mynah.arm"


def test_models_are_those_the_caller_can_name(mynah: Mynah, ada: Person, policy: Policy) -> None:
    assert [model["id"] for model in ada.get("/v1/models")["data"]] == ["mynah", "base"]
    for _ in range(2):
        give_version(mynah, ada.user, policy)
    give_version(mynah, ada.user, policy, passed=False)
    models = {model["id"]: model for model in ada.get("/v1/models")["data"]}
    assert list(models) == ["mynah", "base", "Ada@v1", "Ada@v2"]
    assert models["mynah"]["parent"] == "Ada@v2" and models["Ada@v2"]["parent"] == "Ada@v1"
    assert models["Ada@v1"]["parent"] == "base" and models["base"]["parent"] is None
    assert ada.get("/v1/models/Ada@v1")["id"] == "Ada@v1"
    assert ada.ask(model="Ada@v1")["mynah"] == {"arm": "adapter", "version": "v1"}
    assert ada.ask(mynah={"arm": "adapter"})["mynah"] == {"arm": "adapter", "version": "v2"}
    assert ada.ask(model="base")["mynah"] == {"arm": "base", "version": None}
    assert ada.ask(400, model="base", mynah={"arm": "adapter"})["error"]["param"] == "mynah.arm"
    assert ada.ask(400, model="Ada@v1", mynah={"arm": "base"})["error"]["param"] == "mynah.arm"
    for unknown in ("gpt-4", "Ada@v3", "Ada@v9", "Ada@base", "Bob@v1", "@v1", "Ada@"):
        assert ada.ask(404, model=unknown)["error"]["param"] == "model"


def test_a_forgotten_version_is_no_model_and_cannot_be_activated(mynah: Mynah, ada: Person, policy: Policy) -> None:
    reply = ada.ask()["choices"][0]["reply_id"]
    click = ada.http.post("/v1/feedback", json={"reply_id": reply, "thumb": 1}).json()["feedback_id"]
    version = give_version(mynah, ada.user, policy)
    assert ada.get("/v1/models/Ada@v1")["id"] == "Ada@v1"
    assert ada.http.delete(f"/v1/feedback/{click}").status_code == 200
    assert not mynah.versions.path(ada.user.id, 1).exists()
    assert [model["id"] for model in ada.get("/v1/models")["data"]] == ["mynah", "base"]
    ada.get("/v1/models/Ada@v1", 404)
    assert ada.ask(404, model="Ada@v1")["error"]["param"] == "model"
    refused = ada.http.post("/v1/me/versions/v1/activate")
    assert refused.status_code == 409 and refused.json()["error"]["code"] == "conflict"
    wanted = replace(version, forgotten_at="now").unusable(version.base_id)
    assert refused.json()["error"]["message"] == wanted and "was taken back" in wanted
    assert ada.get("/v1/me/versions")["active"] == "base"


def test_feedback_of_every_form(ada: Person) -> None:
    ids = [choice["reply_id"] for choice in ada.ask(n=3)["choices"]]
    post = ada.http.post

    def give(**body: Any) -> dict[str, Any]:
        answer = post("/v1/feedback", json=body)
        assert answer.status_code == 201, answer.text
        assert set(answer.json()) == {"feedback_id", "labels", "head_ms"}
        return dict(answer.json())

    assert give(reply_id=ids[0], thumb=1, reasons=["helpful"], comment="nice")["labels"] == 1
    assert give(reply_id=ids[0], thumb=-1)["labels"] == 1, "a second thumb takes the place of the first"
    assert give(reply_id=ids[0], thumb=0)["labels"] == 0
    ranked = give(ranking=[[ids[1]], [ids[0], ids[2]]])
    assert ranked["labels"] == 1 and ranked["head_ms"] > 0
    assert give(ranking=[[ids[0], ids[1]]], verdict="neither")["labels"] == 2
    assert give(reply_id=ids[2], edit="You could swim in the sea.")["labels"] == 3
    gone = ada.http.delete(f"/v1/feedback/{ranked['feedback_id']}")
    assert gone.status_code == 200 and gone.json()["labels"] == 2
    assert ada.http.delete(f"/v1/feedback/{ranked['feedback_id']}").status_code == 404
    assert ada.get("/v1/me")["labels"] == 2


def test_an_idempotency_key_counts_a_request_once(ada: Person) -> None:
    reply = ada.ask()["choices"][0]["reply_id"]
    headers = {"Idempotency-Key": "abc"}
    body = {"reply_id": reply, "edit": "The sea is wide."}
    first, second = (ada.http.post("/v1/feedback", json=body, headers=headers) for _ in range(2))
    assert first.status_code == second.status_code == 201 and first.json() == second.json()
    other = ada.http.post("/v1/feedback", json={"reply_id": reply, "thumb": 1}, headers=headers)
    assert other.status_code == 409
    assert ada.get("/v1/me")["labels"] == 1


def test_feedback_from_elsewhere_and_scores(ada: Person) -> None:
    replies = ["You will love it, you know.", "The sea is an extensive body of water."]
    before = ada.http.post("/v1/me/score", json={"messages": HELLO, "replies": replies}).json()["scores"]
    assert len(before) == 2 and all(score["sd"] > 0 for score in before)
    item = {"messages": HELLO, "replies": replies, "ranking": [[0], [1]]}
    one = ada.http.post("/v1/me/preferences", json=item)
    assert one.status_code == 201 and one.json()["labels"] == 1
    more = ada.http.post("/v1/me/preferences", json=[item, {"messages": HELLO, "replies": replies[:1], "thumb": 1}])
    assert more.status_code == 201 and more.json()["labels"] == 3 and len(more.json()["feedback_ids"]) == 2
    after = ada.http.post("/v1/me/score", json={"messages": HELLO, "replies": replies}).json()["scores"]
    assert after[0]["mean"] - after[1]["mean"] > before[0]["mean"] - before[1]["mean"]


def test_learn_false_keeps_an_exchange_out(ada: Person) -> None:
    reply = ada.ask(mynah={"learn": False})["choices"][0]["reply_id"]
    answer = ada.http.post("/v1/feedback", json={"reply_id": reply, "thumb": 1})
    assert answer.status_code == 409 and "learn" in answer.json()["error"]["message"]


def test_me_and_the_profile(ada: Person) -> None:
    me = ada.get("/v1/me")
    assert (me["name"], me["labels"], me["active_version"], me["served_arm"]) == ("Ada", 0, "base", "base")
    assert me["labels_until_update"] == 10 and me["next_update"]["why"]
    traits = {trait["name"]: trait for trait in ada.get("/v1/me/profile")["traits"]}
    assert set(traits["length"]) == {"name", "weight", "sd", "evidence", "words"}
    put = ada.http.put("/v1/me/profile", json={"name": "length", "weight": -0.5})
    length = {trait["name"]: trait for trait in put.json()["traits"]}["length"]
    assert put.status_code == 200 and length["weight"] == -0.5 and "set by you" in length["words"]
    assert ada.get("/v1/me")["labels"] == 0, "a correction is no label"
    back = ada.http.put("/v1/me/profile", json={"name": "length", "weight": None}).json()["traits"]
    assert "set by you" not in {trait["name"]: trait for trait in back}["length"]["words"]


def test_keys_and_password(mynah: Mynah, ada: Person) -> None:
    made = ada.http.post("/v1/me/keys")
    assert made.status_code == 201
    key, key_id = made.json()["key"], made.json()["id"]
    listed = ada.get("/v1/me/keys")["keys"]
    assert len(listed) == 2 and key not in json.dumps(listed)
    other = {"Authorization": f"Bearer {key}"}
    assert ada.http.get("/v1/me", headers=other).status_code == 200
    assert ada.http.delete(f"/v1/me/keys/{key_id}").status_code == 200
    assert ada.http.get("/v1/me", headers=other).status_code == 401
    assert ada.http.delete(f"/v1/me/keys/{key_id}").status_code == 404
    wrong = ada.http.put("/v1/me/password", json={"old": "wrong wrong", "new": "a new password"})
    assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "old"
    short = ada.http.put("/v1/me/password", json={"old": PASSWORD, "new": "short"})
    assert short.status_code == 400 and short.json()["error"]["param"] == "new"
    assert ada.http.put("/v1/me/password", json={"old": PASSWORD, "new": "a new password"}).status_code == 200
    assert mynah.accounts.sign_in("ada", "a new password")


def test_versions_are_told_and_activated(mynah: Mynah, ada: Person, policy: Policy) -> None:
    for _ in range(2):
        give_version(mynah, ada.user, policy)
    give_version(mynah, ada.user, policy, passed=False)
    told = ada.get("/v1/me/versions")
    assert told["active"] == "v2"
    assert [(v["name"], v["status"], v["parent"]) for v in told["versions"]] == [
        ("v1", "retired", "base"),
        ("v2", "active", "v1"),
        ("v3", "rejected", "v2"),
    ]
    assert told["versions"][0]["feedback"] == {"first": 1, "last": 20} and told["versions"][0]["seed"] == 3
    back = ada.http.post("/v1/me/versions/v1/activate")
    assert back.status_code == 200 and back.json()["active"] == "v1"
    assert {v["name"]: v["status"] for v in back.json()["versions"]}["v2"] == "rolled back"
    assert ada.http.post("/v1/me/versions/base/activate").json()["active"] == "base"
    assert ada.http.post("/v1/me/versions/v3/activate").status_code == 409
    assert ada.http.post("/v1/me/versions/v4/activate").status_code == 404
    assert ada.get("/v1/me/versions/v1")["name"] == "v1"
    assert ada.http.post("/v1/me/versions/v01/activate").status_code == 400, "a version has one name"
    assert ada.ask(expect=404, model="Ada@v01")["error"]["code"] == "not_found"
    assert ada.http.post("/v1/me/versions/v9999999999/activate").status_code == 404


def test_everything_about_me_can_be_had_and_deleted(mynah: Mynah, ada: Person, policy: Policy) -> None:
    version = give_version(mynah, ada.user, policy, status="probation")
    told = ada.get("/v1/me/versions/v1")
    assert told["status"] == "probation" and told["trial"].startswith("On trial: now and then it will stand")
    reply = ada.ask(messages=[{"role": "user", "content": "A secret called xyzzy."}])["choices"][0]["reply_id"]
    given = {"reply_id": reply, "thumb": 1, "comment": "plugh"}
    ada.http.post("/v1/feedback", json=given, headers={"Idempotency-Key": "my-own-words"})
    packed = ada.http.get("/v1/me/export")
    assert packed.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(packed.content))
    assert {"person.json", "replies.json", "feedback.json", "versions.json"} <= set(archive.namelist())
    trials = json.loads(archive.read("trials.json"))
    assert [event["what"] for event in trials["events"]] == ["begun"] and trials["duels"] == []
    assert "adapters/v1/adapter_model.safetensors" in archive.namelist()
    assert "xyzzy" in archive.read("replies.json").decode() and "plugh" in archive.read("feedback.json").decode()
    assert json.loads(archive.read("idempotency_keys.json"))[0]["key"] == "my-own-words"
    assert json.loads(archive.read("person.json"))["sessions"] == []
    assert "argon2" not in b"".join(archive.read(n) for n in archive.namelist() if n.endswith(".json")).decode()
    folder = mynah.versions.path(ada.user.id, version.number)
    assert folder.is_dir()
    receipt = ada.http.delete("/v1/me").json()
    assert receipt["rows"]["replies"] == 1 and receipt["rows"]["feedback"] == 1 and receipt["adapters"] == 1
    assert not folder.parent.exists()
    assert ada.http.get("/v1/me").status_code == 401
    database = mynah.config.database
    left = b"".join(path.read_bytes() for path in database.parent.glob(f"{database.name}*"))
    assert b"xyzzy" not in left and b"plugh" not in left


def test_an_export_is_the_same_written_piece_by_piece(mynah: Mynah, ada: Person) -> None:
    assert zipfile.ZipFile(io.BytesIO(ada.http.get("/v1/me/export").content)).read("replies.json") == b"[]"
    for said in ("A line\nbreak \u2028 \u0085", 'and "quotes"'):
        chat = mynah.chat.open(ada.user)
        mynah.chat.send(ada.user, chat.id, said, max_tokens=4).replies()
    archive = zipfile.ZipFile(io.BytesIO(ada.http.get("/v1/me/export").content))
    records = mynah._records(ada.user)
    for name in ("conversations", "replies", "feedback", "trials", "audit"):
        whole = json.dumps(
            list(records[name]) if isinstance(records[name], _Each) else records[name], indent=1, ensure_ascii=False
        )
        assert archive.read(f"{name}.json").decode() == whole
    assert not list(mynah.config.jobs.glob("export-*")), "nothing of it is left"


@pytest.mark.parametrize("ranges", ["bytes=0-10", "foo", "bytes=99999999999-"])
def test_an_export_leaves_nothing_whatever_part_is_asked_for(mynah: Mynah, ada: Person, ranges: str) -> None:
    assert ada.http.get("/v1/me/export", headers={"Range": ranges}).status_code in (206, 400, 416)
    assert not list(mynah.config.jobs.glob("export-*"))


def test_a_person_has_one_export_made_at_a_time(mynah: Mynah, ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    write = Mynah.write_export

    def slowly(self: Mynah, user: User, out: Any) -> None:
        begun.set()
        assert go_on.wait(30)
        write(self, user, out)

    monkeypatch.setattr(Mynah, "write_export", slowly)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ada.http.get, "/v1/me/export")
        assert begun.wait(30)
        second = ada.http.get("/v1/me/export")
        go_on.set()
        assert first.result().status_code == 200
    assert second.status_code == 409 and "being made already" in second.json()["error"]["message"]
    assert ada.http.get("/v1/me/export").status_code == 200

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Mynah, "write_export", full)
    refused = ada.http.get("/v1/me/export")
    assert refused.status_code == 507 and "No space left on device" in refused.json()["error"]["message"]
    assert not list(mynah.config.jobs.glob("export-*"))
