"""Two versions side by side: what each writes to the same prompt from the same seed, for its owner to look at.

Nothing of it is a conversation, nothing is learned from it, and it is kept only while the page shows it; except for a
version's example, its reply to one prompt beside the base's, which is written once when somebody asks and then stays.
Replies belong to the server: a page looks at them as they grow.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from threading import Lock, Thread

from assistant.engine import Engine
from assistant.learning import Learning
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


class Trial:
    """Two replies under way. `texts` grow; `done` comes last; `error` is what went wrong, if anything did."""

    def __init__(self, prompt: str, names: Sequence[str], turns: Sequence[Turn], example_of: int | None = None) -> None:
        self.prompt, self.names, self.example_of = prompt, list(names), example_of
        self.texts = [""] * len(turns)
        self.error: MynahError | None = None
        self.done = False
        self._turns = turns

    def begin(self, then: Callable[[Trial], None]) -> None:
        """Gather both replies, each in a thread; `then` follows when both are there."""
        readers = [Thread(target=self._read, args=[side], name="trial", daemon=True) for side in range(len(self.texts))]

        def gather() -> None:
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
            try:
                if self.error is None:
                    then(self)
            except MynahError as error:
                self.error = error
            finally:
                self.done = True

        Thread(target=gather, name="trial", daemon=True).start()

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
            log.exception("A trial ended with an unexpected error.")
            self.error = MynahError("The replies could not be written; the server's log says why. Try again.")


class Trials:
    """Everybody's trials: the newest one a person."""

    def __init__(self, store: Store, engine: Engine, learning: Learning, *, max_tokens: int) -> None:
        self._store, self._max_tokens = store, max_tokens
        self._requests = Requests(store, engine, learning, max_tokens=max_tokens)
        self._trials: dict[str, Trial] = {}
        self._lock = Lock()

    def begin(self, user: User, prompt: object, left: str, right: str) -> Trial:
        """Let two of `base`, `v1`, `v2`, … answer. Raises InvalidInput, NotFound, Conflict (never served) and Busy."""
        text = check_text(prompt, "The prompt", "prompt", limit=MAX_PROMPT)
        if left == right:
            raise InvalidInput("Choose two different versions to compare.", param="right")
        return self._start(user, text, [left, right], secrets.randbelow(2**31), self._max_tokens)

    def example(self, user: User, name: str) -> Trial | None:
        """Write a version's example beside the base's; None when it is kept already. Raises as `begin` does."""
        number = version_number(name)
        if number is None:
            raise InvalidInput("A version's example is compared with the base; name a version.", param="version")
        version = self._store.versions.version(user.id, number)
        if any(example.prompt == EXAMPLE_PROMPT for example in self._store.versions.examples(user.id).get(number, [])):
            return None
        tokens = min(EXAMPLE_TOKENS, self._max_tokens)

        def keep(trial: Trial) -> None:
            base, mine = trial.texts
            made = Example(EXAMPLE_PROMPT, base, mine, version.seed, now())
            self._store.versions.add_example(user.id, number, made)

        return self._start(user, EXAMPLE_PROMPT, ["base", version.name], version.seed, tokens, keep, number)

    def of(self, user: User) -> Trial | None:
        """A person's newest trial."""
        return self._trials.get(user.id)

    def forget(self, user_id: str) -> None:
        """End and drop what there is of a person."""
        with self._lock:
            trial = self._trials.pop(user_id, None)
        if trial is not None:
            trial.stop()

    def _start(
        self,
        user: User,
        prompt: str,
        names: Sequence[str],
        seed: int,
        max_tokens: int,
        then: Callable[[Trial], None] = lambda trial: None,
        example_of: int | None = None,
    ) -> Trial:
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
        trial = Trial(prompt, names, turns, example_of)
        self.forget(user.id)
        with self._lock:
            self._trials[user.id] = trial
        trial.begin(then)
        return trial
