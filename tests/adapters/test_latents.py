"""Directions of the trunk: fitted by hand-made data, kept beside the base, refused when damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adapters import latents as module
from adapters.base_model import BaseFiles
from adapters.latents import LATENTS, Latents, kept_latents, latents_for, mean_of
from adapters.policy import Policy
from feedback.errors import CorruptFile


def made(seed: int = 0) -> tuple[Latents, np.ndarray, np.ndarray]:
    """Fit to replies that share most of their prompt's direction."""
    random = np.random.default_rng(seed)
    prompts = random.standard_normal((40, 30))
    replies = prompts.repeat(2, axis=0) + 0.5 * random.standard_normal((80, 30))
    return module._fit(prompts, replies), prompts, replies


def test_features_have_unit_variance_and_do_not_correlate() -> None:
    fitted, _, replies = made()
    features = fitted.features(replies)
    assert features.shape == (80, LATENTS)
    assert np.allclose(features.T @ features / len(replies), np.eye(LATENTS), atol=1e-6)


def test_a_reply_is_closer_to_its_own_prompt_than_to_another() -> None:
    fitted, prompts, replies = made()
    own = np.array([fitted.subject(prompts[i], replies[2 * i : 2 * i + 2]) for i in range(40)])
    other = np.array([fitted.subject(prompts[(i + 7) % 40], replies[2 * i : 2 * i + 2]) for i in range(40)])
    assert own.mean() > 0.8 and abs(other.mean()) < 0.1
    assert np.mean(own < fitted.subject_floor) == pytest.approx(0.05, abs=0.02)


def test_what_is_saved_is_what_is_read(tmp_path: Path) -> None:
    fitted, _, replies = made()
    fitted.save(tmp_path / "latents")
    back = Latents.read(tmp_path / "latents")
    assert (
        np.array_equal(back.features(replies), fitted.features(replies)) and back.subject_floor == fitted.subject_floor
    )
    again, _, _ = made()
    assert np.array_equal(again.directions, fitted.directions), "a refit gives the same signs"


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    made()[0].save(tmp_path / "latents")
    (tmp_path / "latents" / "latents.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CorruptFile, match="delete it, it is made again"):
        Latents.read(tmp_path / "latents")


def test_two_processes_that_fit_at_once_agree(
    job_base: BaseFiles, policy: Policy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from dataclasses import replace

    base = replace(job_base, folder=tmp_path)
    theirs, mine = made(1)[0], made(2)[0]

    def slow(policy: Policy) -> Latents:
        theirs.save(tmp_path / f"latents-{base.quantize}-{policy.split}")  # meanwhile, the other one finished
        return mine

    monkeypatch.setattr(module, "fit_latents", slow)
    assert np.array_equal(latents_for(base, policy).directions, theirs.directions)


def test_a_data_folder_keeps_its_directions_where_it_goes(
    base_files: BaseFiles, policy: Policy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = latents_for(base_files, policy)
    assert np.array_equal(kept_latents(tmp_path, base_files, policy).directions, here.directions)
    monkeypatch.setattr(module, "latents_for", lambda files, policy: made(1)[0])  # another machine
    assert np.array_equal(kept_latents(tmp_path, base_files, policy).directions, here.directions)


def test_the_embedded_base_tells_subjects_apart(latents: Latents, policy: Policy) -> None:
    prompt = policy.render([{"role": "user", "content": "How do I boil an egg?"}])
    texts = ["Put the egg in boiling water for eight minutes.", "The parliament passed a new law on banks yesterday."]
    group = policy.read(prompt, [policy.renderer.reply_ids(text) for text in texts], [True, True])
    about, elsewhere = latents.subject(group.prompt_trunk.double().mean(0).numpy(), mean_of(group.trunks))
    assert about > elsewhere
