"""The trainer and the match-up with a judge that leaves some pairs unanswered, or fails."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import GAME, make_trainer, snapshot

from magnetar.errors import JudgeError
from magnetar.judges import Judge, Symmetrized


class Abstaining(Judge):
    """Asks another judge, and leaves unanswered each pair of which both responses contain a word."""

    name = "abstaining"
    may_abstain = True

    def __init__(self, inner: Judge, word: str) -> None:
        self.inner, self.word = inner, word

    def _pair_win_prob(self, prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> Any:
        answer = self.inner.pair_win_prob(prompts, first, second)
        hidden = [self.word in a.split() and self.word in b.split() for a, b in zip(first, second, strict=True)]
        return np.where(hidden, np.nan, answer)


def test_training_goes_on_over_unanswered_pairs_and_counts_them(tmp_path):
    judge = Symmetrized(Abstaining(GAME.judge(), "rock"))
    trainer = make_trainer(tmp_path, judge=judge, max_steps=3, logging_steps=1, eval_prompts=["rock", "paper"])
    trainer.train()
    steps = [line for line in trainer.state.log_history if "loss" in line]
    assert len(steps) == 3
    assert sum(line["judge/masked"] for line in steps) > 0
    assert all(np.isfinite(line["loss"]) for line in steps)
    assert all(torch.isfinite(tensor).all() for tensor in snapshot(trainer).values())
    experience = trainer.last_experience
    assert not experience.win_prob_BGH.isnan().any()
    values = trainer.evaluate()
    assert 0.0 <= values["eval_win_rate"] <= 1.0


def test_a_judge_that_answers_nothing_stops_the_run(tmp_path):
    class Silent(Abstaining):
        def _pair_win_prob(self, prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> Any:
            return np.full(len(first), np.nan)

    trainer = make_trainer(tmp_path, judge=Silent(GAME.judge(), "rock"), max_steps=1)
    with pytest.raises(JudgeError, match="answered none of the pairs of 2 prompts"):
        trainer.train()


class FailsOnce(Judge):
    """A judge whose server goes down in the middle of a run."""

    name = "fails once"

    def __init__(self, calls: int, error: Exception) -> None:
        self.calls, self.error = calls, error

    def _pair_win_prob(self, prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> Any:
        self.calls -= 1
        if self.calls == 0:
            raise self.error
        return GAME.judge().pair_win_prob(prompts, first, second)


@pytest.mark.parametrize("error", [JudgeError("the server is down"), ConnectionResetError("the server is down")])
@pytest.mark.parametrize("inner_epochs", [1, 2])
def test_a_run_whose_judge_failed_goes_on_to_the_weights_of_one_that_did_not(tmp_path, error, inner_epochs):
    whole = make_trainer(tmp_path / "whole", judge=FailsOnce(-1, error), max_steps=6, inner_epochs=inner_epochs)
    whole.train()
    broken = make_trainer(tmp_path / "run", judge=FailsOnce(3, error), max_steps=6, inner_epochs=inner_epochs)
    with pytest.raises(JudgeError, match=r"update 3: .*the server is down.*mend the judge.*resume_from_checkpoint"):
        broken.train()
    mended = make_trainer(tmp_path / "run", judge=FailsOnce(-1, error), max_steps=6, inner_epochs=inner_epochs)
    mended.train(resume_from_checkpoint=True)
    expected = snapshot(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in snapshot(mended).items())


def test_a_judge_that_fails_at_once_leaves_nothing_to_resume(tmp_path):
    trainer = make_trainer(tmp_path, judge=FailsOnce(1, KeyError("x")), max_steps=2)
    with pytest.raises(JudgeError, match=r"update 1: judge 'fails once' failed: KeyError: 'x'; nothing was saved"):
        trainer.train()
    assert not list(tmp_path.glob("checkpoint-*"))
