"""What the benchmarks measure is what a chat shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adapters.base_model import BaseFiles
from adapters.decoding import Sampling
from adapters.versions import VersionFiles
from assistant import writing as writing_module
from assistant.engine import Ask, Engine
from assistant.turn import Judge
from benchmarks import measure
from benchmarks.measure import rerank
from feedback.reward_head import prior_head


def test_re_ranking_is_the_chats_own(base_files: BaseFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same drafts, and the same choice twice: half way, and before the chosen one is written to its end."""
    for name, length in (("RESAMPLE_AT", 6), ("NARROW_AT", 12)):
        for module in (measure, writing_module):
            monkeypatch.setattr(module, name, length)
    engine = Engine(base_files, VersionFiles(tmp_path))
    head = prior_head(engine.population.prior)
    head.mean[:] = np.random.default_rng(0).normal(size=len(head.mean))
    judge = Judge(head, engine.population, engine.safety, engine.latents.subject_floor, engine.renderer.pieces)
    text, sampling = "Tell me about the sea.", Sampling(0.8, 1.0, 20, 3)
    found = rerank(engine.policy, engine.latents, [("p1", text)], judge, 8, sampling)
    engine.start()
    try:
        ask = Ask(
            [{"role": "user", "content": text}],
            None,
            8,
            Sampling(0.8, 1.0, 20, 3 * 100_003),
            stream=False,
            narrow=lambda drafts: judge.going_on(drafts, text, 1, ask=False),
            resample=lambda drafts, unfinished: judge.resampled(drafts, unfinished, text),
        )
        (draft,) = engine.write(ask).result(timeout=120).drafts
    finally:
        engine.close()
    (mine,) = found.drafts
    assert (mine.texts, mine.ended) == ([draft.text], [draft.ended]) and 6 < found.tokens <= 12
    assert np.allclose(mine.latent[0], draft.latent) and abs(mine.subject[0] - draft.subject) < 1e-6
