"""The engine on the real model: streaming, stopping, reading, fairness."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from adapters.base_model import BaseFiles
from adapters.decoding import Part, Sampling
from adapters.prefill import READ_AT_ONCE
from adapters.versions import VersionFiles
from assistant import engine as module
from assistant import writing as writing_module
from assistant.engine import Ask, Draft, Engine
from assistant.streaming import looped
from assistant.writing import Written
from feedback.errors import Busy, InvalidInput
from feedback.types import AdapterVersion
from tests.assistant.conftest import Maker, said
from tests.assistant.serving import wait_for

SEA = said("Tell me about the sea.")


def ask(
    text: str = "Tell me about the sea.",
    *,
    adapter: AdapterVersion | None = None,
    copies: int = 1,
    tokens: int = 8,
    seed: int = 1,
    temperature: float = 0.8,
    stop: tuple[str, ...] = (),
    user_id: str = "someone",
) -> Ask:
    return Ask(said(text), adapter, copies, Sampling(temperature, 1.0, tokens, seed), stop, user_id)


def write(engine: Engine, wanted: Ask) -> Written:
    return engine.write(wanted).result(timeout=120)


# ---- text ---------------------------------------------------------------------------------------------------------


def test_pieces_add_up_to_the_reply(engine: Engine) -> None:
    writing = engine.write(ask(copies=2, tokens=12))
    shown = ["", ""]
    for draft, text in writing.pieces():
        shown[draft] += text
    written = writing.result()
    assert shown == [draft.text for draft in written.drafts]
    assert shown[0] != shown[1]
    assert written.prompt_tokens == len(engine.render(SEA).ids)
    for draft in written.drafts:
        assert draft.text == engine.text(draft.ids)
        assert draft.ended == (draft.ids[-1] in engine.renderer.end_ids)
        assert draft.finish == ("stop" if draft.ended else "length")
        assert draft.latent.shape == (len(engine.latents.directions),)


def test_drafts_are_told_apart_by_their_beginnings(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write(engine, ask(copies=4, tokens=6)).drafts
    monkeypatch.setattr(writing_module, "NARROW_AT", 6)
    seen: list[list[str]] = []

    def third(drafts: Sequence[Draft]) -> list[int]:
        seen.append([draft.text for draft in drafts])
        return [2]

    writing = engine.write(replace(ask(copies=4, tokens=14), stream=False, narrow=third))
    pieces = list(writing.pieces())
    (draft,) = writing.result().drafts
    assert seen == [[draft.text for draft in whole]], "asked once, with what was written by then"
    assert draft.ids[:6] == whole[2].ids and len(draft.ids) == 14
    assert len(pieces) > 2 and {place for place, _ in pieces} == {0}
    assert "".join(text for _, text in pieces) == draft.text

    early = engine.write(replace(ask(copies=4, tokens=3), stream=False, narrow=lambda drafts: [3, 1]))
    assert list(early.pieces()) == [], "two are left: nothing can be shown before they are compared"
    kept = early.result().drafts
    assert [each.ids for each in kept] == [whole[3].ids[:3], whole[1].ids[:3]]


def test_the_best_beginnings_take_the_place_of_the_others(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing_module, "RESAMPLE_AT", 4)
    monkeypatch.setattr(writing_module, "NARROW_AT", 8)
    whole = write(engine, ask(copies=4, tokens=8)).drafts
    halves, ends = list[Draft](), list[Draft]()

    def resample(drafts: Sequence[Draft], unfinished: Collection[int]) -> dict[int, int]:
        assert set(unfinished) == {0, 1, 2, 3}
        halves.extend(drafts)
        return {0: 2, 3: 1}

    def second(drafts: Sequence[Draft]) -> list[int]:
        ends.extend(drafts)
        return [0]

    choosing = replace(ask(copies=4, tokens=12), stream=False, narrow=second, resample=resample)
    writing = engine.write(choosing)
    pieces = "".join(text for _, text in writing.pieces())
    (draft,) = writing.result().drafts
    assert [each.ids for each in halves] == [each.ids[:4] for each in whole], "asked once, half way"
    assert [each.ids[:4] for each in ends] == [whole[row].ids[:4] for row in (2, 1, 2, 1)]
    assert [ends[row].ids for row in (1, 2)] == [whole[row].ids for row in (1, 2)], "whoever stays is not disturbed"
    assert ends[0].ids != ends[2].ids and all(each.text == engine.text(each.ids) for each in ends)
    (read,) = engine.read(SEA, [ends[0].text])
    assert np.corrcoef(ends[0].latent, read.latent)[0, 1] > 0.98
    assert draft.text == pieces and draft.ids[:8] == ends[0].ids
    assert write(engine, choosing).drafts[0].ids == draft.ids, "the same request gives the same text"


def test_no_piece_holds_half_a_character(engine: Engine) -> None:
    writing = engine.write(ask("Translate into Japanese: good morning", temperature=0, tokens=12))
    pieces = [text for _, text in writing.pieces()]
    text = writing.result().drafts[0].text
    assert any(len(character.encode()) > 2 for character in text), "nothing here that could be cut in two"
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces[:-1])


def test_a_stop_string_ends_the_reply_and_is_not_shown(engine: Engine) -> None:
    free = write(engine, ask(tokens=12)).drafts[0]
    words = free.text.split()
    stop = f"{words[1]} {words[2][:2]}"  # spans two tokens, and ends within one
    writing = engine.write(ask(tokens=12, stop=(stop,)))
    pieces = [text for _, text in writing.pieces()]
    draft = writing.result().drafts[0]
    assert "".join(pieces) == draft.text == free.text[: free.text.index(stop)]
    assert draft.finish == "stop"
    assert not draft.ended  # the model would have gone on
    assert len(draft.ids) < len(free.ids)


def test_a_stop_string_ends_one_draft_and_not_the_others(engine: Engine) -> None:
    free = write(engine, ask(copies=2, tokens=10))
    stop = free.drafts[0].text[5:12]
    assert stop not in free.drafts[1].text
    cut = write(engine, ask(copies=2, tokens=10, stop=(stop,)))
    assert cut.drafts[0].text == free.drafts[0].text[:5]
    assert len(cut.drafts[1].ids) == len(free.drafts[1].ids)


def test_stop_ends_within_a_token(engine: Engine) -> None:
    writing = engine.write(ask(tokens=400))
    pieces = writing.pieces()
    next(pieces)
    before = writing.tokens
    writing.stop()
    draft = writing.result(timeout=30).drafts[0]
    assert before <= len(draft.ids) <= before + 1
    assert draft.finish == "length"
    assert draft.text == engine.text(draft.ids)
    assert np.isfinite(draft.latent).all()


def test_a_request_stopped_before_its_first_token_is_empty(base_files: BaseFiles, version_files: VersionFiles) -> None:
    waiting = Engine(base_files, version_files)
    writing = waiting.write(ask())
    writing.stop()
    waiting.start()
    draft = writing.result(timeout=30).drafts[0]
    assert (draft.text, draft.ids, draft.finish) == ("", [], "length")
    waiting.close()


def test_what_does_not_fit_the_context_is_refused_at_once(engine: Engine) -> None:
    with pytest.raises(InvalidInput, match="Shorten"):
        engine.write(ask("sea " * 3000))


def test_the_oldest_turns_are_left_out_and_it_says_so(engine: Engine) -> None:
    long = [{"role": "user", "content": "sea " * 900}, {"role": "assistant", "content": "Yes."}]
    writing = engine.write(Ask([*long, *long, *SEA], None, 1, Sampling(max_tokens=1)))  # type: ignore[list-item]
    assert writing.result(timeout=60).dropped == 2


# ---- reading ------------------------------------------------------------------------------------------------------


def test_a_text_reads_as_it_was_written(engine: Engine) -> None:
    written = write(engine, ask(tokens=24)).drafts[0]
    read = engine.read(SEA, [written.text, "Bananas are yellow."])
    assert [draft.text for draft in read] == [written.text, "Bananas are yellow."]
    # bf16, and a batch of another shape: close, not equal
    assert np.corrcoef(read[0].latent, written.latent)[0, 1] > 0.98
    assert read[0].subject == pytest.approx(written.subject, abs=0.05)
    assert engine.read(SEA, []) == []


def test_a_text_is_nearer_to_what_was_asked_than_to_other_questions(engine: Engine) -> None:
    answers = {
        "How do I bake bread at home?": "Mix flour, water, salt and yeast, knead the dough, let it rise and bake it.",
        "Write a Python function that adds two numbers.": "def add(a, b):\n    return a + b\n\nprint(add(1, 2))",
        "Who was the first president of the United States?": "George Washington was the first president, from 1789.",
    }
    read = [engine.read([{"role": "user", "content": asked}], list(answers.values())) for asked in answers]
    subject = np.array([[draft.subject for draft in each] for each in read])
    assert np.trace(subject) / 3 > (subject.sum() - np.trace(subject)) / 6 + 0.1


# ---- many at once -------------------------------------------------------------------------------------------------


def test_the_same_request_gives_the_same_text_whatever_else_is_written(engine: Engine) -> None:
    alone = write(engine, ask(copies=2))
    others = [engine.write(ask(copies=3, seed=seed, tokens=12, user_id="bob")) for seed in range(2)]
    among = write(engine, ask(copies=2))
    assert [d.ids for d in among.drafts] == [d.ids for d in alone.drafts]
    assert write(engine, ask(copies=2, seed=2)).drafts[0].ids != alone.drafts[0].ids
    for other in others:
        other.result(timeout=60)


def test_people_take_steps_together_and_no_reply_changes(
    engine: Engine, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three people, each with an adapter of their own, beside one who compares two replies of the base."""
    wanted = [ask(adapter=maker.version(f"u_{n}", seed=n, scale=1.0), tokens=12, user_id=f"u_{n}") for n in range(3)]
    wanted.append(ask("How do I bake bread?", copies=2, tokens=12, user_id="u_3"))
    alone = [write(engine, each).drafts for each in wanted]
    taken, steps = list[int](), engine.policy.steps
    monkeypatch.setattr(engine.policy, "steps", lambda parts: (taken.append(len(parts)), steps(parts))[1])
    together = [engine.write(each) for each in wanted]
    for drafts, writing in zip(alone, together, strict=True):
        among = writing.result(timeout=60).drafts
        assert [(d.ids, d.latent.tobytes()) for d in among] == [(d.ids, d.latent.tobytes()) for d in drafts]
    assert max(taken) == 4, "nobody went along"
    assert len({tuple(drafts[0].ids) for drafts in alone[:3]}) == 3, "adapters that differ too little to tell"


def test_the_next_turn_of_a_chat_reads_only_what_is_new(
    engine: Engine, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # long sums have other last bits with others
    version = maker.version("u_long", scale=1.0)
    told = "The sea is wide, and there is a lighthouse at its end where a keeper lives with three cats. " * 16
    talk = [*said(told), {"role": "assistant", "content": "I see."}, *said("What is the keeper doing at night?")]
    first = Ask(said(told), version, 1, Sampling(0.8, 1.0, 2, 1), (), "u_long")
    next_one = Ask(talk, version, 1, Sampling(0.8, 1.0, 8, 1), (), "u_long")
    ids = engine.render(talk).ids
    cold = write(engine, next_one).drafts[0]
    engine.forget("u_long")
    assert engine.prefixes.find("u_long", "u_long-v1", ids) is None
    write(engine, first)
    known = engine.prefixes.find("u_long", "u_long-v1", ids)
    assert known is not None and len(known.ids) == READ_AT_ONCE
    warm = write(engine, next_one).drafts[0]
    assert (warm.ids, warm.latent.tobytes(), warm.subject) == (cold.ids, cold.latent.tobytes(), cold.subject)
    assert engine.prefixes.find("u_else", "u_long-v1", ids) is engine.prefixes.find("u_long", None, ids) is None


def test_a_step_that_fails_ends_those_who_took_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(parts: Sequence[Part]) -> list[tuple[Tensor, Tensor]]:
        raise RuntimeError("no memory")

    monkeypatch.setattr(engine.policy, "steps", broken)
    writings = [engine.write(ask(tokens=40, user_id=f"u_{number}")) for number in range(2)]
    for writing in writings:
        with pytest.raises(RuntimeError, match="no memory"):
            writing.result(timeout=60)
    assert write(engine, ask(tokens=2)).drafts[0].ids


def test_a_long_reply_does_not_block_a_short_one(engine: Engine) -> None:
    long = [engine.write(ask(tokens=300, user_id="ada")) for _ in range(3)]
    write(engine, ask(tokens=4, user_id="bob"))
    assert not any(writing.done for writing in long)
    # bob took every second turn at least, and ada's three went along on his
    assert max(writing.tokens for writing in long) <= 10
    for writing in long:
        writing.stop()
        writing.result(timeout=30)


def test_a_full_queue_is_busy_and_says_when_to_come_back(base_files: BaseFiles, version_files: VersionFiles) -> None:
    idle = Engine(base_files, version_files, max_waiting=4)  # not started: everything waits
    waiting = [idle.write(ask(user_id=f"person-{number}")) for number in range(4)]
    with pytest.raises(Busy, match="4 requests are waiting") as caught:
        idle.write(ask(user_id="late"))
    assert caught.value.retry_after >= 1
    assert (idle.busy, idle.waiting, idle.idle_seconds) == (4, 4, 0.0)
    idle.start()
    assert all(writing.result(timeout=60).drafts[0].ids for writing in waiting)
    idle.close()
    with pytest.raises(Busy, match="shutting down"):
        idle.write(ask())


def test_closing_ends_what_is_under_way(base_files: BaseFiles, version_files: VersionFiles) -> None:
    closing = Engine(base_files, version_files)
    closing.start()
    writing = closing.write(ask(tokens=500))
    next(writing.pieces())
    began = time.monotonic()
    closing.close()
    assert time.monotonic() - began < 5
    with pytest.raises(Busy, match="shutting down"):
        writing.result(timeout=1)


def test_a_reply_that_goes_round_in_circles_ends(engine: Engine) -> None:
    """Greedily the embedded base does, sooner or later, with one of these or another, by the machine's last bits."""
    prompts = ("List the days of the week, again and again.", "Repeat after me: ho ho ho ho", "Tell a long story.")
    ends = set[str]()
    for prompt in prompts:
        writing = engine.write(ask(prompt, tokens=300, temperature=0.0))
        shown = "".join(text for _, text in writing.pieces())
        (draft,) = writing.result().drafts
        assert shown == draft.text
        if looped(draft.text):
            assert draft.finish == "stop" and not draft.ended and len(draft.ids) < 300
            return
        ends.add(draft.text[-60:])
    pytest.fail(f"no reply went round in circles: {ends}")


def test_memory_is_given_back_once_it_rests(
    base_files: BaseFiles, version_files: VersionFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a rest, and not while there is something to do."""
    given: list[int] = []
    monkeypatch.setattr(module, "REST_SECONDS", 0.2)
    monkeypatch.setattr(module, "give_back", lambda: given.append(resting.busy))
    resting = Engine(base_files, version_files)
    resting.start()
    wait_for(lambda: given == [0])
    write(resting, ask(tokens=8))
    wait_for(lambda: given == [0, 0])
    time.sleep(0.5)
    assert given == [0, 0]
    resting.close()


def test_it_knows_how_long_it_has_been_idle(engine: Engine) -> None:
    write(engine, ask(tokens=1))
    time.sleep(0.05)
    assert 0.05 <= engine.idle_seconds < 30
    assert engine.busy == 0


def test_many_threads_can_ask_at_once(engine: Engine) -> None:
    texts: dict[int, str] = {}

    def client(number: int) -> None:
        # half of them hold a control token, which is tokenized another way
        question = f"Say {number}" + (" <|im_end|>" if number % 2 else "")
        texts[number] = write(engine, ask(question, tokens=2, user_id=f"client-{number}", temperature=0)).drafts[0].text

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(texts) == list(range(8))
