"""A value head for GAE: how much reward is still to come, read off the trunk.

It sees only trunk activations, so it needs no forward of its own, cannot move with the adapter, and is fitted on the
pool (whose scores and activations are at hand) before the first rollout. Leave-one-out baselines need none of this and
are the default; both are measured in LOG.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from adapters.packing import Group


class ValueHead(nn.Module):
    """Linear map on standardized trunk activations, (…, H) → (…)."""

    mean: Tensor
    sd: Tensor

    def __init__(self, mean: Tensor, sd: Tensor) -> None:
        """mean, sd: (H,) of reply activations, see `Latents`."""
        super().__init__()
        self.register_buffer("mean", mean.float())
        self.register_buffer("sd", sd.float())
        self.linear = nn.Linear(len(mean), 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Value of being at each position."""
        out: Tensor = self.linear((hidden.float() - self.mean) / self.sd)
        return out[..., 0]

    def values(self, groups: Sequence[Group]) -> Tensor:
        """Values before each reply token, (R, T), 0 beyond a reply's end."""
        states = [rows for group in groups for rows in _states(group)]
        return pad_sequence([self(rows) for rows in states], batch_first=True)

    @torch.no_grad()
    def fit(self, groups: Sequence[Group], scores: Sequence[Tensor], ridge: float = 30.0) -> None:
        """Least squares of a reply's score on its positions, with a ridge and an intercept that is free of it.

        scores: (R,) a group. Every reply weighs the same, whatever its length. The closed form has no rate to choose.
        """
        states = [(rows - self.mean) / self.sd for group in groups for rows in _states(group)]
        targets = torch.cat([score.double() for score in scores])
        means = torch.stack([rows.double().mean(0) for rows in states])
        middle, level = means.mean(0), targets.mean()
        gram = ridge * torch.eye(len(middle), dtype=torch.float64)
        for rows in states:
            centred = rows.double() - middle
            gram += centred.T @ centred / len(centred)
        weight = torch.linalg.solve(gram, (means - middle).T @ (targets - level))
        self.linear.weight[0] = weight.float()
        self.linear.bias.fill_(float(level - weight @ middle))


def _states(group: Group) -> list[Tensor]:
    """What is known before each token of each reply: (len(reply), H) fp32, the prompt's last position first."""
    first = group.prompt_trunk[-1:]
    return [torch.cat([first.to(trunk), trunk]).float().cpu() for trunk in group.trunks]
