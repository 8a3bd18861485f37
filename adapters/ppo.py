"""Proximal policy optimisation of one person's adapter (Schulman 2017; for language models Ziegler 2019).

`ppo_update` reads from top to bottom: roll out, score, reference, rewards, advantages, epochs, metrics. What a reply is
worth comes from outside, as a function of the replies (`Scorer`); the base policy is the same model with its adapter
off; and the layers below the first adapted one run only while replies are written, since their activations are kept.

After every batch the state is published as a checkpoint folder and `on_batch` is called, which may raise to stop: the
same call goes on from there. The same seed gives the same run on the same machine.

Left out on purpose: clipping of values (no gain, Andrychowicz 2021), dropout, top_p below 1 in rollouts (the ratio
would be of another distribution), and log-probabilities from decoding (in bf16 they differ from a training forward by
up to a quarter in ratio before any step).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapters.advantages import gae, kl_estimates, kl_shaped_rewards, leave_one_out, masked_mean, masked_whiten
from adapters.checkpoint import Checkpoint, adam_state, restore_adam
from adapters.decoding import Sampling
from adapters.files import sha256_json
from adapters.packing import Group, Part, lay_out, response_mask
from adapters.policy import Policy
from adapters.pool import MAX_POSITIONS
from adapters.rollout import roll_out
from adapters.value_head import ValueHead
from feedback.errors import InvalidInput

Scorer = Callable[[Sequence[Group]], list[NDArray[np.float64]]]  # one (R,) array a group: what each reply is worth

EQUAL_SCORES = 1e-6  # a group whose scores spread less than this says nothing about what is better
KL_STEP = 0.5  # the KL coefficient moves by at most this share of itself a batch


@dataclass(frozen=True)
class PPOConfig:
    """One on-policy run.

    batches: rollouts, each of `prompts` prompts with `replies` replies of at most `max_tokens` tokens. epochs: passes
    over a rollout, in `minibatches` steps each. learning_rate: falls linearly to a tenth. kl_coef: first price of a nat
    of KL to the base; adapted so that KL comes to `target_kl` nats a token, over about `kl_horizon` replies.
    max_approx_kl: the epochs end when a step finds the policy further than this from the one that wrote (nats a token).
    gamma, gae_lambda, vf_coef, value_rate: discount, and for "gae" its lambda, loss weight and learning rate.
    """

    batches: int = 2
    prompts: int = 8
    replies: int = 4
    max_tokens: int = 64
    temperature: float = 0.8
    epochs: int = 2
    minibatches: int = 2
    learning_rate: float = 1e-3
    clip_range: float = 0.2
    kl_coef: float = 0.1
    target_kl: float = 0.1
    kl_horizon: int = 32
    advantage: Literal["leave_one_out", "gae"] = "leave_one_out"
    gamma: float = 1.0
    gae_lambda: float = 0.95
    vf_coef: float = 0.1
    value_rate: float = 1e-3
    max_approx_kl: float = 0.03
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("prompts", "max_tokens", "epochs", "minibatches", "kl_horizon"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"ppo.{name} is {getattr(self, name)}; it must be at least 1.", param=name)
        if self.batches < 0:
            raise InvalidInput(f"ppo.batches is {self.batches}; it must be 0 or more.", param="batches")
        if self.temperature <= 0:
            raise InvalidInput(f"ppo.temperature is {self.temperature}; it must be above 0.", param="temperature")
        if self.advantage == "leave_one_out" and self.replies < 2:
            raise InvalidInput(f"ppo.replies is {self.replies}; leave_one_out compares at least 2.", param="replies")


@dataclass(frozen=True)
class PPOStats:
    """One batch in numbers. KL figures are k1 unless named k3; approx_kl is between the policy that wrote and the one
    that learns, the others between policy and base."""

    episode: int
    kl: float  # nats a reply
    kl_per_token: float
    kl3_per_token: float
    kl_coef: float
    entropy: float  # nats a reply, of the sampled tokens
    scores: float
    scores_sd: float
    non_score_reward: float
    approx_kl: float
    clip_fraction: float
    policy_loss: float
    value_loss: float
    ratio: float
    ratio_var: float
    grad_norm: float
    ended: int
    response_length: float
    learned_groups: int
    steps: int
    learning_rate: float
    seconds: float

    def as_metrics(self) -> dict[str, float]:
        """The figures under the names that the field's tools use."""
        return {
            "objective/kl": self.kl,
            "objective/kl_per_token": self.kl_per_token,
            "objective/kl3_per_token": self.kl3_per_token,
            "objective/entropy": self.entropy,
            "objective/scores": self.scores,
            "objective/scores_sd": self.scores_sd,
            "objective/non_score_reward": self.non_score_reward,
            "objective/rlhf_reward": self.scores + self.non_score_reward,
            "policy/approxkl_avg": self.approx_kl,
            "policy/clipfrac_avg": self.clip_fraction,
            "loss/policy_avg": self.policy_loss,
            "loss/value_avg": self.value_loss,
            "val/ratio": self.ratio,
            "val/ratio_var": self.ratio_var,
            "val/num_eos_tokens": float(self.ended),
            "val/response_length": self.response_length,
            "val/learned_groups": float(self.learned_groups),
            "val/steps": float(self.steps),
            "policy/grad_norm": self.grad_norm,
            "kl_coef": self.kl_coef,
            "lr": self.learning_rate,
            "episode": float(self.episode),
            "seconds": self.seconds,
        }


def ppo_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip_range: float
) -> tuple[Tensor, dict[str, float]]:
    """The clipped surrogate (Schulman 2017, eq. 7), negated, as a mean over the tokens that count.

    All (R, T); gradients flow through `logprobs`. The figures: approx_kl (half the mean squared log-ratio),
    clip_fraction, ratio, ratio_var.
    """
    log_ratio = (logprobs - old_logprobs) * mask
    ratio = log_ratio.exp()
    bounded = ratio.clamp(1 - clip_range, 1 + clip_range)
    loss = masked_mean(torch.maximum(-advantages * ratio, -advantages * bounded), mask)
    with torch.no_grad():
        mean = masked_mean(ratio, mask)
        figures = {
            "approx_kl": float(0.5 * masked_mean(log_ratio**2, mask)),
            "clip_fraction": float(masked_mean(((ratio - 1).abs() > clip_range).float(), mask)),
            "ratio": float(mean),
            "ratio_var": float(masked_mean((ratio - mean) ** 2, mask)),
        }
    return loss, figures


def adapted_kl_coef(kl_coef: float, kl: float, config: PPOConfig) -> float:
    """The coefficient after a batch that came out at `kl` nats a token (Ziegler 2019, section 2.2).

    Their horizon of 10,000 replies never moves in a run of a few hundred; ours is short and the step is bounded.
    """
    error = float(np.clip(kl / config.target_kl - 1, -KL_STEP, KL_STEP))
    step = error * config.prompts * config.replies / config.kl_horizon
    return kl_coef * (1 + float(np.clip(step, -KL_STEP, KL_STEP)))


def ppo_update(
    policy: Policy,
    adapter: str,
    prompts: Sequence[Sequence[int]],
    score: Scorer,
    config: PPOConfig,
    *,
    seed: int,
    value_head: ValueHead | None = None,
    checkpoint: Path | None = None,
    on_batch: Callable[[int, PPOStats], None] = lambda done, stats: None,
) -> list[PPOStats]:
    """Train a loaded adapter on-policy; returns the figures of every batch, those before a resume included.

    prompts: token ids; used in a shuffled order, again from the start when they run out. value_head: needed for "gae",
    fitted beforehand; it goes on learning here. on_batch: gets the number of finished batches, after a resume first
    that of the newest, which an earlier call may not have told of; what it raises ends the run and passes through, with
    the checkpoint in place.
    """
    if config.advantage == "gae" and value_head is None:
        raise InvalidInput("ppo.advantage is 'gae', which needs a value head.", param="advantage")
    # The adapter learns and, for GAE, so does the value head.
    critic = value_head if config.advantage == "gae" else None
    parameters = policy.trainable(adapter)
    learning: list[dict[str, Any]] = [{"params": parameters, "lr": config.learning_rate}]
    if critic is not None:
        learning.append({"params": list(critic.parameters()), "lr": config.value_rate})
    optimizer = torch.optim.Adam(learning, betas=(0.9, 0.99), eps=1e-8)
    order = _prompt_order(len(prompts), config.batches * config.prompts, seed)
    kl_coef, history = config.kl_coef, list[PPOStats]()

    # Go on where an earlier call of the same run was stopped.
    kept = None if checkpoint is None else Checkpoint(checkpoint, _key(policy, adapter, prompts, config, seed))
    if kept is not None and (saved := kept.latest()) is not None:
        policy.set_adapter_state(adapter, _named(saved.state, "adapter."))
        restore_adam(optimizer, saved.state)
        if critic is not None:
            critic.load_state_dict(_named(saved.state, "value."))
        kl_coef, history = saved.numbers["kl_coef"], [PPOStats(**stats) for stats in saved.numbers["history"]]

    try:
        if history:
            on_batch(len(history), history[-1])
        for batch in range(len(history), config.batches):
            started = time.perf_counter()
            random = np.random.default_rng([seed, batch])
            rate = config.learning_rate * (1 - 0.9 * batch / config.batches)
            optimizer.param_groups[0]["lr"] = rate

            # 1. Roll out: the policy writes; trunk activations are kept.
            chosen = [prompts[i] for i in order[batch * config.prompts : (batch + 1) * config.prompts]]
            sampling = Sampling(config.temperature, 1.0, config.max_tokens, int(random.integers(2**31)))
            groups = roll_out(policy, chosen, config.replies, sampling, adapter=adapter)

            # 2. Score: one number a reply. Where all replies to a prompt are worth the same there is nothing to learn.
            scores = [torch.as_tensor(s, dtype=torch.float32) for s in score(groups)]
            assert [len(s) for s in scores] == [len(g.replies) for g in groups], "one score a reply"
            assert all(torch.isfinite(s).all() for s in scores), "scores must be finite"
            equal = [i for i, s in enumerate(scores) if float(s.max() - s.min()) <= EQUAL_SCORES]

            # 3. Reference: what the base and the policy give each token, from forwards of the very shape that trains,
            # because in bf16 another shape rounds differently.
            useful = random.permutation([i for i in range(len(groups)) if i not in equal])
            split = [part.tolist() for part in np.array_split(useful, config.minibatches) if len(part)]
            *minibatches, rest = (
                lay_out(groups, part, MAX_POSITIONS, policy.device, policy.dtype) for part in [*split, equal]
            )
            everything = [*chain(*minibatches), *rest]
            reference = _logprobs(policy, None, everything, config.temperature)
            old = _logprobs(policy, adapter, everything, config.temperature)
            mask, owner = response_mask(groups), torch.arange(len(groups)).repeat_interleave(config.replies)

            # 4. Rewards: the KL to the base at every token, the score at the last.
            rewards = kl_shaped_rewards(torch.cat(scores), old, reference, mask, kl_coef)

            # 5. Advantages, whitened over the tokens that are learned from.
            learned = mask & ~torch.isin(owner, torch.tensor(equal, dtype=torch.long))[:, None]
            targets = torch.zeros_like(rewards)
            if critic is None:
                advantages = leave_one_out(rewards, mask, owner)
            else:
                with torch.no_grad():
                    values = critic.values(groups)
                advantages, targets = gae(rewards, values, mask, config.gamma, config.gae_lambda)
            advantages = masked_whiten(advantages, learned)

            # 6. Epochs: clipped steps, until the policy is too far from the one that wrote.
            policy.trainable(adapter)  # the passes above switched it off and on again
            figures: list[dict[str, float]] = []
            order_of_steps = [i for _ in range(config.epochs) for i in random.permutation(len(minibatches))]
            for minibatch in (minibatches[i] for i in order_of_steps):
                tokens = sum(int(part.packed.response_mask.sum()) for part in minibatch)
                step = dict.fromkeys(("loss", "value_loss", "approx_kl", "clip_fraction", "ratio", "ratio_var"), 0.0)
                for part in minibatch:
                    rows, width = part.rows, part.packed.targets.shape[1]
                    was, advantage, counts = (t[rows, :width].to(policy.device) for t in (old, advantages, mask))
                    share = int(counts.sum()) / tokens  # micro-batches add up to the mean over the minibatch's tokens
                    logprobs = policy.logprobs(part.packed, config.temperature)
                    loss, new = ppo_loss(logprobs, was, advantage, counts, config.clip_range)
                    (loss * share).backward()
                    new["loss"] = loss.item()
                    if critic is not None:
                        error = (critic.values(part.groups) - targets[rows, :width]) ** 2
                        value_loss = 0.5 * masked_mean(error, mask[rows, :width])
                        (config.vf_coef * value_loss * share).backward()
                        new["value_loss"] = value_loss.item()
                    for name, value in new.items():
                        step[name] += value * share
                if step["approx_kl"] > config.max_approx_kl:
                    optimizer.zero_grad(set_to_none=True)
                    break
                step["grad_norm"] = float(torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm))
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                figures.append(step)

            # 7. Metrics, the next KL coefficient, and a checkpoint before anybody may stop the run.
            kl, kl3 = kl_estimates(old, reference, mask)
            nats, earned = float(((old - reference) * mask).sum(1).mean()), torch.cat(scores)
            stats = PPOStats(
                episode=(batch + 1) * config.prompts * config.replies,
                kl=nats,
                kl_per_token=kl,
                kl3_per_token=kl3,
                kl_coef=kl_coef,
                entropy=float((-old * mask).sum(1).mean()),
                scores=float(earned.mean()),
                scores_sd=float(earned.std()) if len(earned) > 1 else 0.0,
                non_score_reward=-kl_coef * nats,
                approx_kl=_average(figures, "approx_kl"),
                clip_fraction=_average(figures, "clip_fraction"),
                policy_loss=_average(figures, "loss"),
                value_loss=_average(figures, "value_loss"),
                ratio=_average(figures, "ratio", 1.0),
                ratio_var=_average(figures, "ratio_var"),
                grad_norm=_average(figures, "grad_norm"),
                ended=sum(sum(group.ended) for group in groups),
                response_length=float(mask.sum(1).float().mean()),
                learned_groups=len(groups) - len(equal),
                steps=len(figures),
                learning_rate=rate,
                seconds=time.perf_counter() - started,
            )
            history.append(stats)
            kl_coef = adapted_kl_coef(kl_coef, kl, config)
            if kept is not None:
                state = {f"adapter.{name}": tensor for name, tensor in policy.adapter_state(adapter).items()}
                state |= adam_state(optimizer)
                if critic is not None:
                    state |= {f"value.{name}": tensor for name, tensor in critic.state_dict().items()}
                kept.save(batch + 1, state, {"kl_coef": kl_coef, "history": [asdict(past) for past in history]})
            on_batch(batch + 1, stats)
    finally:
        policy.freeze(adapter)
    return history


def _prompt_order(count: int, needed: int, seed: int) -> list[int]:
    """Indices of prompts in the order of use: every one once before any comes again."""
    assert count, "no prompts"
    random = np.random.default_rng(seed)
    rounds = [random.permutation(count) for _ in range(-(-needed // count))]
    return np.concatenate([np.zeros(0, np.int64), *rounds])[:needed].tolist()


@torch.no_grad()
def _logprobs(policy: Policy, adapter: str | None, parts: Sequence[Part], temperature: float) -> Tensor:
    """Log-probabilities of a batch's replies under an adapter or the base, (R, T) on the CPU, 0 beyond an end."""
    policy.use(adapter)
    width = max(part.packed.targets.shape[1] for part in parts)
    out = torch.zeros(sum(len(part.rows) for part in parts), width)
    for part in parts:
        found = policy.logprobs(part.packed, temperature)
        out[part.rows, : found.shape[1]] = found.float().cpu()
    return out


def _average(steps: Sequence[dict[str, float]], name: str, otherwise: float = 0.0) -> float:
    return float(np.mean([step[name] for step in steps])) if steps else otherwise


def _named(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _key(policy: Policy, adapter: str, prompts: Sequence[Sequence[int]], config: PPOConfig, seed: int) -> str:
    """What must be the same for a checkpoint to be continued."""
    return sha256_json(
        [policy.base_id, adapter, asdict(policy.config), [list(p) for p in prompts], asdict(config), seed]
    )
