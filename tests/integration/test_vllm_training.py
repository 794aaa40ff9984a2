"""A run whose responses come from an engine that is given weights is the run that generates with the policy itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from tiny_runs import (
    GAME,
    PROMPTS,
    assert_identical,
    make_trainer,
    metrics_without_times,
    read_lines,
    served,
    snapshot,
)

from magnetar.errors import ConfigError, RolloutError
from magnetar.rollout import Rollouts, SamplingParams, TransformersEngine
from magnetar.rollout.vllm.engine import SEEDS
from vllm_reference import ReferenceBackend


class SameSeeds(TransformersEngine):
    """Draws with the seeds that the other engine would use."""

    def generate(self, model: Any, prompt_ids: list[list[int]], group_size: int, seeds: Sequence[int]) -> Rollouts:
        return super().generate(model, prompt_ids, group_size, [seed % SEEDS for seed in seeds])


@pytest.mark.parametrize("settings", [{}, {"with_lora": True}, {"opponent": "magnet"}, {"opponent": "reference"}])
def test_a_run_with_weights_sent_to_an_engine_is_the_run_with_the_policy_itself(tmp_path: Path, settings):
    backends: list[ReferenceBackend] = []
    ends = []
    for name, engine in (("own", SameSeeds(cast(Any, GAME.tokenizer), SamplingParams(3))), ("sent", served(backends))):
        trainer = make_trainer(tmp_path / name, rollout_engine=engine, **settings)
        trainer.train()
        ends.append(snapshot(trainer))
    assert_identical(*ends)
    assert len(backends) == 1 and len(backends[0].sent) >= 6
    assert backends[0].stamp is None, "the engine is closed when training is over"


@pytest.mark.parametrize("with_lora", [True, False], ids=["lora", "full"])
def test_held_out_prompts_are_answered_by_the_runs_engine_as_by_the_policy_itself(tmp_path: Path, with_lora: bool):
    backends: list[ReferenceBackend] = []
    found = []
    for name, engine in (("own", SameSeeds(cast(Any, GAME.tokenizer), SamplingParams(3))), ("sent", served(backends))):
        settings: dict[str, Any] = {"with_lora": with_lora, "eval_strategy": "steps", "eval_steps": 2}
        trainer = make_trainer(
            tmp_path / name, rollout_engine=engine, eval_prompts=PROMPTS[:5], eval_responses=3, **settings
        )
        trainer.train()
        assert len(backends) == (name == "sent"), "evaluation in a run uses the engine that runs"
        found.append(trainer.play_against_reference())
    own, sent = found
    assert sent.policy.texts == own.policy.texts and sent.opponent.texts == own.opponent.texts
    assert sent.policy.texts != sent.opponent.texts
    assert (sent.policy.tokens_BG == own.policy.tokens_BG).all()
    assert (sent.win_prob_BGH == own.win_prob_BGH).all()
    rows = [
        [{k: v for k, v in row.items() if k.startswith("eval_")} for row in metrics_without_times(tmp_path / name)]
        for name in ("own", "sent")
    ]
    assert rows[0] == rows[1] and sum("eval_win_rate" in row for row in rows[0]) == 3
    assert len(backends) == 2 and backends[1].stamp is None, "started for the last match-up alone, and closed"
    assert len(backends[1].sent) == 2, "the policy, then the reference"


def test_an_engine_without_room_for_held_out_prompts_is_refused_before_the_first_step(tmp_path: Path):
    trainer = make_trainer(tmp_path, rollout_engine=served([], max_model_len=8), eval_prompts=[" ".join(["rock"] * 9)])
    with pytest.raises(ConfigError, match="the longest prompt has 9 and a response up to 3"):
        trainer.train()


def test_an_engine_that_does_not_fit_is_refused_before_the_first_step(tmp_path: Path):
    trainer = make_trainer(tmp_path, rollout_engine=served([], hidden_size=1))
    with pytest.raises(ConfigError, match="hidden_size 1"):
        trainer.train()
    assert trainer.state.global_step == 0


@pytest.mark.parametrize("failing", ["load", "sample"])
def test_an_engine_that_dies_in_mid_run_loses_nothing(tmp_path: Path, failing: str):
    whole = make_trainer(tmp_path / "whole", rollout_engine=served([]))
    whole.train()

    backends: list[ReferenceBackend] = []
    trainer = make_trainer(tmp_path / "cut", rollout_engine=served(backends))
    move = trainer.after_optimizer_step

    def after_step() -> None:
        move()
        if trainer.state.global_step == 3:
            backends[0].fail = failing

    trainer.after_optimizer_step = after_step  # type: ignore[method-assign]
    with pytest.raises(RolloutError, match=rf"update 4: {failing} failed; the run up to it is in .*mend the rollout"):
        trainer.train()
    resumed = make_trainer(tmp_path / "cut", rollout_engine=served([]))
    resumed.train(resume_from_checkpoint=True)
    assert_identical(snapshot(whole), snapshot(resumed))
    assert len(read_lines(tmp_path / "cut" / "metrics.jsonl")) == 6
