"""Optimistic, extragradient and mixture opponents in the real trainer, against exact formulas over every response."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from datasets import Dataset
from enumerable_setup import GAME, next_token_tables, sum_of_logs
from torch import Tensor

from magnetar.evaluation.enumerable import PROMPT
from magnetar.rollout import MixtureMember, SamplingParams, TransformersEngine
from magnetar.training import NashConfig, NashTrainer

LEARNING_RATE = 0.05
WIN_PROB = torch.tensor(GAME.game.P)


def make_trainer(folder: Path, **settings: Any) -> NashTrainer:
    """Plain gradient descent on the whole response space, so that every update can be repeated by hand."""
    args = NashConfig(
        output_dir=str(folder),
        num_generations=len(GAME.responses),
        max_completion_length=GAME.max_new_tokens,
        per_device_train_batch_size=1,
        max_tokens_per_pass=100_000,
        optim="sgd",
        learning_rate=LEARNING_RATE,
        max_grad_norm=0.0,
        disable_tqdm=True,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        **settings,
    )
    return NashTrainer(
        model=GAME.model(seed=1, skew=1.0, dtype=torch.float64),
        judge=GAME.judge(),
        args=args,
        train_dataset=Dataset.from_dict({"prompt": [PROMPT]}),
        processing_class=GAME.tokenizer,
        rollout_engine=GAME.engine(),
    )


def logp_A(model: Any) -> Tensor:
    tables = next_token_tables(model)
    return torch.stack([sum_of_logs(tables, tuple(tokens)) for tokens in GAME.responses])


def step(model: Any, loss: Callable[[Tensor], Tensor]) -> None:
    """One step of gradient descent on a function of log π, shape (A,)."""
    model.zero_grad()
    loss(logp_A(model)).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= LEARNING_RATE * parameter.grad


def against(payoff_A: Tensor, pull: Callable[[Tensor], Tensor] = lambda _: torch.tensor(0.0)) -> Any:
    """The policy gradient's loss at θ = θ_k, where KL to the behaviour policy has no gradient: minus the payoff."""
    return lambda now: -(now.exp() * (payoff_A - 0.5 - pull(now))).sum()


def assert_same_policy(trainer: NashTrainer, model: Any, tolerance: float = 1e-5) -> None:
    with torch.no_grad():
        ours, theirs = logp_A(trainer.roles.current), logp_A(model)
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


def clone() -> Any:
    return GAME.model(seed=1, skew=1.0, dtype=torch.float64)


@pytest.mark.parametrize("updates", [1, 3])
def test_extragradient_steps_twice_from_the_same_weights(tmp_path, updates):
    trainer = make_trainer(tmp_path, method="extragradient", max_steps=2 * updates)
    trainer.train()
    model = clone()
    for _ in range(updates):
        start = {name: value.clone() for name, value in model.state_dict().items()}
        step(model, against(WIN_PROB @ logp_A(model).exp().detach()))
        ahead = WIN_PROB @ logp_A(model).exp().detach()
        model.load_state_dict(start)
        step(model, against(ahead))
    assert_same_policy(trainer, model)
    plain = make_trainer(tmp_path / "plain", method="mirror_descent", max_steps=updates)
    plain.train()
    with pytest.raises(AssertionError):
        assert_same_policy(plain, model)


def test_egpo_pulls_to_the_reference_in_both_halves(tmp_path):
    beta = 0.3
    trainer = make_trainer(tmp_path, method="egpo", magnet_strength=beta, step_size=1.0, max_steps=6)
    trainer.train()
    model, reference = clone(), logp_A(clone()).detach()

    def loss(payoff: Tensor) -> Any:
        at = logp_A(model).detach()  # the reward is that of the sampling policy
        return against(payoff, lambda _: beta * (at - reference))

    for _ in range(3):
        start = {name: value.clone() for name, value in model.state_dict().items()}
        step(model, loss(WIN_PROB @ logp_A(model).exp().detach()))
        ahead = WIN_PROB @ logp_A(model).exp().detach()
        model.load_state_dict(start)
        step(model, loss(ahead))
    assert_same_policy(trainer, model)


def test_an_optimistic_update_extrapolates_the_payoffs(tmp_path):
    trainer = make_trainer(tmp_path, method="omwu", max_steps=4)
    trainer.train()
    model = clone()
    before = None
    for _ in range(4):
        now = WIN_PROB @ logp_A(model).exp().detach()
        step(model, against(now if before is None else 2 * now - before))
        before = now
    assert_same_policy(trainer, model)


def mixture_A(weight: float, current: Any, reference: Any) -> Tensor:
    """Probabilities of all responses when every token is drawn from the normalised geometric mixture."""
    tables = [next_token_tables(current), next_token_tables(reference)]
    mixed = {
        prefix: ((1 - weight) * tables[0][prefix] + weight * tables[1][prefix]).log_softmax(-1) for prefix in tables[0]
    }
    return torch.stack([sum_of_logs(mixed, tuple(tokens)) for tokens in GAME.responses]).exp().detach()


def test_nash_md_plays_against_the_mixture(tmp_path):
    eta, beta = 1.0, 0.3
    trainer = make_trainer(tmp_path, method="nash_md", magnet_strength=beta, step_size=eta, max_steps=3)
    trainer.train()
    model, start = clone(), clone()
    reference = logp_A(start).detach()
    for _ in range(3):
        at = logp_A(model).detach()
        payoff = WIN_PROB @ mixture_A(eta * beta, model, start)
        step(model, against(payoff, lambda _, at=at: beta * (at - reference)))
    assert_same_policy(trainer, model)


@pytest.mark.parametrize("with_lora", [False, True])
def test_the_sampled_mixture_has_the_mixtures_frequencies(with_lora):
    from magnetar.modeling.roles import make_roles

    model: Any = GAME.model(seed=1, skew=1.0)
    if with_lora:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]))
    roles = make_roles(model)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in roles.current.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    engine = TransformersEngine(cast(Any, GAME.tokenizer), SamplingParams(GAME.max_new_tokens))
    weight, draws = 0.4, 20_000
    members = [
        MixtureMember(lambda: roles.use("current"), 1 - weight),
        MixtureMember(lambda: roles.use("reference"), weight),
    ]
    prompt = list(GAME.tokenizer(PROMPT)["input_ids"])
    rollouts = engine.generate_mixture(members, [prompt], draws, [11])
    index = {tuple(tokens): k for k, tokens in enumerate(GAME.responses)}
    counts = np.bincount([index[tuple(r)] for r in rollouts.response_ids[0]], minlength=len(index))
    with torch.no_grad():
        with roles.use("reference") as reference:
            tables = next_token_tables(reference)
        both = [next_token_tables(roles.current), tables]
    mixed = {p: ((1 - weight) * both[0][p] + weight * both[1][p]).log_softmax(-1) for p in tables}
    expected = torch.stack([sum_of_logs(mixed, tuple(t)) for t in GAME.responses]).double().exp().numpy()
    alone = torch.stack([sum_of_logs(both[0], tuple(t)) for t in GAME.responses]).double().exp().numpy()
    statistic = ((counts - draws * expected) ** 2 / (draws * expected)).sum()
    freedom = len(index) - 1
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5
    wrong = ((counts - draws * alone) ** 2 / (draws * alone)).sum()
    assert wrong > 10 * statistic, "the mixture must differ from the policy by enough to be told apart"
    logp = [sum(values) for values in rollouts.sampling_logp[0][:50]]
    np.testing.assert_allclose(
        logp, [np.log(expected[index[tuple(r)]]) for r in rollouts.response_ids[0][:50]], atol=1e-4
    )
