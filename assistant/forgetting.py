"""What becomes of versions when one of the acts that they learned from is taken back.

They are served no more and their weights are deleted; an update that is learning from it begins anew. An act that makes
way for another about the same replies is no such case: the person has changed their mind, which the next update hears.
When the other is taken back in the end, what it had replaced counts as well.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from assistant.engine import Engine
from assistant.schedule import MIN_LABELS
from feedback.store import Store
from feedback.types import AdapterVersion

log = logging.getLogger(__name__)
BEGINS_ANEW = "Something that it had learned from was taken back; it begins anew."


def unlearn(store: Store, user_id: str, base_id: str, seq: int) -> tuple[list[AdapterVersion], list[str]]:
    """Within the caller's transaction: the versions that learned from an act, and sentences for the person.

    seq: the act's number; it has been taken back already.
    """
    gone = store.versions.forget(user_id, seq)
    again = store.acts.label_count(user_id) >= MIN_LABELS
    restarted = store.versions.restart_updates(user_id, seq, BEGINS_ANEW, again=again)
    told = list[str]()
    if gone:
        active = store.versions.active(user_id, base_id)
        names, served = ", ".join(version.name for version in gone), active.name if active else "base"
        told.append(f"Gone with it, having learned from it: {names}. From now on it is {served} that answers.")
    if restarted:
        told.append("The update under way begins anew without it." if again else "The update under way has ended.")
    return gone, told


def delete_weights(engine: Engine, user_id: str, gone: Sequence[AdapterVersion]) -> None:
    """After the transaction: no reply goes on with these versions, and their files go. What a crash between the two
    leaves is swept away at the next start."""
    if not gone:
        return
    engine.forget(user_id)
    for version in gone:
        try:
            engine.versions.remove(user_id, version.number)
        except OSError as error:
            log.warning("the weights of %s stay until the next start: %s", version.name, error)
