"""The real trainer's gradient against the exact formula, on a model whose every response can be listed."""

import pytest
import torch
from enumerable_setup import exact_loss, flat_gradient, loss_gradient, row, trainer_with_distinct_roles

from magnetar.training.collector import OpponentShare

STEP_SIZE, STRENGTH = 0.8, 0.3


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("estimator", ["exact", "sampled"])
@pytest.mark.parametrize("method", ["mpo", "mpo_rt"])
def test_gradient_with_enumerated_weights_equals_the_exact_formulas(tmp_path, method, estimator, layout):
    trainer, experience = trainer_with_distinct_roles(
        tmp_path,
        method=method,
        step_size=STEP_SIZE,
        magnet_strength=STRENGTH,
        kl_estimator=estimator,
        logprob_layout=layout,
    )
    ours = loss_gradient(trainer, experience)
    if not trainer.roles.has("behavior"):
        assert estimator == "sampled", "exact proximal terms need the behaviour policy as a role"
        trainer.roles.add("behavior")
        _restore_behavior(trainer, tmp_path, method, layout)
    trainer.roles.current.zero_grad()
    exact_loss(trainer, step_size=STEP_SIZE, strength=STRENGTH, transformed=method == "mpo_rt").backward()
    exact = flat_gradient(trainer)
    assert exact.abs().max() > 1e-3, "a vanishing gradient would make the comparison empty"
    torch.testing.assert_close(ours, exact, atol=1e-6, rtol=0)


def _restore_behavior(trainer, folder, method, layout) -> None:
    """The sampled estimator keeps no behaviour weights; take them from a twin that does."""
    settings = {"step_size": STEP_SIZE, "magnet_strength": STRENGTH, "kl_estimator": "exact"}
    twin, _ = trainer_with_distinct_roles(folder, method=method, logprob_layout=layout, **settings)
    with twin.roles.use("behavior") as source, trainer.roles.use("behavior") as target, torch.no_grad():
        for a, b in zip(target.parameters(), source.parameters(), strict=True):
            a.copy_(b)


@pytest.mark.parametrize("method", ["mpo", "mpo_rt"])
def test_sampled_gradients_are_unbiased(tmp_path, method):
    settings = {"method": method, "step_size": STEP_SIZE, "magnet_strength": STRENGTH, "kl_estimator": "sampled"}
    enumerated, experience = trainer_with_distinct_roles(tmp_path, **settings)
    exact = loss_gradient(enumerated, experience)
    directions = torch.randn(len(exact), 12, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    directions /= directions.norm(dim=0)

    trainer, _ = trainer_with_distinct_roles(tmp_path, sampled=True, group=16, **settings)
    current = {name: p.detach().clone() for name, p in trainer.roles.current.named_parameters()}
    # Sample with π_k, then differentiate at θ: swap the weights by hand, as two inner epochs would.
    behavior, _ = trainer_with_distinct_roles(tmp_path, **{**settings, "kl_estimator": "exact"})
    with behavior.roles.use("behavior") as model:
        sampling = {name: p.detach().clone() for name, p in model.named_parameters()}
    projections = []
    for position in range(1, 401):
        _load(trainer, sampling)
        experience = trainer._collector.collect([row(trainer, position)], [OpponentShare(1.0, "current")])
        _load(trainer, current)
        projections.append(loss_gradient(trainer, experience) @ directions)
    samples = torch.stack(projections)
    standard_error = samples.std(0) / len(samples) ** 0.5
    expected = exact @ directions
    assert ((samples.mean(0) - expected).abs() < 4 * standard_error).all()
    assert (expected / standard_error).norm() > 20, "the test must be able to tell the gradient from a biased one"


def _load(trainer, weights) -> None:
    with torch.no_grad():
        for name, parameter in trainer.roles.current.named_parameters():
            parameter.copy_(weights[name])
