"""A real Ray cluster on this machine, with tokens: nodes that come, are killed, or are stopped for a while."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from adapters.base_model import BaseFiles
from assistant.ray_node import pack
from tests.assistant.serving import own_models

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = "127.0.0.2"  # Ray takes 127.0.0.1 to mean the address that others know this machine by
STORE_BYTES = 2**27
# So much memory a node says it has: what a job reserves is what is tested, not what this machine has.
NODE_BYTES = 8 * 2**30
# How soon a node that does not answer counts as dead.
HEALTH = {"health_check_period_ms": 1000, "health_check_timeout_ms": 3000, "health_check_failure_threshold": 5}


@dataclass(frozen=True)
class Node:
    """A node with a models folder and a data folder of its own, as on a machine of its own."""

    ray: Any
    data: Path

    def has(self, update_id: str) -> bool:
        """Whether a job is on it now."""
        return any(update_id.encode() in pack(job).get("job.json", b"") for job in self.jobs)

    @property
    def jobs(self) -> list[Path]:
        """The folders of jobs on it."""
        return [path for path in (self.data / "node").glob("*") if path.is_dir()]

    @property
    def processes(self) -> list[psutil.Process]:
        """The node's own process and all below it, workers last."""
        raylet = psutil.Process(self.ray.all_processes["raylet"][0].process.pid)
        return [raylet, *raylet.children(recursive=True)]

    @property
    def workers(self) -> list[psutil.Process]:
        """Processes that train."""
        found: list[psutil.Process] = []
        for process in self.processes:
            with contextlib.suppress(psutil.Error):  # it has just ended
                if "adapters.worker" in process.cmdline():
                    found.append(process)
        return found


class RayCluster:
    """A head that runs no jobs, and nodes."""

    def __init__(self, base: BaseFiles, folder: Path) -> None:
        token = secrets.token_hex(32)
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token, RAY_USAGE_STATS_ENABLED="0")
        from ray.cluster_utils import Cluster

        self._base, self._folder, self._made = base, folder, 0
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "node_ip_address": LOOPBACK,
                "object_store_memory": STORE_BYTES,
                "include_dashboard": False,
                "_system_config": HEALTH,
            },
        )
        self.address: str = self._cluster.address
        self.nodes: list[Node] = []

    def add(self, cpus: int = 1, **environment: str) -> Node:
        """One more node."""
        self._made += 1
        own = self._folder / f"node-{self._made}"
        models = own_models(self._base, own / "models")
        places = {"MYNAH_MODELS_DIR": str(models), "MYNAH_DATA_DIR": str(own / "data"), "PYTHONPATH": str(ROOT)}
        made = self._cluster.add_node(
            num_cpus=cpus,
            memory=NODE_BYTES,
            node_ip_address=LOOPBACK,
            object_store_memory=STORE_BYTES,
            env_vars={**places, **environment},
        )
        self.nodes.append(Node(made, own / "data"))
        return self.nodes[-1]

    def kill(self, node: Node) -> None:
        """As when a machine loses its power: everything on it is gone at once."""
        self.nodes.remove(node)
        for process in node.processes:
            process.kill()
        self._cluster.remove_node(node.ray, allow_graceful=False)

    def clear(self) -> None:
        """Take all nodes away but the head."""
        for node in list(self.nodes):
            self.kill(node)

    def close(self) -> None:
        """End everything."""
        self._cluster.shutdown()
