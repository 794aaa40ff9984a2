"""The ledger counts what was asked and sampled, a budget ends the run, and resuming changes neither."""

from pathlib import Path
from typing import Any

import pytest
from tiny_runs import GAME, make_trainer

from magnetar.rollout import SamplingParams, TransformersEngine


class Counting(type(GAME.judge())):
    """The game's judge, with every pair that it was asked about."""

    def __init__(self) -> None:
        super().__init__(GAME.texts, GAME.game.P)
        self.pairs = 0

    def _group_win_prob(self, prompts: Any, responses: Any) -> Any:
        for group in responses:
            self.pairs += sum(1 for i in range(len(group)) for _ in range(i))
        return super()._group_win_prob(prompts, responses)

    def _cross_win_prob(self, prompts: Any, responses: Any, opponents: Any) -> Any:
        for mine, theirs in zip(responses, opponents, strict=True):
            self.pairs += sum(1 for _ in mine for _ in theirs)
        return super()._cross_win_prob(prompts, responses, opponents)


class CountingEngine(TransformersEngine):
    """transformers' engine, with every response that it sampled."""

    def __init__(self) -> None:
        super().__init__(GAME.tokenizer, SamplingParams(3, 1.0, 1.0, 0))
        self.lengths: list[int] = []

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        return self._noted(super().generate(*args, **kwargs))

    def generate_mixture(self, *args: Any, **kwargs: Any) -> Any:
        return self._noted(super().generate_mixture(*args, **kwargs))

    def _noted(self, rollouts: Any) -> Any:
        self.lengths += [len(tokens) for group in rollouts.response_ids for tokens in group]
        return rollouts


NO_MAGNET: dict[str, Any] = {"magnet_every": None, "magnet_strength": None}
# name: (settings, pairs of one prompt in an update, opponents' responses to it); the first update of an optimistic
# method has no policy before it, and is its own row.
RUNS: dict[str, tuple[dict[str, Any], int, int]] = {
    "self-play": ({}, 6, 0),
    "two steps on each batch": ({"inner_epochs": 2, "max_steps": 6}, 6, 0),
    "opponents from the reference": ({"opponent": "reference", "num_opponents": 3}, 12, 3),
    "accumulation": ({"gradient_accumulation_steps": 2}, 6, 0),
    "extragradient": ({"method": "egpo", "step_size": 1.0, "magnet_every": None, "num_opponents": 3}, 6 + 12, 3),
    "mixture": ({"method": "nash_md", "step_size": 1.0, "magnet_every": None, "num_opponents": 3}, 12, 3),
}


@pytest.mark.parametrize("name", RUNS)
def test_the_ledger_equals_counts_of_judge_and_engine(tmp_path: Path, name: str) -> None:
    settings, pairs, opponents = RUNS[name]
    judge, engine = Counting(), CountingEngine()
    trainer = make_trainer(tmp_path, judge=judge, rollout_engine=engine, **settings)
    trainer.train()
    ledger = trainer.ledger
    assert ledger.updates == trainer.plan.updates
    assert ledger.prompts == len(trainer.plan.rows)
    assert ledger.comparisons == judge.pairs == ledger.prompts * pairs
    assert ledger.generated_responses == len(engine.lengths) == ledger.prompts * (4 + opponents)
    assert ledger.generated_tokens == sum(engine.lengths)
    assert ledger.judged_responses == ledger.generated_responses
    assert ledger.seconds > 0
