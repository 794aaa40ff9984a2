"""Regression and preference losses in the real trainer, against the formula over every response of the model."""

from typing import Any

import pytest
import torch
from enumerable_setup import (
    GAME,
    flat_gradient,
    loss_gradient,
    next_token_tables,
    row,
    sum_of_logs,
    trainer_with_distinct_roles,
)
from torch import Tensor
from torch.nn.functional import logsigmoid

from magnetar.training.collector import OpponentShare

ETA, ALPHA = 0.8, 0.3
PULL = ETA * ALPHA
WIN_PROB = torch.tensor(GAME.game.P)


def pairs(c: float, scale: float, target: Tensor, now: Tensor, behavior: Tensor, reference: Tensor) -> Tensor:
    """``Σ_ij π_k(i) π_k(j) (h_i − h_j − s t_ij)²``."""
    weight = behavior.exp()
    h = now - (1 - c) * behavior - c * reference
    return (weight[:, None] * weight[None, :] * (h[:, None] - h[None, :] - scale * target) ** 2).sum()


def payoffs(behavior: Tensor) -> Tensor:
    return WIN_PROB @ behavior.exp()


def dpo(beta: float, target: Tensor, now: Tensor, behavior: Tensor, reference: Tensor) -> Tensor:
    weight, h = behavior.exp(), beta * (now - reference)
    margin = h[:, None] - h[None, :]
    loss = -target * logsigmoid(margin) - (1 - target) * logsigmoid(-margin)
    return (weight[:, None] * weight[None, :] * loss).sum()


WINNER = torch.sign(WIN_PROB - 0.5)
FORMULAS: dict[str, tuple[dict[str, Any], Any]] = {
    "mpo by regression": (
        {"method": "mpo", "loss": "regression", "step_size": ETA, "magnet_strength": ALPHA},
        lambda *logp: pairs(PULL / (1 + PULL), ETA / (1 + PULL), WIN_PROB - 0.5, *logp),
    ),
    "inpo": (
        {"method": "inpo", "step_size": ETA, "magnet_strength": ALPHA},
        lambda *logp: pairs(PULL, ETA, WIN_PROB - 0.5, *logp),
    ),
    "inpo, hard labels": (
        {"method": "inpo", "step_size": ETA, "magnet_strength": ALPHA, "hard_labels": True},
        lambda *logp: pairs(PULL, ETA, WINNER / 2, *logp),
    ),
    "online ipo 2": (
        {"method": "online_ipo", "magnet_strength": ALPHA},
        lambda *logp: pairs(1.0, 1 / ALPHA, WIN_PROB - 0.5, *logp),
    ),
    "online ipo 1": (
        {"method": "online_ipo", "magnet_strength": ALPHA, "target": "payoff"},
        lambda now, k, ref: pairs(1.0, 1 / ALPHA, payoffs(k)[:, None] - payoffs(k)[None, :], now, k, ref),
    ),
    "sppo": (
        {"method": "sppo", "step_size": ETA},
        lambda now, k, ref: (k.exp() * (now - k - ETA * (payoffs(k) - 0.5)) ** 2).sum(),
    ),
    "dpo on all pairs": (
        {"method": "online_dpo", "kl_coef": ALPHA, "pairs": "all", "hard_labels": False},
        lambda *logp: dpo(ALPHA, WIN_PROB, *logp),
    ),
    "dpo on all pairs, hard labels": (
        {"method": "online_dpo", "kl_coef": ALPHA, "pairs": "all", "hard_labels": True},
        lambda *logp: dpo(ALPHA, (WINNER + 1) / 2, *logp),
    ),
}
# The payoffs of a group count the pair itself, which makes this target too large by G/(G − 1).
BIASED = ("online ipo 1",)


def responses_logp(model: Any) -> Tensor:
    tables = next_token_tables(model)
    return torch.stack([sum_of_logs(tables, tuple(tokens)) for tokens in GAME.responses])


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("name", FORMULAS)
def test_gradient_with_enumerated_weights_equals_the_formulas(tmp_path, name, layout):
    settings, formula = FORMULAS[name]
    trainer, experience = trainer_with_distinct_roles(tmp_path, logprob_layout=layout, **settings)
    ours = loss_gradient(trainer, experience)
    twin, _ = trainer_with_distinct_roles(tmp_path, method="mpo", kl_estimator="exact")  # keeps π_k as a role
    with torch.no_grad():
        with twin.roles.use("behavior") as model:
            behavior = responses_logp(model)
        with trainer.roles.use("reference") as model:
            reference = responses_logp(model)
    trainer.roles.current.zero_grad()
    formula(responses_logp(trainer.roles.current), behavior, reference).backward()
    exact = flat_gradient(trainer)
    scale = exact.abs().max()
    assert scale > 1e-3, "a vanishing gradient would make the comparison empty"
    # Relative to the largest entry: the model's normalisation layers compute in float32.
    torch.testing.assert_close(ours / scale, exact / scale, atol=1e-6, rtol=0)


QUICK = ("inpo", "sppo", "dpo on all pairs")  # one of each kind of loss; the others take minutes more


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FORMULAS if name not in BIASED],
)
def test_sampled_gradients_of_regressions_are_unbiased(tmp_path, name):
    settings, _ = FORMULAS[name]
    enumerated, experience = trainer_with_distinct_roles(tmp_path, **settings)
    exact = loss_gradient(enumerated, experience)
    directions = torch.randn(len(exact), 12, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    directions /= directions.norm(dim=0)
    trainer, _ = trainer_with_distinct_roles(tmp_path, sampled=True, group=8, **settings)
    current = [p.detach().clone() for p in trainer.roles.current.parameters()]
    twin, _ = trainer_with_distinct_roles(tmp_path, method="mpo", kl_estimator="exact")
    with twin.roles.use("behavior") as model:
        sampling = [p.detach().clone() for p in model.parameters()]
    projections = []
    for position in range(1, 301):
        _load(trainer, sampling)
        experience = trainer._collector.collect([row(trainer, position)], [OpponentShare(1.0, "current")])
        _load(trainer, current)
        projections.append(loss_gradient(trainer, experience) @ directions)
    samples = torch.stack(projections)
    standard_error = samples.std(0) / len(samples) ** 0.5
    expected = exact @ directions
    assert ((samples.mean(0) - expected).abs() < 4 * standard_error).all()
    assert (expected / standard_error).norm() > 15, "the test must be able to tell the gradient from a biased one"


def _load(trainer: Any, weights: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(trainer.roles.current.parameters(), weights, strict=True):
            parameter.copy_(value)
