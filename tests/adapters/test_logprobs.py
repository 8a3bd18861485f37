"""Selected log-probabilities and their hand-written backward against torch's own."""

from __future__ import annotations

import pytest
import torch

from adapters import logprobs
from adapters.logprobs import selected_logprobs


@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("at_once", [2, 100])
def test_values_and_gradients_are_those_of_log_softmax(
    temperature: float, softcap: float | None, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logprobs, "AT_ONCE", at_once)
    torch.manual_seed(0)
    hidden = torch.randn(5, 8, dtype=torch.float32, requires_grad=True)
    weight, targets = torch.randn(11, 8), torch.tensor([0, 3, 10, 3, 7])
    upstream = torch.randn(5)

    chosen = selected_logprobs(hidden, weight, targets, temperature, softcap)
    (gradient,) = torch.autograd.grad(chosen @ upstream, hidden)

    logits = hidden @ weight.T
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    plain = torch.log_softmax(logits / temperature, -1)[torch.arange(5), targets]
    (expected,) = torch.autograd.grad(plain @ upstream, hidden)
    torch.testing.assert_close(chosen, plain)
    torch.testing.assert_close(gradient, expected)


def test_a_token_that_is_as_good_as_impossible_still_has_a_finite_log_probability() -> None:
    hidden = torch.tensor([[1.0]], requires_grad=True)
    weight = torch.tensor([[0.0], [200.0]])

    chosen = selected_logprobs(hidden, weight, torch.tensor([0]), 1.0)
    (gradient,) = torch.autograd.grad(chosen.sum(), hidden)

    assert chosen.item() == pytest.approx(-200.0)
    assert gradient.item() == pytest.approx(-200.0)
