"""A language model that is asked which of two responses is better."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from magnetar.errors import JudgeError
from magnetar.judges.base import Judge, collect
from magnetar.judges.checks import FloatArray, IndexArray, describe_pair
from magnetar.judges.language_model.answers import Verdict, verdict_of_logprobs, verdict_of_text
from magnetar.judges.language_model.backends.base import Asking, Backend, LogprobsUse, Reply, check_logprobs_use
from magnetar.judges.language_model.delimiting import RULE, STATED, delimit, marker_number, neutralise
from magnetar.judges.language_model.lengths import cut_middle, shared_limit
from magnetar.judges.language_model.templates import JudgeTemplate, load_template
from magnetar.types import Message, Prompt

__all__ = ["LanguageModelJudge"]

READING_VERSION = 1
"""To be raised whenever questions are cut or marked off, or replies read, in another way: kept answers are then old."""
FIT_ATTEMPTS = 16
"""How often a question is cut again because its parts together have more tokens than one by one."""


class LanguageModelJudge(Judge):
    """A language model as a judge, asked about ordered pairs.

    The win probability is the model's own where its log-probabilities can be had, and 0, 1 or, for a tie, 1/2 where
    only its text can. Such models favour a place, so wrap the judge in `Symmetrized` (`build_judge` does it). Two equal
    responses are not asked about: P(y beats y) = 1/2.

    `stats` adds `calls`, `retries`, `tokens_in`, `tokens_out`, `unreadable` (and `masked`, of them those left out),
    `text_answers` (verdicts read from text), `truncated_share`, `choice_mass_mean` and `seconds`.
    """

    def __init__(
        self,
        backend: Backend,
        template: str | Path | JudgeTemplate = "helpfulness",
        *,
        defence: bool = True,
        logprobs: LogprobsUse = "auto",
        min_choice_mass: float = 0.1,
        on_unreadable: Literal["raise", "mask"] = "raise",
        max_length: int | None = None,
        on_long: Literal["middle", "error"] = "middle",
        version: str | None = None,
        name: str | None = None,
    ) -> None:
        """Take a model that can be asked.

        Args:
            backend: The model.
            template: How it is asked: a name, a .yaml file or a template, see `load_template`.
            defence: Whether prompt and responses are marked off and their control tokens taken apart, so that a
                response cannot give orders; False only to measure what that does.
            logprobs: Whether the probabilities of the choices are used: "auto" (where the model offers them), "require"
                or "never".
            min_choice_mass: Smallest probability, in [0, 1], that the model must put on the choices together; below
                it "auto" reads the text, and "require" counts the reply as unreadable.
            on_unreadable: "raise" an error at a reply without a verdict, or "mask" the pair.
            max_length: Longest question in tokens; the model's own limit, where that is known, when None.
            on_long: What is done with a longer one: the "middle" of its longest texts is cut out, or an "error".
            version: Part of `identity`: change it when a served model changes under the same name.
            name: What reports call the judge.

        Raises:
            JudgeError: If a value cannot be.
        """
        check_settings(
            logprobs=logprobs,
            min_choice_mass=min_choice_mass,
            on_unreadable=on_unreadable,
            max_length=max_length,
            on_long=on_long,
        )
        self.backend = backend
        self.template = load_template(template)
        if self.template.verdict_marker is not None:
            if logprobs == "require":
                raise JudgeError(
                    f"logprobs = 'require', but template {self.template.name!r} lets the model reason before its "
                    "verdict, which is then read from the text; use logprobs='auto' or leave out verdict_marker"
                )
            logprobs = "never"
        self.defence = defence
        self.logprobs: LogprobsUse = logprobs
        self.min_choice_mass = min_choice_mass
        self.on_unreadable = on_unreadable
        self.max_length = max_length
        self.on_long = on_long
        self.version = version
        self.name = name or f"llm:{backend.model}"
        self._control_tokens = backend.control_tokens() if defence else ()

    @property
    def may_abstain(self) -> bool:  # type: ignore[override]
        """Whether a pair is masked when the reply to it cannot be read."""
        return self.on_unreadable == "mask"

    @property
    def calls_at_once(self) -> int:  # type: ignore[override]
        """As many as the model gains by."""
        return self.backend.calls_at_once

    def leaves_free(self, device: str) -> bool:
        """Whether the model runs elsewhere."""
        return self.backend.leaves_free(device)

    def with_defence(self, defence: bool) -> "LanguageModelJudge":
        """Return the same judge, on the same model, with the defence on or off."""
        return LanguageModelJudge(
            self.backend,
            self.template,
            defence=defence,
            logprobs=self.logprobs,
            min_choice_mass=self.min_choice_mass,
            on_unreadable="mask" if self.on_unreadable == "mask" else "raise",
            max_length=self.max_length,
            on_long="error" if self.on_long == "error" else "middle",
            version=self.version,
            name=self.name,
        )

    def question(self, prompt: Prompt, first: str, second: str) -> list[Message]:
        """The chat turns that ask about one pair.

        Args:
            prompt: Text or chat turns.
            first: A response.
            second: Another.

        Returns:
            A system turn, where the template has one, and a user turn.

        Raises:
            JudgeError: If the question is too long and may not be cut, or cannot be cut short enough.
        """
        return self._question(prompt, first, second)[0]

    def _question(self, prompt: Prompt, first: str, second: str) -> tuple[list[Message], bool]:
        """The question, and whether something was cut out of it."""
        from magnetar.data.prompts import prompt_text

        texts = [_encodable(text) for text in (prompt_text(prompt), first, second)]
        if self.defence:
            texts = [neutralise(text, self._control_tokens) for text in texts]
        question = self._render(texts)
        limit = self.max_length or self.backend.longest_input()
        # A token has at least one byte, so that most questions need not be counted.
        if limit is None or sum(len(turn["content"].encode()) + 64 for turn in question) <= limit:
            return question, False
        asked = self.backend.count_question(question)
        if asked <= limit:
            return question, False
        if self.on_long == "error":
            raise JudgeError(
                f"judge {self.name!r}: a question has {asked} tokens, expected at most {limit}; raise max_length, or "
                f"use on_long='middle' to cut the middle of long texts; {describe_pair(prompt, first, second)}"
            )
        lengths = [self.backend.count_tokens(text) for text in texts]
        budget = limit - self.backend.count_question(self._render(["", "", ""]))
        for _ in range(FIT_ATTEMPTS):
            if budget <= 0:
                break
            share = shared_limit(lengths, budget)
            question = self._render([cut_middle(text, share, self.backend.count_tokens) for text in texts])
            excess = self.backend.count_question(question) - limit
            if excess <= 0:
                return question, True
            # At least one token less of each text that is cut, or rounding might leave all as they are.
            budget = min(budget - excess, sum(min(length, share - 1) for length in lengths))
        raise JudgeError(
            f"judge {self.name!r}: max_length = {limit} tokens leaves no room for the texts beside the question of "
            f"template {self.template.name!r}; raise max_length or shorten the template"
        )

    def _render(self, texts: Sequence[str]) -> list[Message]:
        prompt, first, second = texts
        template = self.template
        if not self.defence:
            return _turns(template.system, template.user.format(prompt=prompt, first=first, second=second))
        number = marker_number((*texts, template.user, template.system))
        user = template.user.format(
            prompt=delimit(prompt, "CONVERSATION", number),
            first=delimit(first, f"RESPONSE {template.choices.first}", number),
            second=delimit(second, f"RESPONSE {template.choices.second}", number),
        )
        return _turns(f"{template.system}\n\n{RULE}".strip(), f"{STATED.format(number=number)}\n\n{user}")

    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> FloatArray:
        return collect(self._iter_pair_win_prob(prompts, first, second), len(prompts))

    def _iter_pair_win_prob(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
    ) -> Iterator[tuple[IndexArray, FloatArray]]:
        asked = [at for at in range(len(prompts)) if first[at] != second[at]]
        if len(asked) < len(prompts):
            equal = np.setdiff1d(np.arange(len(prompts)), asked)
            yield equal, np.full(len(equal), 0.5)
        if not asked:
            return
        # All of them first: a question that is too long is known before anything is spent.
        questions = []
        for at in asked:
            question, cut = self._question(prompts[at], first[at], second[at])
            questions.append(question)
            self._count("truncated", float(cut))
        self._count("questions", len(questions))
        asking = Asking(self.template.choices, self.logprobs, self.template.max_new_tokens, self._count)
        since, unreadable = time.monotonic(), None
        try:
            for position, reply in self.backend.replies(questions, asking):
                at = asked[position]
                try:
                    answer = self._read(reply, prompts[at], first[at], second[at])
                except JudgeError as error:
                    # Replies that are there or under way are paid for, and are handed on before the error.
                    unreadable = unreadable or error
                    asking.enough.set()
                    continue
                yield np.array([at]), np.array([answer])
        finally:
            self._count("seconds", time.monotonic() - since)
        if unreadable is not None:
            raise unreadable

    def _read(self, reply: Reply, prompt: Prompt, first: str, second: str) -> float:
        """The win probability in a reply; NaN where it is masked."""
        verdict = self._verdict(reply)
        if verdict.choice_mass is not None:
            self._count("choice_mass", verdict.choice_mass)
            self._count("choice_masses", 1)
        if verdict.win_prob is not None:
            return verdict.win_prob
        self._count("unreadable", 1)
        if self.on_unreadable == "mask":
            return float("nan")
        raise JudgeError(
            f"judge {self.name!r} gave no verdict: {verdict.problem}; on_unreadable='mask' leaves such pairs out; "
            f"{describe_pair(prompt, first, second)}"
        )

    def _verdict(self, reply: Reply) -> Verdict:
        if reply.problem:
            return Verdict(None, reply.problem)
        probable = None
        if reply.logprobs is not None and self.logprobs != "never":
            probable = verdict_of_logprobs(reply.logprobs, self.template.choices, self.min_choice_mass)
            # Numbers that are no probabilities are a fault of the server, which its text cannot mend.
            if probable.win_prob is not None or self.logprobs == "require" or probable.choice_mass is None:
                return probable
            if not reply.text or reply.text.strip().startswith(self.template.choices.words):
                # Its first token is a choice, and the model hardly meant it; only "**A**" and the like are read on.
                return probable
        written = verdict_of_text(reply.text, self.template)
        if written.win_prob is None:
            return written if probable is None else Verdict(None, f"{probable.problem}; {written.problem}")
        self._count("text_answers", 1)
        return written

    def _identity(self) -> Mapping[str, Any]:
        return {
            "reading": READING_VERSION,
            "backend": dict(self.backend.identity()),
            "template": self.template.identity(),
            # The whole wording, so that a change of the defence is a change of the judge.
            "question": self._render(["1", "2", "3"]),
            "defence": self.defence,
            "logprobs": self.logprobs,
            "min_choice_mass": self.min_choice_mass,
            "max_length": self.max_length,
            "on_long": self.on_long,
            "version": self.version,
        }

    def _summary(self, counters: dict[str, float]) -> dict[str, float]:
        truncated, questions = counters.pop("truncated", 0.0), counters.pop("questions", 0.0)
        mass, masses = counters.pop("choice_mass", 0.0), counters.pop("choice_masses", 0.0)
        if questions:
            counters["truncated_share"] = truncated / questions
        if masses:
            counters["choice_mass_mean"] = mass / masses
        return counters


def check_settings(
    *,
    logprobs: object = "auto",
    min_choice_mass: object = 0.1,
    on_unreadable: object = "raise",
    max_length: object = None,
    on_long: object = "middle",
) -> None:
    """Raise a `JudgeError` unless the settings of a `LanguageModelJudge` are what they may be."""
    check_logprobs_use(logprobs)
    if isinstance(min_choice_mass, bool) or not isinstance(min_choice_mass, int | float):
        raise JudgeError(f"min_choice_mass = {min_choice_mass!r}, expected a number in [0, 1]")
    if not 0.0 <= min_choice_mass <= 1.0:
        raise JudgeError(f"min_choice_mass = {min_choice_mass}, expected a probability in [0, 1]")
    if on_unreadable not in ("raise", "mask"):
        raise JudgeError(f"on_unreadable = {on_unreadable!r}, expected 'raise' or 'mask'")
    if on_long not in ("middle", "error"):
        raise JudgeError(f"on_long = {on_long!r}, expected 'middle' or 'error'")
    if max_length is not None and (isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 1):
        raise JudgeError(f"max_length = {max_length!r}, expected a number of tokens, at least 1")


def _turns(system: str, user: str) -> list[Message]:
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": user}]


def _encodable(text: str) -> str:
    """The text without lone surrogates, which neither JSON nor a tokenizer can take."""
    return text.encode("utf-8", "replace").decode("utf-8") if not text.isascii() else text
