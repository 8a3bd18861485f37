"""What the adapter-off model itself sees in a reply: latent features for the reward head, and a check of the subject.

Both come from the trunk, the layers below the first adapted one, averaged over a text's tokens; so they cost nothing
beyond the forward that writes the reply, and no adapter can move them.

    latent features   the leading principal directions of replies, scaled to unit variance
    subject           cosine between prompt and reply, each standardized; a shuffled prompt gives about 0
                      (separates a reply from one to another prompt with AUC 0.93 on the embedded base, LOG.md)

The directions are fitted once a base, on its own replies to some shipped prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from adapters.base_model import BaseFiles
from adapters.decoding import Generation, Sampling
from adapters.files import whole_folder
from adapters.policy import Policy
from adapters.prompts import shipped_prompts
from feedback.errors import CorruptFile

Array = NDArray[np.float64]
LATENTS = 16
PROMPTS, REPLIES, TOKENS = 48, 2, 48
SUBJECT_TOKENS = 128  # of a long conversation, only the newest part says what it is about


@dataclass(frozen=True)
class Latents:
    """Directions and scales fitted to one base. H is the hidden size, K the number of latent features."""

    reply_mean: Array  # (H,)
    reply_sd: Array  # (H,)
    prompt_mean: Array  # (H,)
    prompt_sd: Array  # (H,)
    directions: Array  # (K, H), rows scaled so that features have unit variance
    subject_floor: float  # the 5% quantile of the base's own replies

    def features(self, reply_means: Array) -> Array:
        """(N, H) mean trunk activations of replies → (N, K) features."""
        return ((reply_means - self.reply_mean) / self.reply_sd) @ self.directions.T

    def subject(self, prompt_mean: Array, reply_means: Array) -> Array:
        """How far each reply is about its prompt: (H,), (N, H) → (N,) cosines."""
        prompt = (prompt_mean - self.prompt_mean) / self.prompt_sd
        replies = (reply_means - self.reply_mean) / self.reply_sd
        norms = np.linalg.norm(replies, axis=1) * np.linalg.norm(prompt)
        return replies @ prompt / np.maximum(norms, 1e-9)

    def save(self, folder: Path) -> None:
        """Write as safetensors into a folder that does not exist yet."""
        arrays = {
            name: np.array(getattr(self, name), dtype=np.float64, order="C") for name in self.__dataclass_fields__
        }
        with whole_folder(folder) as draft:
            save_file(arrays, draft / "latents.safetensors")

    @classmethod
    def read(cls, folder: Path) -> Latents:
        """Load what `save` wrote. Raises CorruptFile."""
        try:
            arrays: dict[str, Array] = load_file(folder / "latents.safetensors")
            floor = float(arrays.pop("subject_floor"))
            return cls(**arrays, subject_floor=floor)
        except Exception as error:
            raise CorruptFile(
                f"{folder} is damaged ({error}); delete it, it is made again at the next start."
            ) from error


def latents_for(files: BaseFiles, policy: Policy) -> Latents:
    """The directions kept beside a base; fitted (some seconds) and kept when there are none for this trunk yet."""
    folder = files.folder / f"latents-{files.quantize}-{policy.split}"
    if not folder.exists():
        fitted = fit_latents(policy)
        try:
            fitted.save(folder)
        except OSError:
            if not folder.exists():  # else another process was faster, and its directions count
                raise
    return Latents.read(folder)


def kept_latents(folder: Path, files: BaseFiles, policy: Policy) -> Latents:
    """The directions that a data folder's labels are measured along, kept there: those of this machine at first.

    Another machine's base answers with other last bits, so its own directions may be others: a folder that moves there
    keeps what its labels speak of. Raises CorruptFile, and OSError where it cannot be written.
    """
    mine = folder / f"{files.folder.name}-{files.quantize}-{policy.split}"
    if not mine.exists():
        latents_for(files, policy).save(mine)
    return Latents.read(mine)


def fit_latents(policy: Policy, seed: int = 3) -> Latents:
    """Let the base answer some shipped prompts and find the main directions of its replies."""
    prompts = [policy.render([{"role": "user", "content": text}]) for _, text in shipped_prompts("pool")[:PROMPTS]]
    prompt_means: list[Array] = []
    reply_means: list[Array] = []
    at_once = 16
    for start in range(0, len(prompts), at_once):
        batch = Generation(
            prompts[start : start + at_once],
            REPLIES,
            Sampling(max_tokens=TOKENS, seed=seed * 1000 + start),
            policy.renderer.end_ids,
        )
        policy.use(None)
        batch.run(policy)
        prompt_means.append(batch.prompt_means(SUBJECT_TOKENS).double().cpu().numpy())
        reply_means.append(batch.trunk_means().double().cpu().numpy())
    return _fit(np.concatenate(prompt_means), np.concatenate(reply_means))


def _fit(prompts: Array, replies: Array) -> Latents:
    """prompts: (P, H); replies: (P · R, H), the replies to one prompt side by side."""
    reply_mean, reply_sd = replies.mean(0), replies.std(0) + 1e-6
    standard = (replies - reply_mean) / reply_sd
    _, singular, rows = np.linalg.svd(standard, full_matrices=False)
    # The sign of a singular vector is arbitrary; fix it, so that a refit gives the same features.
    rows *= np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(1)])[:, None]
    count = min(LATENTS, len(rows))
    directions = rows[:count] / (singular[:count, None] / np.sqrt(len(replies)))
    fitted = Latents(reply_mean, reply_sd, prompts.mean(0), prompts.std(0) + 1e-6, directions, 0.0)
    each = len(replies) // len(prompts)
    cosines = [fitted.subject(prompts[i], replies[i * each : (i + 1) * each]) for i in range(len(prompts))]
    floor = float(np.quantile(np.concatenate(cosines), 0.05))
    return Latents(reply_mean, reply_sd, fitted.prompt_mean, fitted.prompt_sd, directions, floor)


def mean_of(trunks: Sequence[torch.Tensor]) -> Array:
    """Means of trunk activations (T, H) each → (N, H) float64; an empty one counts as zero."""
    return np.stack([t.double().mean(0).cpu().numpy() if len(t) else np.zeros(t.shape[-1]) for t in trunks])
