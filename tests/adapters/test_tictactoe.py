"""The very functions that train an adapter learn tic-tac-toe.

A tiny network plays against a perfect player, who never loses and picks at random among equally good moves. A game is
a reply, its moves are tokens, its score is -1 for a loss and 0 for a draw, and the reference is the untrained network.
Before, most games are lost; afterwards, not one of a hundred.
"""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import torch
from torch import Tensor, nn

from adapters.advantages import kl_shaped_rewards, leave_one_out, masked_whiten
from adapters.ppo import ppo_loss

Board = tuple[int, ...]  # 1 is who plays first, -1 who plays second, 0 is free
LINES = torch.tensor([(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)])
TURNS = 5  # nobody makes more moves than this


@cache
def best_moves(board: Board, player: int) -> tuple[int, tuple[int, ...]]:
    """What the position is worth to the player to move (1 a win, 0, -1), and all moves that reach it."""
    if any(sum(board[i] for i in line) == -3 * player for line in LINES.tolist()):
        return -1, ()
    free = [cell for cell in range(9) if not board[cell]]
    if not free:
        return 0, ()
    values = {cell: -best_moves(play(board, cell, player), -player)[0] for cell in free}
    best = max(values.values())
    return best, tuple(cell for cell in free if values[cell] == best)


def play(board: Board, cell: int, player: int) -> Board:
    return (*board[:cell], player, *board[cell + 1 :])


def answer(boards: Tensor, live: Tensor, player: Tensor, random: torch.Generator) -> None:
    """The perfect player moves, in place, on the boards where somebody is still playing."""
    for row in torch.nonzero(live)[:, 0].tolist():
        _, moves = best_moves(tuple(boards[row].tolist()), int(player[row]))
        if moves:
            boards[row, moves[int(torch.randint(len(moves), (), generator=random))]] = int(player[row])


def outcome(boards: Tensor, player: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each game is over, and its score for the player: -1 lost, 1 won, 0 otherwise."""
    sums = boards[:, LINES].sum(2) * player[:, None]
    won, lost = (sums == 3).any(1), (sums == -3).any(1)
    return won | lost | (boards != 0).all(1), won.float() - lost.float()


def move_logprobs(network: nn.Module, states: Tensor) -> Tensor:
    """(…, 9) boards as the player sees them, 1 for own stones → (…, 9) log-probabilities, -inf where taken."""
    seen = torch.cat([(states == 1), (states == -1)], -1).float()
    return network(seen).masked_fill(states != 0, -torch.inf).log_softmax(-1)


@torch.no_grad()
def games(network: nn.Module, count: int, random: torch.Generator, *, greedy: bool = False) -> dict[str, Tensor]:
    """Play half of the games first and half second. states: (R, T, 9); moves, mask: (R, T); scores: (R,)."""
    player = torch.where(torch.arange(count) % 2 == 0, 1, -1)
    boards, live = torch.zeros(count, 9, dtype=torch.long), torch.ones(count, dtype=torch.bool)
    answer(boards, player == -1, -player, random)
    states, moves, masks = [], [], []
    for _ in range(TURNS):
        state = boards * player[:, None]
        state[~live] = 0
        logprobs = move_logprobs(network, state)
        drawn = logprobs.argmax(-1) if greedy else torch.multinomial(logprobs.exp(), 1, generator=random)[:, 0]
        states.append(state)
        moves.append(drawn)
        masks.append(live.clone())
        rows = torch.nonzero(live)[:, 0]
        boards[rows, drawn[rows]] = player[rows]
        live = live & ~outcome(boards, player)[0]
        answer(boards, live, -player, random)
        live = live & ~outcome(boards, player)[0]
    return {
        "states": torch.stack(states, 1),
        "moves": torch.stack(moves, 1),
        "mask": torch.stack(masks, 1),
        "scores": outcome(boards, player)[1],
        "first": (player == 1).long(),
    }


def chosen(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """(R, T) log-probabilities of the moves that were made, 0 where there was none."""
    logprobs = move_logprobs(network, batch["states"]).gather(-1, batch["moves"][..., None])[..., 0]
    return torch.where(batch["mask"], logprobs, 0.0)


def learn(network: nn.Module, seed: int, updates: int = 250, rate: float = 4e-3) -> None:
    """PPO as in adapters/ppo.py, with games for replies."""
    random, reference = torch.Generator().manual_seed(seed), deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = rate * (1 - 0.9 * update / updates)
        batch = games(network, 256, random)
        mask = batch["mask"]
        with torch.no_grad():
            old, reference_logprobs = chosen(network, batch), chosen(reference, batch)
        rewards = kl_shaped_rewards(batch["scores"], old, reference_logprobs, mask, kl_coef=0.12)
        advantages = masked_whiten(leave_one_out(rewards, mask, batch["first"]), mask)
        for _ in range(4):
            loss, _ = ppo_loss(chosen(network, batch), old, advantages, mask, clip_range=0.2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def lost_of_100(network: nn.Module, *, greedy: bool) -> int:
    """Games lost against the perfect player, half of them played first."""
    return int((games(network, 100, torch.Generator().manual_seed(999), greedy=greedy)["scores"] < 0).sum())


def test_the_perfect_player_is_perfect() -> None:
    empty = (0,) * 9
    assert best_moves(empty, 1) == (0, tuple(range(9))), "every opening is a draw between perfect players"
    # X X .
    # O O X
    # . . .  X wins at once in the corner; where O is to move and has only the centre, it must go there.
    board = (1, 1, 0, -1, -1, 1, 0, 0, 0)
    assert best_moves(board, 1) == (1, (2,))
    assert best_moves((1, 1, 0, 0, -1, 0, 0, 0, 0), -1)[1] == (2,)


def test_a_random_start_that_loses_most_learns_to_lose_no_game_of_100() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(18, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 9))
    assert lost_of_100(network, greedy=False) > 60
    assert lost_of_100(network, greedy=True) > 60
    learn(network, seed=0)
    assert lost_of_100(network, greedy=True) == 0
