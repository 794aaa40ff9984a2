"""Every logged figure is there, and right by an independent computation on an enumerable game."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import GAME, make_trainer, read_lines
from transformers import TrainerCallback

from magnetar.evaluation.enumerable import PROMPT
from magnetar.rollout.enumerating import EnumeratingEngine

EVERY_UPDATE = {
    *("payoff_mean", "payoff_std", "cyclic_triples", "kl_magnet", "kl_behavior", "kl_reference", "entropy"),
    *("response_tokens", "truncated", "grad_norm", "seconds_rollout", "seconds_judge", "seconds_logprobs"),
    *("seconds_update", "tokens_per_second", "magnet_moved", "loss", "update", "round", "step", "learning_rate"),
}
LENGTHS = np.array([len(response) for response in GAME.responses], dtype=float)
CUT = np.array([response[-1] != 0 for response in GAME.responses])


class Policies(TrainerCallback):
    """What the exact policy is as each step begins: of whole responses, and of the next token at every state."""

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature
        self.policy: list[np.ndarray] = []
        self.token_logp: list[list[np.ndarray]] = []  # for each step and response, shape (T, V)

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        logp = [next_token_logp(model, response, self.temperature) for response in GAME.responses]
        pairs = zip(logp, GAME.responses, strict=True)
        self.token_logp.append(logp)
        self.policy.append(np.exp([p[np.arange(len(y)), y].sum() for p, y in pairs]))

    def entropy(self, step: int) -> float:
        """Mean entropy of the next token at the states that responses visit."""
        per_response = [-(np.exp(logp) * logp).sum() for logp in self.token_logp[step]]
        return float(self.policy[step] @ per_response) / float(self.policy[step] @ LENGTHS)

    def visited_kl(self, step: int, other: int, behavior: int) -> float:
        """Expected sum of next-token KL(step‖other) over the states that the behaviour policy's responses visit."""
        pairs = zip(self.token_logp[step], self.token_logp[other], strict=True)
        return float(self.policy[behavior] @ [(np.exp(p) * (p - q)).sum() for p, q in pairs])


def next_token_logp(model: Any, response: list[int], temperature: float) -> np.ndarray:
    prompt = GAME.tokenizer(PROMPT)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].double()
    return (logits / temperature).log_softmax(-1).numpy()


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum())


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("with_lora", [False, True], ids=["full", "lora"])
def test_metrics_are_right_when_every_response_is_listed(tmp_path: Path, with_lora: bool, temperature: float) -> None:
    seen = Policies(temperature)
    trainer = make_trainer(
        tmp_path,
        with_lora=with_lora,
        callbacks=[seen],
        prompts=[PROMPT],
        rollout_engine=EnumeratingEngine(GAME.tokenizer, GAME.responses, temperature),
        temperature=temperature,
        num_generations=len(GAME.responses),
        per_device_train_batch_size=1,
        max_steps=5,
        magnet_every=2,
        learning_rate=3e-2,
    )
    trainer.train()
    rows = [row for row in read_lines(tmp_path / "metrics.jsonl") if "loss" in row]
    assert [row["update"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["magnet_moved"] for row in rows] == [0, 1, 0, 1, 0]
    magnet = [0, 0, 2, 2, 4]  # whose policy the magnet has during each update
    assert kl(seen.policy[4], seen.policy[0]) > 0.01
    for k, row in enumerate(rows):
        assert row.keys() >= EVERY_UPDATE
        policy, start = seen.policy[k], seen.policy[0]
        payoff = GAME.game.P @ policy
        assert row["payoff_mean"] == pytest.approx(0.5, abs=1e-9)
        assert row["payoff_std"] == pytest.approx(np.sqrt(policy @ (payoff - 0.5) ** 2), abs=1e-6)
        assert row["response_tokens"] == pytest.approx(policy @ LENGTHS, abs=1e-5)
        assert row["truncated"] == pytest.approx(policy @ CUT, abs=1e-5)
        assert row["entropy"] == pytest.approx(seen.entropy(k), abs=1e-5)
        assert row["kl_reference"] == pytest.approx(kl(policy, start), abs=1e-5)
        assert row["kl_magnet"] == pytest.approx(kl(policy, seen.policy[magnet[k]]), abs=1e-5)
        assert row["kl_behavior"] == pytest.approx(0.0, abs=1e-7)
        assert row["tokens_per_second"] > 0


@pytest.mark.parametrize("estimator", ["sampled", "exact"])
def test_kl_to_behaviour_and_magnet_are_those_of_the_inner_epoch(tmp_path: Path, estimator: str) -> None:
    seen = Policies()
    make_trainer(
        tmp_path,
        callbacks=[seen],
        prompts=[PROMPT],
        rollout_engine=GAME.engine(),
        num_generations=len(GAME.responses),
        per_device_train_batch_size=1,
        max_steps=4,
        inner_epochs=2,
        kl_estimator=estimator,
        learning_rate=2e-3,
    ).train()
    rows = [row for row in read_lines(tmp_path / "metrics.jsonl") if "loss" in row]
    for step, row in enumerate(rows):
        behavior = step - step % 2
        assert row["kl_behavior"] == pytest.approx(seen.visited_kl(step, behavior, behavior), rel=1e-4, abs=1e-6)
        # Two updates, so that the magnet is where training started; in the first one that is the behaviour policy too.
        assert row["kl_magnet"] == pytest.approx(seen.visited_kl(step, 0, behavior), rel=1e-4, abs=1e-6)
    assert rows[1]["kl_behavior"] > 1e-4


@pytest.mark.parametrize("method", ["mpo", "mpo_rt", "mmd", "mirror_descent"])
def test_sampled_self_play_logs_every_figure(tmp_path: Path, method: str) -> None:
    make_trainer(tmp_path, method=method, max_steps=2).train()
    for row in read_lines(tmp_path / "metrics.jsonl"):
        expected = EVERY_UPDATE - ({"kl_magnet"} if method == "mirror_descent" else set())
        assert expected - row.keys() == set()
        assert row["payoff_mean"] == pytest.approx(0.5, abs=1e-9)  # exactly the value of the game, in every group
        assert 0 <= row["cyclic_triples"] <= 1
        assert all(np.isfinite(value) for value in row.values())


def test_against_another_role_the_mean_payoff_is_not_fixed(tmp_path: Path) -> None:
    make_trainer(tmp_path, opponent="reference", num_opponents=3, max_steps=3).train()
    rows = read_lines(tmp_path / "metrics.jsonl")
    assert any(abs(row["payoff_mean"] - 0.5) > 1e-3 for row in rows)
    assert all("cyclic_triples" not in row for row in rows)


def test_a_log_line_over_several_steps_holds_their_means(tmp_path: Path) -> None:
    each, pairs = tmp_path / "each", tmp_path / "pairs"
    make_trainer(each, max_steps=4).train()
    make_trainer(pairs, max_steps=4, logging_steps=2).train()
    single, double = read_lines(each / "metrics.jsonl"), read_lines(pairs / "metrics.jsonl")
    assert len(double) == 2
    for k, row in enumerate(double):
        for name in ("payoff_std", "entropy", "kl_magnet", "kl_reference", "response_tokens", "truncated"):
            both = [single[2 * k][name], single[2 * k + 1][name]]
            # Entropy is a mean over tokens, so that the longer batch counts more.
            assert min(both) - 1e-9 <= row[name] <= max(both) + 1e-9
            if name != "entropy":
                assert row[name] == pytest.approx(sum(both) / 2, rel=1e-6, abs=1e-9)
