"""An adapter made elsewhere becomes a person's version: checked, judged as far as that needs no clicks, not used.

    version = bring(store, versions, files, numbers, user, Path("adapter.zip"), print)

It is an immutable version like those that training makes, but it never takes a place by itself: what passes the gate's
checks of form, knowledge and harm waits until its owner activates it, what fails one is rejected and never served. The
checks left out are those of taste and the distance from the base, which ask what a person clicked. It has no
trial either; the next version that is trained is tried against it, if it is in use then.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapters.base_model import BaseFiles, origin
from adapters.foreign import Foreign, read_foreign
from adapters.gate import run_gate
from adapters.gate_set import GateFiles
from adapters.job import UpdateConfig
from adapters.latents import latents_for
from adapters.policy import Policy
from adapters.reward import RewardModel
from adapters.safety import SafetyTerm
from adapters.versions import VersionFiles
from feedback.population import load_population
from feedback.reward_head import prior_head
from feedback.store import Store
from feedback.types import AdapterVersion, User, now

SEED = 1


def bring(
    store: Store,
    versions: VersionFiles,
    files: BaseFiles,
    numbers: UpdateConfig,
    user: User,
    source: Path,
    say: Callable[[str], None],
) -> AdapterVersion:
    """Enter the adapter in a folder or zip as a version of a person, which is not served.

    numbers: how the gate measures. Raises AdapterRefused when it cannot be held here; nothing is kept then.
    """
    policy = Policy.load(files)
    foreign = read_foreign(source, policy, origin(files))
    say("It fits. Checking what it writes and knows; the first time on this base that takes some minutes.")
    gate = judge(policy, files, foreign, numbers)
    number = store.versions.next_number(user.id)
    told = {"rank": foreign.rank, "alpha": foreign.alpha}
    about = {"imported": told, "base_id": files.base_id, "base_name": files.name, "labels": 0}
    manifest = versions.write(user.id, number, foreign.state, policy.lora_config(), about)
    version = AdapterVersion(
        user_id=user.id,
        number=number,
        base_id=files.base_id,
        # Of the states that can be activated, the one that nothing goes back to by itself.
        status="rolled back" if all(check["passed"] for check in gate) else "rejected",
        parent=None,
        update_id=None,
        first_label=0,
        last_label=0,
        seed=SEED,
        config={"imported": told},
        metrics={},
        gate=gate,
        manifest_sha256=manifest,
        created_at=now(),
    )
    try:
        store.versions.add(version, activate=False, update_state="rejected")
    except BaseException:
        versions.remove(user.id, number)
        raise
    return version


def judge(policy: Policy, files: BaseFiles, foreign: Foreign, numbers: UpdateConfig) -> list[dict[str, Any]]:
    """The gate's checks that need no clicks."""
    latents = latents_for(files, policy)
    population = load_population(len(latents.directions))
    nobody, safety = prior_head(population.prior), SafetyTerm.load("judge")
    model = RewardModel(nobody, population, latents, policy.renderer, safety, numbers.reward)
    base = GateFiles(files, policy.split, numbers.gate.measured)
    base.build(policy)
    policy.new_adapter("brought")
    policy.set_adapter_state("brought", foreign.state)
    checks = run_gate(policy, "brought", base.load(), model, None, numbers.gate, seed=SEED)
    return [check.as_dict() for check in checks]
