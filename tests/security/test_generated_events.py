"""Generated calls of every Gradio event: whatever is sent, no answer is a defect, and nobody else's things change.

Calls that work, with something in them changed; hostile texts in every place; too few and too many inputs; numbers of
events that there are and that there are not; any JSON; any bytes.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.assistant.serving import wait_for
from tests.security.test_events import ADMIN, PEOPLE, REFUSED, Try, events_of
from tests.security.test_generated import ANYTHING, ATOMS, NUMBERS, TEXTS, Cast, changed
from tests.security.world import SECRET, World
from tests.soak import cases, generated

WORKING = [(name, each) for table in (PEOPLE, ADMIN) for name, tries in table.items() for each in tries]
DEFECT = "Something went wrong on the server"  # the notice of an error that nobody named
WAYS = ("as it is", "hostile", "hostile", "changed", "changed", "inputs", "event", "number", "json", "bytes")


def hostile(value: Any) -> Any:
    """Values of the same kind, as a page could send them by mistake."""
    if isinstance(value, bool):
        return st.booleans()
    return st.sampled_from([1, 2, 4]) if isinstance(value, int) else st.one_of(st.just(value), TEXTS)


@st.composite
def calls(draw: st.DrawFn, numbers: dict[str, int]) -> tuple[str, bool, str, bytes]:
    """Who calls, whether with Ada's ids, the page's query, and the body, {things} still in braces."""
    name, each = draw(st.sampled_from(WORKING))
    event: Any = dict(each.event) if each.event else None
    body: Any = {
        "fn_index": numbers[name],
        "data": list(each.data),
        "event_data": event,
        "session_hash": draw(st.sampled_from(["generated", "another", "x" * 2000])),
        "trigger_id": None,
    }
    way = draw(st.sampled_from(WAYS))
    if way == "bytes":
        return draw_who(draw, each), False, "", draw(st.binary(max_size=80))
    if way == "hostile":
        body["data"] = [draw(hostile(value)) for value in each.data]
        body["event_data"] = event and {key: draw(hostile(value)) for key, value in event.items()}
    elif way == "changed":
        body = draw(changed(body))
    elif way == "inputs":
        body["data"] = draw(st.one_of(st.lists(st.one_of(ATOMS, ANYTHING), max_size=7), ANYTHING))
    elif way == "event":
        body["event_data"] = draw(ANYTHING)
    elif way == "number":
        body["fn_index"] = draw(st.one_of(st.integers(0, max(numbers.values()) + 9), NUMBERS, ANYTHING))
    elif way == "json":
        body = draw(ANYTHING)
    query = draw(st.one_of(st.just(each.query), st.sampled_from(["?c=%00", "?c={conversation}&m=%ff", "?m=x&c"])))
    return draw_who(draw, each), draw(st.booleans()), query, json.dumps(body).encode()


def draw_who(draw: st.DrawFn, each: Try) -> str:
    """Mostly whoever may."""
    able = "admin" if any(each in tries for tries in ADMIN.values()) else "other"
    return draw(st.sampled_from(["anonymous", "other", "admin", able, able, able]))


def test_no_call_of_an_event_is_answered_with_a_defect(
    world: World, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    cast, numbers, hers = Cast(world), events_of(world), world.shown
    before, counted = world.state(world.owner), dict.fromkeys(("done", "refused", "400", "401"), 0)

    @generated(10_000)
    @given(calls(numbers))
    def check(asked: tuple[str, bool, str, bytes]) -> None:
        who, of_ada, query, body = asked
        victim = cast.person("other").user
        assert cast.things is not None and victim is not None
        things = vars(hers if of_ada and who != "admin" else cast.things)
        for name, value in {**things, "victim": victim.name, "owner": victim.id}.items():
            query = query.replace(f"{{{name}}}", value)
            body = body.replace(f"{{{name}}}".encode(), value.encode())
        browser = cast.person(who).browser
        answer = browser.post(
            f"/gradio_api/run/predict{query}", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (200, 400, 401), answer.text[:500]
        assert "Traceback" not in answer.text and DEFECT not in answer.text, answer.text[:2000]
        assert SECRET[1] not in answer.text, "a word of Ada's"
        told = ("refused" if REFUSED in answer.text else "done") if answer.status_code == 200 else ""
        counted[told or str(answer.status_code)] += 1

    try:
        with caplog.at_level(logging.ERROR):
            check()
            wait_for(lambda: not world.mynah.engine.busy)
    finally:
        for name in world.mynah.store.server.settings():  # an admin may set what others rely on
            world.mynah.store.server.set(name, None)
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    assert "Traceback" not in "".join(capfd.readouterr())
    assert world.state(world.owner) == before
    assert all(count > cases(10_000) / 30 for count in counted.values()), f"some of each: {counted}"
    assert sum(counted.values()) >= cases(10_000), counted
