"""How long eight people's tiny updates take without a cluster, and on 1, 2 and 4 nodes of one on this machine.

.cache/ecosystem/ray/bin/python -m tests.ecosystem.ray_scaling
"""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from pathlib import Path

from adapters.base_model import DEFAULT_BASE, prepare_base
from assistant.config import default_models_dir
from assistant.updates import Updates
from tests.assistant.serving import PASSWORD, open_mynah, own_models, settings, teach, wait_for
from tests.ecosystem.ray_cluster import RayCluster

PEOPLE = 8


def main() -> None:
    """Print a line a cluster."""
    base = prepare_base(DEFAULT_BASE, default_models_dir(), "nf4")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cluster = RayCluster(base, folder / "cluster")
        config = settings(own_models(base, folder / "models"), folder / "data")
        there = settings(config.models_dir, config.data_dir, executor="ray", ray_address=cluster.address)
        with closing(cluster), closing(open_mynah(config, run_updates=False)) as mynah:
            people = [mynah.accounts.add(f"person {number}", PASSWORD) for number in range(PEOPLE)]
            for user in people:
                teach(mynah, user, 10)
            for nodes in (0, 0, 1, 1, 2, 4):  # the first of each kind also makes its pool: told, but not counted
                while len(cluster.nodes) < nodes:
                    cluster.add()
                numbers, place = mynah.updates.numbers, there if nodes else config
                services = (mynah.store, mynah.learning, mynah.engine, mynah.versions, mynah.files)
                with closing(Updates(*services, place, numbers)) as updates:
                    updates.start()
                    begun = time.monotonic()
                    asked = [updates.request(user) for user in people]

                    def states(asked: list = asked, updates: Updates = updates) -> list[str]:  # type: ignore[type-arg]
                        return [updates.get(user, each.id).state for user, each in zip(people, asked, strict=True)]

                    wait_for(lambda states=states: all(s in ("promoted", "failed") for s in states()), 1200)  # type: ignore[misc]
                    took = time.monotonic() - begun
                    print(f"{nodes or 'no'} nodes: {took:.0f} s, {states().count('promoted')} of {PEOPLE} promoted")


if __name__ == "__main__":
    main()
