"""Counting wins while looking after each of them: evidence and intervals that hold whenever one stops looking.

A test that was made for a number of cases fixed beforehand errs far more often when it is read after every case. What
is used here is the likelihood of the outcomes averaged over all rates that the alternative allows, over their
likelihood under the hypothesis (Robbins 1970, "Statistical methods related to the law of the iterated logarithm"): an
e-process. If the hypothesis is true it ever reaches 1/alpha with probability alpha at most (Ville 1939), whenever one
looks and stops, and also if the outcomes hang together, as long as each of them is no better than the hypothesis
allows given those before it.

Left out on purpose: what follows from the evidence (assistant/probation.py, assistant/arms.py).
"""

from __future__ import annotations

import math


def evidence(wins: int, losses: int) -> float:
    """How much speaks against "it wins at least half of what is decided": the e-process with a uniform mixture.

        2^(n+1) * integral over p from 0 to 1/2 of p^wins (1-p)^losses dp,   n = wins + losses
        = sum over k > wins of C(n+1, k) / ((n+1) C(n, wins))                by the beta integral

    Each rate below a half is a bet whose stake does not grow on average if the true rate is a half or more; so is
    their mean. Swap the arguments for the evidence that it wins more than half.
    """
    n = wins + losses
    above = sum(math.comb(n + 1, k) for k in range(wins + 1, n + 2))
    return above / ((n + 1) * math.comb(n, wins))


def interval(wins: float, count: int, alpha: float = 0.05) -> tuple[float, float]:
    """Rates that so many wins do not speak against, 1 - alpha sure at all times together; (0, 1) without any case.

    A tie counts as half a win: for outcomes between 0 and 1 the mixture is a fair bet at most, as it is for wins and
    losses, because a^x b^(1-x) is convex in x (Howard et al. 2021, "Time-uniform, nonparametric, nonasymptotic
    confidence sequences"). It is wider than an interval for one look: 10 of 10 wins leave 0.55 to 1.
    """
    losses = count - wins
    mixture = math.lgamma(wins + 1) + math.lgamma(losses + 1) - math.lgamma(count + 2)

    def allowed(rate: float) -> bool:
        likelihood = (wins * math.log(rate) if wins else 0.0) + (losses * math.log1p(-rate) if losses else 0.0)
        return mixture - likelihood < -math.log(alpha)

    def edge(inside: float, outside: float) -> float:
        for _ in range(50):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if allowed(middle) else (inside, middle)
        return inside

    if not count:
        return 0.0, 1.0
    best = wins / count
    return edge(best, 0.0) if wins else 0.0, edge(best, 1.0) if losses else 1.0
