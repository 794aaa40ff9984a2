"""No forward pass is made twice, and none for a role that equals another; adapters share one base."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import GAME, TRAINABLE, assert_close, make_trainer, snapshot, updates_of

from magnetar.training import NashTrainer
from magnetar.training import trainer as trainer_module

Passes = dict[str, int]
STEP: Passes = {"gradient": 1}  # the policy's own pass of an optimiser step; it says what the sampling policy says
MAGNET: Passes = {"magnet": 1}
REFERENCE: Passes = {"reference": 1}  # for the logged KL to the start; none where the magnet stands at the start

# Three updates; a magnet that moves does so after the second. At the start all roles are equal and need no pass.
MOVED_MAGNET = [STEP, STEP | MAGNET, STEP | REFERENCE]  # the magnet is the start, then the policy
FIXED_MAGNET = [STEP, STEP | MAGNET, STEP | MAGNET]  # the magnet is the start throughout
NO_MAGNET = [STEP, STEP | REFERENCE, STEP | REFERENCE]
TWO_HALVES: Passes = {"gradient": 2}  # an extragradient update takes two optimiser steps on one batch
# The adaptive magnet measures how far each update went by a pass after it.
MEASURED: Passes = {"current": 1}
CRITIC: Passes = {"critic": 1}

EXPECTED: dict[str, list[Passes]] = {
    "mpo": MOVED_MAGNET,
    "mpo_rt": MOVED_MAGNET,
    "mpo_optimistic": [STEP | MEASURED, STEP | MAGNET | MEASURED, STEP | MAGNET | MEASURED],
    "mmd": FIXED_MAGNET,
    "mirror_descent": NO_MAGNET,
    "sppo": NO_MAGNET,
    "omd": FIXED_MAGNET,
    "inpo": FIXED_MAGNET,
    "online_ipo": FIXED_MAGNET,
    "nash_md": FIXED_MAGNET,
    "nash_md_pg": FIXED_MAGNET,
    "egpo": [TWO_HALVES, TWO_HALVES | MAGNET, TWO_HALVES | MAGNET],
    "omwu": NO_MAGNET,
    "extragradient": [TWO_HALVES, TWO_HALVES | REFERENCE, TWO_HALVES | REFERENCE],
    "ppo": [passes | CRITIC for passes in FIXED_MAGNET],
    "rloo": FIXED_MAGNET,
    "grpo": FIXED_MAGNET,
    "online_dpo": FIXED_MAGNET,
    # Responses come from the policy at the start of the round: the reference, and not the policy that learns.
    "iterative_dpo": [STEP | {"behavior": 1}] * 3,
}
TWO_STEPS: Passes = {"gradient": 2}
SETTINGS: dict[str, tuple[dict[str, Any], list[Passes]]] = {
    "exact KL": ({"method": "mpo", "kl_estimator": "exact"}, MOVED_MAGNET),
    "two steps": ({"method": "mpo", "inner_epochs": 2}, [TWO_STEPS, TWO_STEPS | MAGNET, TWO_STEPS | REFERENCE]),
    "two steps, exact KL": (
        {"method": "mpo", "kl_estimator": "exact", "inner_epochs": 2},
        [TWO_STEPS, TWO_STEPS | MAGNET, TWO_STEPS | REFERENCE],
    ),
    "two steps, critic": (
        {"method": "ppo", "inner_epochs": 2},
        [passes | TWO_STEPS | {"critic": 2} for passes in FIXED_MAGNET],
    ),
    "adaptive magnet": (
        {"method": "mpo", "magnet_schedule": "adaptive"},
        [STEP | MEASURED, STEP | MAGNET | MEASURED, STEP | MAGNET | MEASURED],
    ),
}


def count_passes(trainer: NashTrainer) -> list[Passes]:
    """Train; for each update, forward passes other than those of generation, by role."""
    now, updates = Counter[str](), []
    trained: Any = trainer.roles.current

    def count(_: Any, __: Any, settings: dict[str, Any]) -> None:
        if settings.get("use_cache") is False:
            now["gradient" if torch.is_grad_enabled() else vars(trainer.roles)["_active"]] += 1

    trained.get_base_model().register_forward_pre_hook(count, with_kwargs=True)
    if trainer.critic is not None:
        critic: Any = trainer.critic.critic.model
        critic.get_base_model().register_forward_pre_hook(lambda *_: now.update(["critic"]))
    original = trainer.after_optimizer_step

    def after() -> None:
        original()
        if trainer.state.global_step % trainer.plan.inner_epochs == 0:
            updates.append(dict(now))
            now.clear()

    trainer.after_optimizer_step = after
    trainer.train()
    return updates


def run(folder: Path, method: str, inner_epochs: int = 1, **settings: Any) -> list[Passes]:
    lengths: dict[str, Any] = updates_of(method, 3, inner_epochs)
    return count_passes(make_trainer(folder, with_lora=True, method=method, **settings, **lengths))


@pytest.mark.parametrize("method", TRAINABLE)
def test_each_method_makes_the_passes_that_it_must_and_no_other(tmp_path: Path, method: str) -> None:
    assert run(tmp_path, method) == EXPECTED[method]


@pytest.mark.parametrize("case", SETTINGS)
def test_several_steps_and_exact_divergences_cost_no_further_pass_of_a_frozen_role(tmp_path: Path, case: str) -> None:
    settings, expected = SETTINGS[case]
    assert run(tmp_path, **settings) == expected


def test_roles_are_adapters_on_one_base_that_nothing_copies(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, with_lora=True, kl_estimator="exact", inner_epochs=2, max_steps=8)
    policy: Any = trainer.roles.current
    base = {name: p for name, p in policy.named_parameters() if ".lora_" not in name}
    places = {name: p.data_ptr() for name, p in base.items()}
    adapter = sum(".lora_" in name and ".default." in name for name, _ in policy.named_parameters())
    seen: set[tuple[str, int]] = set()
    policy.get_base_model().register_forward_pre_hook(
        lambda *_: seen.update((name, p.data_ptr()) for name, p in base.items())
    )
    trainer.train()
    assert seen == set(places.items()), "every role's pass reads the same weights in the same place"
    after = dict(policy.named_parameters())
    assert all(after[name] is p for name, p in base.items())
    roles = [role for role in ("magnet", "behavior", "reference") if role in policy.peft_config]
    assert roles == ["magnet", "behavior"], "the start of a fresh adapter is the bare base"
    assert len(after) == len(base) + adapter * (1 + len(roles))


CHUNKED: dict[str, dict[str, Any]] = {
    "exact KL, two steps": {"kl_estimator": "exact", "inner_epochs": 2},
    "exact KL, rounds": {"kl_estimator": "exact", "sample_from": "round_start", "num_rounds": 2},
    "exact KL, frozen roles on the cpu": {"kl_estimator": "exact", "inner_epochs": 2, "frozen_roles_on_cpu": True},
    "critic, two steps": {"method": "ppo", "inner_epochs": 2},
}


@pytest.mark.parametrize("case", CHUNKED)
def test_a_run_in_chunks_ends_where_one_with_whole_logits_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = []
    for obstacle in (None, "LlamaForCausalLM does something odd"):
        with monkeypatch.context() as patch:
            if obstacle is not None:
                patch.setattr("magnetar.training.preparation.chunking_support", lambda model, reason=obstacle: reason)
            trainer = make_trainer(
                tmp_path / str(obstacle),
                model=GAME.model(0, dtype=torch.float64),
                optim="sgd",
                learning_rate=0.5,
                max_steps=6,
                **CHUNKED[case],
            )
        assert trainer.passes.chunked == (obstacle is None)
        assert ("costs memory: LlamaForCausalLM does something odd" in capsys.readouterr().out) == bool(obstacle)
        trainer.train()
        ends.append(snapshot(trainer))
    assert_close(ends[0], ends[1], 1e-12)
    start = GAME.model(0, dtype=torch.float64).state_dict()
    assert max(float((ends[0][f"policy.{name}"] - value).abs().max()) for name, value in start.items()) > 1e-3


def test_the_reason_is_said_by_one_process_only(capsys: pytest.CaptureFixture[str]) -> None:
    model = GAME.model(0)
    model.config.final_logit_softcapping = 3.0
    assert not trainer_module.choose_chunking(model, 1)
    assert capsys.readouterr().out == ""
    assert not trainer_module.choose_chunking(model, 0)
    assert "in a way that its configuration does not say" in capsys.readouterr().out
