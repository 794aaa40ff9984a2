"""The section ``attacks`` of a suite: its policies answer attacked prompts, its cost models say how harmful that is."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from magnetar.data.splits import prompt_key
from magnetar.errors import DataError
from magnetar.evaluation.attacks.attack import Attack
from magnetar.evaluation.attacks.measure import AttackSettings, Responder, measure_attacks
from magnetar.evaluation.comparison.tables import IntervalSettings
from magnetar.evaluation.matchup import Responses
from magnetar.evaluation.players import GenerationRequest, StreamingPlayer, refuse_unreadable
from magnetar.evaluation.suite.answers import AnsweredPrompts, answer_prompts, refuse_uncovered
from magnetar.evaluation.suite.attack_config import AttacksConfig
from magnetar.evaluation.suite.results import AttackRecord
from magnetar.judges import Judge
from magnetar.types import Prompt

__all__ = ["AttackedSuite", "attacked_prompts", "attacked_suite"]


class AttackedSuite:
    """Answers of all policies to all attacked prompts, ready to be judged."""

    def __init__(
        self,
        config: AttacksConfig,
        intervals: IntervalSettings,
        prompts: Sequence[Prompt],
        categories: Sequence[str] | None,
        members: Mapping[str, Sequence[str]],
        answered: AnsweredPrompts,
        asked: Sequence[Prompt],
    ) -> None:
        """Keep what was answered; see `attacked_suite`."""
        self.config = config
        self.prompts, self.categories = prompts, categories
        self.settings = AttackSettings(config.seed, config.reads, intervals)
        place = {prompt_key(asked[row]): at for at, row in enumerate(answered.rows)}
        self.responders = {
            policy: [_looking_up(answered.responses[name], place) for name in of_policy]
            for policy, of_policy in members.items()
        }

    def records(self, label: str, judge: Judge) -> list[AttackRecord]:
        """What one cost model says.

        Args:
            label: Name of the judge.
            judge: It scores.

        Returns:
            For each policy one record for each attack, and "any".
        """
        attacks = self.config.parsed()
        return measure_attacks(attacks, self.prompts, self.categories, self.responders, {label: judge}, self.settings)


def attacked_suite(
    config: AttacksConfig,
    intervals: IntervalSettings,
    prompts: Sequence[Prompt],
    categories: Sequence[str] | None,
    members: Mapping[str, Sequence[str]],
    players: Mapping[str, StreamingPlayer],
    request: GenerationRequest,
    folder: Path,
    missing: str,
    tell: Callable[[str], None],
) -> AttackedSuite:
    """Let policies answer attacked prompts; answers are kept beside those to the plain ones, and read back.

    Args:
        config: Which attacks.
        intervals: How intervals are made.
        prompts: Plain prompts, all different.
        categories: One label for each, or None.
        members: Policy → names of its players, one for each seed.
        players: By name.
        request: How they are sampled.
        folder: Where answers are kept.
        missing: "error" for prompts without an answer to some attack, or "skip" for leaving them out for everybody.
        tell: Takes a line for the user.

    Returns:
        The answers.

    Raises:
        DataError: Prompts without an answer, or that cannot be attacked.
    """
    attacks = config.parsed()
    of_prompt = [[attack.apply(prompt, config.seed).prompt for attack in attacks] for prompt in prompts]
    unique: dict[str, Prompt] = {prompt_key(one): one for group in of_prompt for one in group}
    asked = list(unique.values())
    playing = {name: players[name] for of_policy in members.values() for name in of_policy}
    tell(f"attacks: {len(attacks) - 1} on {len(prompts)} prompts, {len(asked)} different prompts to answer in all")
    for at, attack in enumerate(attacks):
        _refuse_attack(attack, playing, [group[at] for group in of_prompt])
    try:
        refuse_uncovered(playing, asked, request.responses_per_prompt, missing)
        answered = answer_prompts(playing, asked, request, folder, missing, tell)
    except DataError as error:
        raise DataError(f"{error} (attacked prompts for files of responses: magnetar attacks --out FILE)") from error
    there = {prompt_key(asked[row]) for row in answered.rows}
    rows = [row for row, group in enumerate(of_prompt) if all(prompt_key(one) in there for one in group)]
    if not rows:
        raise DataError(f"none of the {len(prompts)} prompts is answered under every attack by everybody")
    if len(rows) < len(prompts):
        tell(f"attacks: {len(prompts) - len(rows)} of {len(prompts)} prompts lack an answer to some attack")
    return AttackedSuite(
        config,
        intervals,
        [prompts[row] for row in rows],
        None if categories is None else [categories[row] for row in rows],
        members,
        answered,
        asked,
    )


def attacked_prompts(attacks: Sequence[Attack], prompts: Sequence[Prompt], seed: int) -> list[dict[str, object]]:
    """Attacked prompts as rows of a file: what somebody else's system is to answer.

    Args:
        attacks: The attacks.
        prompts: Plain prompts.
        seed: As in the evaluation.

    Returns:
        Objects with ``prompt``, ``attack`` and ``original``.
    """
    return [
        {"prompt": attack.apply(prompt, seed).prompt, "attack": attack.label, "original": prompt}
        for attack in attacks
        for prompt in prompts
    ]


def _refuse_attack(attack: Attack, players: Mapping[str, StreamingPlayer], prompts: Sequence[Prompt]) -> None:
    """Refuse an attack whose prompts a model's chat template does not take."""
    try:
        refuse_unreadable(players, prompts)
    except DataError as error:
        raise DataError(
            f"attack {attack.label!r}: {error}. Use another form of the attack (system_override:place=user puts the "
            "system's words into the user's turn), or name the other attacks"
        ) from error


def _looking_up(responses: Responses, place: Mapping[str, int]) -> Responder:
    """A responder that finds answers by prompt."""
    return lambda prompts: responses.select([place[prompt_key(prompt)] for prompt in prompts])
