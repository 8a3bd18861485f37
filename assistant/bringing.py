"""Feedback that was given in another program: its file becomes preferences, and a running server takes them in.

    python app.py import-feedback FILE --server http://127.0.0.1:7860      # the person's API key on standard input

A file is read by what is in it, as a JSON list, JSON Lines or CSV with a header:

    {"messages", "replies", "ranking" or "thumb"}     Mynah's own form (assistant/imports.py)
    {"prompt", "chosen", "rejected"}                  pairs; each a text or a list of messages
    {"prompt", "reply", "thumb"}                      thumbs: 1 or -1
    Open WebUI's feedback export                      ratings with the chat they stand in (Evaluations → Feedback)

An entry that says nothing (a rating that was taken back, a chat that was deleted) is left out and told; one that cannot
be read stops everything before anything is sent. Left out on purpose: whose files these are. The key says to whom they
are brought; of an export with several people's ratings one is chosen by id.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from adapters.files import sha256_json
from feedback.errors import Conflict, InvalidInput, MynahError, OverQuota

PATIENCE = 120.0  # seconds for one answer
_Json = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """What a file holds. left_out: why, for each entry that says nothing."""

    preferences: list[dict[str, Any]]
    left_out: list[str]


def read_feedback(path: Path, person: str | None = None) -> Found:
    """The preferences of a file. person: whose, of an export with several people's ratings. Raises InvalidInput."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path.name} is not UTF-8 text; save it as JSON, JSON Lines or CSV in UTF-8.") from error
    entries = _of_one(path.name, _entries(path.name, text), person)
    found = Found([], [])
    for number, entry in enumerate(entries, 1):
        try:
            found.preferences.append(_preference(entry))
        except _SaysNothing as silent:
            found.left_out.append(f"entry {number}: {silent}")
        except (InvalidInput, KeyError, TypeError, AttributeError, ValueError) as error:
            why = error.message if isinstance(error, InvalidInput) else f"it is not as expected ({error!r})"
            raise InvalidInput(f"{path.name}, entry {number}: {why}") from error
    return found


def send(
    preferences: Sequence[_Json], server: str, key: str, progress: Callable[[int], None] = lambda done: None
) -> None:
    """Give preferences to a server, each in a request of its own, so that one that was taken in is not taken in twice,
    whatever a later file holds besides.

    Raises MynahError that says how far it came.
    """
    with httpx.Client(base_url=server, headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE) as client:
        for done, preference in enumerate(preferences):
            try:
                _post(client, preference)
            except (httpx.HTTPError, httpx.InvalidURL, MynahError) as error:
                why = error.message if isinstance(error, MynahError) else f"{server} does not answer ({error})."
                why = why.replace("preferences[0]", f"preferences[{done}]", 1)
                raise Conflict(
                    f"{done} of {len(preferences)} were taken in, then: {why} Give the command again; nothing is taken "
                    "in twice."
                ) from error
            progress(done + 1)


def _post(client: httpx.Client, preference: _Json) -> None:
    """One request, again as often as the server asks to come back. Raises InvalidInput with the server's words."""
    headers = {"Idempotency-Key": sha256_json(preference)[:40]}
    while (answer := client.post("/v1/me/preferences", json=[preference], headers=headers)).is_error:
        try:
            problem = answer.json()["error"]
            code, message = problem["code"], str(problem["message"])
        except (ValueError, KeyError, TypeError):
            code, message = None, f"it answered {answer.status_code}, which is no answer of Mynah's."
        if answer.status_code != httpx.codes.TOO_MANY_REQUESTS or code == OverQuota.code:
            raise InvalidInput(message)
        time.sleep(min(float(answer.headers.get("Retry-After", 1)), PATIENCE))


# ---- files --------------------------------------------------------------------------------------------------------


class _SaysNothing(Exception):
    """An entry without feedback in it."""


def _entries(name: str, text: str) -> list[_Json]:
    """The objects in a file, whichever of the three ways they are written."""
    if Path(name).suffix.lower() == ".csv":
        return list(csv.DictReader(io.StringIO(text)))
    try:
        whole = json.loads(text)
    except ValueError:
        whole = list(_lines(name, text))
    entries = whole if isinstance(whole, list) else [whole]
    if not entries or not all(isinstance(entry, Mapping) for entry in entries):
        raise InvalidInput(f"{name} holds no list of objects; see `python app.py import-feedback --help`.")
    return entries


def _lines(name: str, text: str) -> Iterator[Any]:
    for number, line in enumerate(text.split("\n"), 1):  # JSON may hold other ends of lines within a text
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise InvalidInput(f"{name}, line {number}: no JSON ({error}).") from error


def _of_one(name: str, entries: Sequence[_Json], person: str | None) -> list[_Json]:
    """The entries of one person, where a file says whose they are."""
    whose = Counter(str(entry["user_id"]) for entry in entries if "user_id" in entry)
    if person is not None and person not in whose:
        raise InvalidInput(f"{name} has nothing of {person}; it names {', '.join(whose) or 'nobody'}.")
    if person is None and len(whose) > 1:
        listed = ", ".join(f"{each} ({count})" for each, count in whose.most_common(10))
        raise InvalidInput(f"{name} holds ratings of {len(whose)} people; name one with --person: {listed}.")
    return [entry for entry in entries if person is None or str(entry.get("user_id")) == person]


# ---- entries ------------------------------------------------------------------------------------------------------


def _preference(entry: _Json) -> dict[str, Any]:
    if "replies" in entry:
        return dict(entry)
    if "chosen" in entry and "rejected" in entry:
        messages = _messages(entry.get("prompt"), entry["chosen"])
        texts = [_last(entry["chosen"]), _last(entry["rejected"])]
        if texts[0].strip() == texts[1].strip():
            raise _SaysNothing("both replies are the same.")
        return {"messages": messages, "replies": texts, "ranking": [[0], [1]]}
    if "thumb" in entry and "reply" in entry:
        messages = _messages(entry.get("prompt"), entry["reply"])
        return {"messages": messages, "replies": [_last(entry["reply"])], "thumb": _thumb(entry["thumb"])}
    if "snapshot" in entry or entry.get("type") == "rating":
        return _open_webui(entry)
    known = "messages and replies; prompt, chosen and rejected; prompt, reply and thumb; or an export of Open WebUI"
    raise InvalidInput(f"it has {', '.join(map(str, entry)) or 'nothing'}; expected are {known}.")


def _messages(prompt: Any, reply: Any) -> list[dict[str, Any]]:
    """The conversation before a reply. Sets of pairs write it as a text, as messages, or only before the reply."""
    if isinstance(prompt, str) and prompt.strip():
        return [{"role": "user", "content": prompt}]
    if isinstance(prompt, list) and prompt:
        return prompt
    if isinstance(reply, list) and len(reply) > 1:
        return reply[:-1]
    raise InvalidInput("its prompt is neither a text nor a list of messages.")


def _last(reply: Any) -> str:
    """The text of a reply, or of the last message of a conversation."""
    text = reply[-1]["content"] if isinstance(reply, list) and reply else reply
    if not isinstance(text, str):
        raise InvalidInput("a reply is neither a text nor a list of messages.")
    return text


def _thumb(raw: Any) -> int:
    """1 or -1; CSV has them as text, "true" and "false" too."""
    up, down = ("1", "+1", "true", "up"), ("-1", "0", "false", "down")
    said = {**dict.fromkeys(up, 1), **dict.fromkeys(down, -1)}.get(str(raw).strip().lower())
    if said is None:
        raise InvalidInput(f"thumb is {str(raw)[:40]!r}; it can be 1 or -1.")
    return said


def _open_webui(entry: _Json) -> dict[str, Any]:
    """A rating with the chat as it was. In an arena the reply that was preferred stands above its siblings."""
    about, meta, kept = (entry.get(name) or {} for name in ("data", "meta", "snapshot"))
    if about.get("rating") in (None, "", 0):
        raise _SaysNothing("its rating was taken back.")
    rating = 1 if float(about["rating"]) > 0 else -1
    chat = kept.get("chat") or {}
    chat = chat.get("chat") or chat
    messages: _Json = (chat.get("history") or {}).get("messages") or {}
    rated = messages.get(str(meta.get("message_id")))
    if not rated or not str(rated.get("content") or "").strip():
        raise _SaysNothing("the chat it stands in was not kept.")
    before = _before(messages, rated)
    if not before:
        raise _SaysNothing("nothing was asked before the reply.")
    system = (chat.get("params") or {}).get("system") or chat.get("system")
    asked = ([{"role": "system", "content": system}] if system else []) + before
    others = _siblings(messages, rated) if about.get("sibling_model_ids") and rating > 0 else []
    if others:
        places = [[0], list(range(1, len(others) + 1))]
        return {"messages": asked, "replies": [rated["content"], *others], "ranking": places}
    return {"messages": asked, "replies": [rated["content"]], "thumb": rating}


def _before(messages: _Json, rated: _Json) -> list[dict[str, Any]]:
    """What was said up to the question that a reply answers, oldest first."""
    said: list[dict[str, Any]] = []
    seen, place = set(), rated.get("parentId")
    while place is not None and place in messages and place not in seen:
        seen.add(place)
        message = messages[place]
        said.insert(0, {"role": message["role"], "content": message["content"]})
        place = message.get("parentId")
    return said


def _siblings(messages: _Json, rated: _Json) -> list[str]:
    """Other replies to the same question."""
    parent = messages.get(str(rated.get("parentId"))) or {}
    others = (messages.get(place) or {} for place in parent.get("childrenIds") or [])
    texts = [str(each.get("content") or "") for each in others if each.get("role") == "assistant"]
    return [text for text in dict.fromkeys(texts) if text.strip() and text != rated["content"]]
