"""Two versions side by side: what each writes to the same prompt from the same seed, for its owner to look at.

Nothing of it is a conversation, nothing is learned from it, and it is kept only while the page shows it; except for a
version's example, its reply to one prompt beside the base's, which is written once when somebody asks and then stays,
unless it was stopped. Replies belong to the server: a page looks at them as they grow.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from threading import Lock, Thread

from assistant.engine import Engine
from assistant.learning import Learning
from assistant.limits import Limits
from assistant.messages import check_text
from assistant.requests import ChatRequest, Requests
from assistant.turn import Turn
from assistant.updates import version_number
from feedback.errors import InvalidInput, MynahError
from feedback.store import Store
from feedback.types import Example, User, now

EXAMPLE_PROMPT = "How can I sleep better?"  # the same for every version, so that a row of them can be compared
EXAMPLE_TOKENS = 120
MAX_PROMPT = 4000

log = logging.getLogger(__name__)


class Preview:
    """Two replies under way. `texts` grow; `done` comes last; `error` is what went wrong, if anything did."""

    def __init__(self, prompt: str, names: Sequence[str], turns: Sequence[Turn], example_of: int | None = None) -> None:
        self.prompt, self.names, self.example_of = prompt, list(names), example_of
        self.texts = [""] * len(turns)
        self.error: MynahError | None = None
        self.done = False
        self._turns = turns

    def begin(self, then: Callable[[Preview], None]) -> None:
        """Gather both replies, each in a thread; `then` follows when both are there and none was stopped."""
        readers = [
            Thread(target=self._read, args=[side], name="preview", daemon=True) for side in range(len(self.texts))
        ]

        def gather() -> None:
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
            try:
                if self.error is None and not self.stopped:
                    then(self)
            except MynahError as error:
                self.error = error
            finally:
                self.done = True

        Thread(target=gather, name="preview", daemon=True).start()

    @property
    def stopped(self) -> bool:
        """Whether somebody ended a reply, here or in the engine: it may not be whole."""
        return any(part.writing.stopped for turn in self._turns for part in turn.parts)

    def stop(self) -> None:
        """End within a token."""
        for turn in self._turns:
            turn.stop()

    def _read(self, side: int) -> None:
        try:
            for _, text in self._turns[side].pieces():
                self.texts[side] += text
        except MynahError as error:
            self.error = error
        except Exception:
            log.exception("A preview ended with an unexpected error.")
            self.error = MynahError("The replies could not be written; the server's log says why. Try again.")


class Previews:
    """Everybody's previews: the newest one a person."""

    def __init__(self, store: Store, engine: Engine, learning: Learning, limits: Limits, *, max_tokens: int) -> None:
        self._store, self._max_tokens = store, max_tokens
        self._requests = Requests(store, engine, learning, limits, max_tokens=max_tokens)
        self._previews: dict[str, Preview] = {}
        self._lock = Lock()

    def begin(self, user: User, prompt: object, left: str, right: str) -> Preview:
        """Let two of `base`, `v1`, `v2`, … answer. Raises InvalidInput, NotFound, Conflict (never served) and Busy."""
        text = check_text(prompt, "The prompt", "prompt", limit=MAX_PROMPT)
        if left == right:
            raise InvalidInput("Choose two different versions to compare.", param="right")
        return self._start(user, text, [left, right], secrets.randbelow(2**31), self._max_tokens)

    def example(self, user: User, name: str) -> Preview | None:
        """Write a version's example beside the base's; None when it is kept already. Raises as `begin` does."""
        number = version_number(name)
        if number is None:
            raise InvalidInput("A version's example is compared with the base; name a version.", param="version")
        version = self._store.versions.version(user.id, number)
        if any(example.prompt == EXAMPLE_PROMPT for example in self._store.versions.examples(user.id).get(number, [])):
            return None
        tokens = min(EXAMPLE_TOKENS, self._max_tokens)

        def keep(preview: Preview) -> None:
            base, mine = preview.texts
            made = Example(EXAMPLE_PROMPT, base, mine, version.seed, now())
            self._store.versions.add_example(user.id, number, made)

        return self._start(user, EXAMPLE_PROMPT, ["base", version.name], version.seed, tokens, keep, number)

    def of(self, user: User) -> Preview | None:
        """A person's newest preview."""
        return self._previews.get(user.id)

    def forget(self, user_id: str) -> None:
        """End and drop what there is of a person."""
        with self._lock:
            preview = self._previews.pop(user_id, None)
        if preview is not None:
            preview.stop()

    def _start(
        self,
        user: User,
        prompt: str,
        names: Sequence[str],
        seed: int,
        max_tokens: int,
        then: Callable[[Preview], None] = lambda preview: None,
        example_of: int | None = None,
    ) -> Preview:
        turns: list[Turn] = []
        try:
            for name in names:
                number = version_number(name)
                request = ChatRequest(
                    [{"role": "user", "content": prompt}],
                    arm="base" if number is None else "adapter",
                    version=number,
                    max_tokens=max_tokens,
                    seed=seed,
                    learn=False,
                )
                turns.append(self._requests.start(user, request, lambda replies, asked: None))
        except Exception:
            for turn in turns:
                turn.stop()
            raise
        preview = Preview(prompt, names, turns, example_of)
        self.forget(user.id)
        with self._lock:
            self._previews[user.id] = preview
        preview.begin(then)
        return preview
