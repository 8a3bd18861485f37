"""Feedback files of other programs: what they become, what is refused, and that a server takes each in once."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.base_model import BaseFiles
from assistant.bringing import read_feedback, send
from assistant.cli import CANNOT, main
from assistant.imports import check_brought
from assistant.mynah import Mynah
from feedback.errors import InvalidInput, MynahError
from tests.assistant.conftest import said
from tests.assistant.serving import PASSWORD, listening, open_mynah, own_models, settings

OWN = {"messages": said("What is the sea?"), "replies": ["Salt water.", "Water."], "ranking": [[1], [0]]}
PAIR = {"prompt": "What is the sea?", "chosen": "Salt water.", "rejected": "Water."}
RANKED = {"messages": said("What is the sea?"), "replies": ["Salt water.", "Water."], "ranking": [[0], [1]]}


def message(number: str, parent: str | None, role: str, content: str, children: list[str]) -> dict[str, Any]:
    return {"id": number, "parentId": parent, "role": role, "content": content, "childrenIds": children}


def rating(value: Any, person: str = "u1", rated: str = "b", **data: Any) -> dict[str, Any]:
    """A line of Open WebUI's export (0.12): two questions, the second with two replies side by side."""
    messages = [
        message("q", None, "user", "What is the sea?", ["r"]),
        message("r", "q", "assistant", "Salt water.", ["p"]),
        message("p", "r", "user", "And a lake?", ["a", "b"]),
        message("a", "p", "assistant", "Fresh water, mostly.", []),
        message("b", "p", "assistant", "A small sea.", []),
    ]
    return {
        "id": "f1",
        "user_id": person,
        "version": 0,
        "type": "rating",
        "data": {"rating": value, "model_id": "m1", "reason": None, "comment": "", **data},
        "meta": {"arena": bool(data), "chat_id": "c1", "message_id": rated, "message_index": 4},
        "snapshot": {
            "chat": {"id": "c1", "chat": {"history": {"currentId": "b", "messages": {m["id"]: m for m in messages}}}}
        },
        "created_at": 1,
        "updated_at": 1,
    }


def written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return path


def test_the_three_ways_to_write_a_list(tmp_path: Path) -> None:
    rows = [PAIR, {"prompt": "Hello", "reply": "Hi, you!", "thumb": 1}]
    thumb = {"messages": said("Hello"), "replies": ["Hi, you!"], "thumb": 1}
    for name, text in (
        ("list.json", json.dumps(rows)),
        ("lines.jsonl", "\n\n".join(map(json.dumps, rows)) + "\n"),
        ("marked.jsonl", "\ufeff" + "\n".join(map(json.dumps, rows))),
    ):
        assert read_feedback(written(tmp_path, name, text)).preferences == [RANKED, thumb]
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, ["prompt", "chosen", "rejected"])
    writer.writeheader()
    writer.writerow({**PAIR, "chosen": 'Salt, "salt"\nand water.'})
    (row,) = read_feedback(written(tmp_path, "pairs.csv", sheet.getvalue())).preferences
    assert row == {**RANKED, "replies": ['Salt, "salt"\nand water.', "Water."]}
    (one,) = read_feedback(written(tmp_path, "own.json", json.dumps(OWN))).preferences
    assert one == OWN


def test_pairs_of_whole_conversations(tmp_path: Path) -> None:
    """As sets for direct preference optimisation have them: the prompt as messages, or only within the replies."""
    asked = said("What is the sea?")
    chosen, rejected = ([*asked, {"role": "assistant", "content": text}] for text in ("Salt water.", "Water."))
    within = {"chosen": chosen, "rejected": rejected}
    beside = {"prompt": asked, "chosen": chosen[-1:], "rejected": rejected[-1:]}
    found = read_feedback(written(tmp_path, "dpo.jsonl", json.dumps(within) + "\n" + json.dumps(beside)))
    assert found.preferences == [RANKED, RANKED]


def test_open_webuis_ratings(tmp_path: Path) -> None:
    rows = [rating(1), rating("-1", rated="r"), rating(1, rated="a", sibling_model_ids=["m2"])]
    thumb, down, arena = read_feedback(written(tmp_path, "export.json", json.dumps(rows))).preferences
    before = [*said("What is the sea?"), {"role": "assistant", "content": "Salt water."}, *said("And a lake?")]
    assert thumb == {"messages": before, "replies": ["A small sea."], "thumb": 1}
    assert down == {"messages": said("What is the sea?"), "replies": ["Salt water."], "thumb": -1}
    assert arena == {"messages": before, "replies": ["Fresh water, mostly.", "A small sea."], "ranking": [[0], [1]]}
    check_brought([thumb, down, arena])  # all of them are what the API takes


def test_what_says_nothing_is_left_out_and_told(tmp_path: Path) -> None:
    gone = rating(1) | {"snapshot": None}
    rows = [rating(None), gone, rating(1, rated="nowhere"), rating(1), {**PAIR, "rejected": "Salt water. "}]
    found = read_feedback(written(tmp_path, "export.json", json.dumps(rows)))
    assert len(found.preferences) == 1
    assert [line.split(":")[0] for line in found.left_out] == ["entry 1", "entry 2", "entry 3", "entry 5"]
    assert "taken back" in found.left_out[0] and "not kept" in found.left_out[1] and "same" in found.left_out[3]


def test_a_text_may_hold_any_end_of_a_line(tmp_path: Path) -> None:
    rows = [PAIR | {"chosen": "one\u2028two\u0085three"}, PAIR]
    path = written(tmp_path, "rows.jsonl", "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    assert read_feedback(path).preferences[0]["replies"][0] == "one\u2028two\u0085three"


def test_of_several_people_one_is_chosen(tmp_path: Path) -> None:
    path = written(tmp_path, "export.json", json.dumps([rating(1), rating(1), rating(-1, person="u2")]))
    with pytest.raises(InvalidInput, match=r"2 people; name one with --person: u1 \(2\), u2 \(1\)"):
        read_feedback(path)
    assert [each["thumb"] for each in read_feedback(path, "u2").preferences] == [-1]
    with pytest.raises(InvalidInput, match="nothing of u3; it names u1, u2"):
        read_feedback(path, "u3")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("x.json", "[]", "no list of objects"),
        ("x.json", "[1]", "no list of objects"),
        ("x.jsonl", json.dumps(PAIR) + "\n{", "line 2: no JSON"),
        ("x.json", '[{"a": 1}]', "entry 1: it has a; expected are messages and replies"),
        ("x.json", '[{"prompt": 1, "chosen": "a", "rejected": "b"}]', "entry 1: its prompt is neither"),
        ("x.json", '[{"prompt": "p", "chosen": 1, "rejected": "b"}]', "entry 1: a reply is neither"),
        ("x.json", '[{"prompt": "p", "chosen": [{}], "rejected": "b"}]', "entry 1: it is not as expected"),
        ("x.csv", "prompt,reply,thumb\np,r,maybe\n", "entry 1: thumb is 'maybe'"),
        ("x.json", json.dumps([rating("good")]), "entry 1: it is not as expected"),
    ],
)
def test_what_cannot_be_read_names_the_place(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        read_feedback(written(tmp_path, name, text))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_feedback(tmp_path / "nowhere.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="not UTF-8"):
        read_feedback(tmp_path / "bytes.json")


# ---- a real server ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mynah(base_files: BaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mynah]:
    folder = tmp_path_factory.mktemp("bringing")
    opened = open_mynah(settings(own_models(base_files, folder / "models"), folder / "data"), run_updates=False)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def address(mynah: Mynah) -> Iterator[str]:
    with listening(mynah) as found:
        yield found


def pairs(count: int, *, bad: int | None = None) -> list[dict[str, Any]]:
    made = [{**RANKED, "replies": [f"Salt water, {i}.", "Water."]} for i in range(count)]
    if bad is not None:
        made[bad] = {**RANKED, "ranking": [[0], [7]]}
    return made


def test_a_server_takes_each_in_once(mynah: Mynah, address: str) -> None:
    user = mynah.accounts.add("Ada", PASSWORD)
    key = mynah.accounts.create_key(user)[1]
    done: list[int] = []
    send(pairs(3), address, key, done.append)
    assert done == [1, 2, 3]
    send(pairs(5)[::-1], address, key)  # a later export, the newest first
    assert mynah.store.acts.label_count(user.id) == 5


def test_whoever_starts_over_may_bring_the_same_again(mynah: Mynah, address: str) -> None:
    user = mynah.accounts.add("Dora", PASSWORD)
    key = mynah.accounts.create_key(user)[1]
    send(pairs(2), address, key)
    reset = httpx.post(f"{address}/v1/me/reset", headers={"Authorization": f"Bearer {key}"})
    assert reset.is_success and mynah.store.acts.label_count(user.id) == 0
    send(pairs(2), address, key)
    assert mynah.store.acts.label_count(user.id) == 2


def test_what_was_refused_says_how_far_it_came(mynah: Mynah, address: str) -> None:
    user = mynah.accounts.add("Bob", PASSWORD)
    key = mynah.accounts.create_key(user)[1]
    with pytest.raises(MynahError, match=r"3 of 5 were taken in, then: preferences\[3\]"):
        send(pairs(5, bad=3), address, key)
    assert mynah.store.acts.label_count(user.id) == 3
    with pytest.raises(MynahError, match=r"0 of 1 were taken in, then: .*API key"):
        send(pairs(1), address, "wrong")
    with pytest.raises(MynahError, match="does not answer"):
        send(pairs(1), "http://127.0.0.1:9", key)


def test_whoever_has_no_room_is_told(mynah: Mynah, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = mynah.accounts.create_key(mynah.accounts.add("Eve", PASSWORD))[1]
    monkeypatch.setattr(mynah.limits, "_room", 0)
    with pytest.raises(MynahError, match=r"0 of 1 were taken in, then: You keep .* delete chats"):
        send(pairs(1), address, key)


def test_the_command(
    mynah: Mynah, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    user = mynah.accounts.add("Cleo", PASSWORD)
    key = mynah.accounts.create_key(user)[1]
    path = written(tmp_path, "export.json", json.dumps([rating(1), rating(None), rating(-1, rated="r")]))
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{key}\n"))
    assert main(["import-feedback", str(path), "--server", address]) == 0
    said = capsys.readouterr()
    assert "2 preferences were taken in; 1 entries said nothing." in said.out and "entry 2" in said.err
    assert key not in said.out + said.err
    assert mynah.store.acts.label_count(user.id) == 2
    assert main(["import-feedback", str(written(tmp_path, "none.json", json.dumps([rating(None)])))]) == CANNOT
