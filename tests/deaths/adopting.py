"""Does what a server does with a finished update at its start, again and again, each time in a copy of this process.

    python -m tests.deaths.adopting     # then, on standard input: a data folder, and a line to be killed at or 0

The copies are made by fork, since a start of Python with all that is imported takes seconds; each is a process of its
own and dies of a SIGKILL of its own. Answers on standard output with the exit status and how many lines there were.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any, cast

from adapters.versions import VersionFiles
from assistant.adoption import sweep
from assistant.config import Config
from assistant.trainer import Trainer
from feedback.store import Store
from tests.deaths.moments import Lines, reached
from tests.deaths.sitecustomize import watch

TAKING_IN = Lines(
    (
        "assistant/adoption.py",
        "assistant/trainer.py",
        "adapters/files.py",
        "adapters/versions.py",
        "feedback/store/database.py",
        "feedback/store/trials.py",
        "feedback/store/versions.py",
        "shutil.py",
    )
)


def take_in(data_dir: Path) -> None:
    """Open the folder, remove what was left, and go on with the update that is under way."""
    config = Config(data_dir=data_dir)
    store = Store(config.database)
    sweep(store, config.adapters, config.jobs)
    nobody = cast(Any, None)  # the model and the heads, which a finished job has no need of
    versions = VersionFiles(config.adapters)
    trainer = Trainer(store, nobody, nobody, versions, nobody, config, threading.Event())
    for update in store.versions.live_updates():
        trainer.work(update, lambda progress: None)
    store.close()


def main() -> None:
    """Answer until there is nothing more to do."""
    for order in sys.stdin:
        folder, line = order.rsplit(maxsplit=1)
        count = Path(folder).with_name("count")
        os.environ |= TAKING_IN.environment(count, int(line))
        child = os.fork()
        if not child:
            watch()
            take_in(Path(folder))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), reached(count), flush=True)


if __name__ == "__main__":
    main()
