"""A panel of any judges: their mean, their majority, or one of them drawn for each prompt."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from magnetar.errors import JudgeError, checked_integer, unknown_name
from magnetar.judges.base import Judge, fill_group
from magnetar.judges.checks import FloatArray, Groups, IndexArray
from magnetar.judges.cycles import cyclic_triples
from magnetar.judges.wrappers.keys import canonical_prompt
from magnetar.judges.wrappers.relay import gather
from magnetar.types import Prompt

__all__ = ["ON_ABSTAIN", "RULES", "CombinedJudge", "check_combination"]

RULES = ("mean", "majority", "draw")
ON_ABSTAIN = ("mask", "skip")
TIE = 1e-6
"""Win probabilities nearer to 1/2 than this are ties: a judge may compute in float32."""


class CombinedJudge(Judge):
    r"""Several judges as one.

    With weights that sum to one, the win probability is

    - ``mean``: ``Σ w_m P_m(i beats j)``, a mixture of annotators who are each asked about every pair;
    - ``majority``: ``Σ w_m [P_m(i beats j) > 1/2]``, ties half: the share of judges that prefer i, which may run in
      circles even where each judge is transitive (Condorcet's paradox);
    - ``draw``: ``P_m(i beats j)`` of the one judge m that the prompt is given to, drawn with the weights by a hash of
      seed and prompt. Its mean over prompts is that of ``mean``, at the cost of one judge. The same prompt goes to the
      same judge in every group, process and run.

    A group is given to each judge as a group. `stats` has each judge's own counters under its name and a slash;
    `disagreement`, the mean of ``|P_a − P_b|`` over pairs of responses and of judges; `split_share`, the share of pairs
    about which two judges prefer different responses; and, over the groups asked, `cyclic_share` of the combination and
    of each judge. With ``draw`` no two judges see the same pair, so there is no disagreement to be measured.
    """

    def __init__(
        self,
        judges: Sequence[Judge] | Mapping[str, Judge],
        *,
        rule: str = "mean",
        weights: Sequence[float] | Mapping[str, float] | None = None,
        seed: int = 0,
        on_abstain: str = "mask",
        name: str = "panel",
    ) -> None:
        """Combine judges.

        Args:
            judges: One or more judges, or judges by the names that `stats` shall use.
            rule: "mean", "majority" or "draw".
            weights: A positive number for each judge, in the same order or by name, normalised here; equal when None.
            seed: For "draw": another seed, another assignment of prompts to judges.
            on_abstain: What becomes of a pair that a judge leaves unanswered: "mask" leaves it unanswered; "skip" lets
                the others decide it, with "draw" the one who would have been drawn next.
            name: What reports call the panel.

        Raises:
            JudgeError: If there is no judge, or a setting cannot be.
        """
        self.judges = _named(judges)
        self.weights_M = check_combination(list(self.judges), rule, weights, seed, on_abstain)
        self.rule = rule
        self.seed = seed
        self.on_abstain = on_abstain
        self.name = name
        self.may_abstain = any(judge.may_abstain for judge in self.judges.values())

    def with_judges(self, judges: Mapping[str, Judge]) -> "CombinedJudge":
        """The same combination of other judges, for instance of these with something around them.

        Args:
            judges: As many judges, in the same order.

        Returns:
            A new panel.
        """
        return CombinedJudge(
            judges,
            rule=self.rule,
            weights=self.weights_M.tolist(),
            seed=self.seed,
            on_abstain=self.on_abstain,
            name=self.name,
        )

    @property
    def calls_at_once(self) -> int:  # type: ignore[override]
        """As many as each judge may be asked at once."""
        return min(judge.calls_at_once for judge in self.judges.values())

    def leaves_free(self, device: str) -> bool:
        """Whether all judges do."""
        return all(judge.leaves_free(device) for judge in self.judges.values())

    def member_of(self, prompts: Sequence[Prompt]) -> list[list[str]]:
        """Whom the rule "draw" gives each prompt to: all judges by name, the drawn one first, then who comes next.

        Args:
            prompts: B prompts.

        Returns:
            B orders of all judges' names.
        """
        names = list(self.judges)
        return [[names[m] for m in order] for order in self._orders_BM(prompts)]

    def _identity(self) -> Mapping[str, Any]:
        return {
            "rule": self.rule,
            "weights": self.weights_M.tolist(),
            "seed": self.seed if self.rule == "draw" else None,
            "on_abstain": self.on_abstain,
            "judges": [judge.identity() for judge in self.judges.values()],
        }

    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> FloatArray:
        return gather(self._iter_pair_win_prob(prompts, first, second), len(prompts), self.name)

    def _iter_pair_win_prob(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
    ) -> Iterator[tuple[IndexArray, FloatArray]]:
        def ask(judge: Judge, index: IndexArray) -> Iterator[tuple[IndexArray, FloatArray]]:
            at: list[int] = index.tolist()
            return judge.iter_pair_win_prob([prompts[n] for n in at], [first[n] for n in at], [second[n] for n in at])

        if self.rule == "draw":
            yield from self._drawn(ask, prompts)
            return
        everything = np.arange(len(prompts))
        *others, last = self.judges.values()
        answers_MN = np.full((len(self.judges), len(prompts)), np.nan)
        for m, judge in enumerate(others):
            answers_MN[m] = gather(ask(judge, everything), len(prompts), judge.name)
        # A pair is finished as soon as the last judge has answered it.
        for index, part in ask(last, everything):
            answers_MN[-1, index] = part
            self._observe(answers_MN[:, index])
            yield index, self._combined(answers_MN[:, index])

    def _group_win_prob(self, prompts: Sequence[Prompt], responses: Groups) -> FloatArray:
        def ask(judge: Judge, index: IndexArray) -> FloatArray:
            at: list[int] = index.tolist()
            return judge.group_win_prob([prompts[b] for b in at], [responses[b] for b in at])

        rows, columns = np.triu_indices(len(responses[0]), k=1)
        if self.rule == "draw":
            win_prob = gather(self._drawn(_at_once(ask), prompts), len(prompts), self.name)
        else:
            answers_MBGG = np.stack([ask(judge, np.arange(len(prompts))) for judge in self.judges.values()])
            self._observe(answers_MBGG[:, :, rows, columns])
            for name, answer in zip(self.judges, answers_MBGG, strict=True):
                self._count_cycles(f"{name}/", answer)
            # From one half to the other, so that P + Pᵀ = 1 holds to the last digit.
            win_prob = fill_group(self._combined(answers_MBGG[:, :, rows, columns]), rows, columns)
        self._count_cycles("", win_prob)
        return win_prob

    def _cross_win_prob(self, prompts: Sequence[Prompt], responses: Groups, opponents: Groups) -> FloatArray:
        def ask(judge: Judge, index: IndexArray) -> FloatArray:
            at: list[int] = index.tolist()
            mine, theirs = [responses[b] for b in at], [opponents[b] for b in at]
            return judge.cross_win_prob([prompts[b] for b in at], mine, theirs)

        if self.rule == "draw":
            return gather(self._drawn(_at_once(ask), prompts), len(prompts), self.name)
        answers_MBGH = np.stack([ask(judge, np.arange(len(prompts))) for judge in self.judges.values()])
        self._observe(answers_MBGH)
        return self._combined(answers_MBGH)

    def _combined(self, answers_M: FloatArray) -> FloatArray:
        """Combine answers, shape (M, ...) to (...)."""
        shares = answers_M if self.rule == "mean" else _votes(answers_M)
        weights = self.weights_M.reshape(-1, *[1] * (answers_M.ndim - 1))
        if self.on_abstain == "skip":
            given = np.where(np.isnan(shares), 0.0, weights)
            with np.errstate(invalid="ignore"):  # 0 / 0 where nobody answered: NaN, as it should be
                combined = (given * np.nan_to_num(shares)).sum(0) / given.sum(0)
        else:
            combined = (weights * shares).sum(0)
        return np.clip(combined, 0.0, 1.0)  # weights sum to one but for the last digit

    def _drawn(
        self, ask: Callable[[Judge, IndexArray], Iterator[tuple[IndexArray, FloatArray]]], prompts: Sequence[Prompt]
    ) -> Iterator[tuple[IndexArray, FloatArray]]:
        """Give each prompt to its judge, and what that one leaves open to the next if so configured."""
        orders_BM = self._orders_BM(prompts)
        pending = np.arange(len(prompts))
        kept: dict[int, FloatArray] = {}
        for rank in range(orders_BM.shape[1]):
            left: list[int] = []
            final = self.on_abstain == "mask" or rank == orders_BM.shape[1] - 1
            for m, judge in enumerate(self.judges.values()):
                mine = pending[orders_BM[pending, rank] == m]
                for index, answers in ask(judge, mine) if len(mine) else ():
                    places = mine[index]
                    answers = np.array(
                        [_filled(kept.get(int(b)), answer) for b, answer in zip(places, answers, strict=True)]
                    )
                    open_ = np.isnan(answers.reshape(len(places), -1)).any(axis=1) & (not final)
                    kept.update(zip(places[open_].tolist(), answers[open_], strict=True))
                    left += places[open_].tolist()
                    if not open_.all():
                        yield places[~open_], answers[~open_]
            pending = np.array(sorted(left), dtype=np.intp)
            if not len(pending):
                return

    def _orders_BM(self, prompts: Sequence[Prompt]) -> IndexArray:
        """An order of the judges for each prompt, in which judge m comes first with probability w_m.

        Each judge runs a race against the others, with a time drawn from the exponential distribution of rate w_m.
        """
        begun = [blake2b(f"{self.seed} {m} ".encode(), digest_size=8) for m in range(len(self.judges))]
        times_BM = np.empty((len(prompts), len(begun)))
        for b, prompt in enumerate(prompts):
            text = canonical_prompt(prompt).encode("utf-8", "surrogatepass")
            for m, start in enumerate(begun):
                digest = start.copy()
                digest.update(text)
                times_BM[b, m] = -np.log((int.from_bytes(digest.digest(), "little") + 0.5) / 2.0**64)
        return np.argsort(times_BM / self.weights_M, axis=1, kind="stable")

    def _observe(self, answers_M: FloatArray) -> None:
        """Count how far the judges are from each other; shape (M, ...), one entry for each pair of responses."""
        flat_MN = answers_M.reshape(len(answers_M), -1)
        for a in range(len(flat_MN)):
            apart = np.abs(flat_MN[a] - flat_MN[a + 1 :])
            self._count("apart", float(np.nansum(apart)))
            self._count("compared", float(np.sum(~np.isnan(apart))))
        self._count("split", float(np.sum((flat_MN > 0.5 + TIE).any(0) & (flat_MN < 0.5 - TIE).any(0))))
        self._count("judged", float(np.sum((~np.isnan(flat_MN)).sum(0) > 1)))

    def _count_cycles(self, whose: str, win_prob_BGG: FloatArray) -> None:
        cyclic, triples = cyclic_triples(win_prob_BGG)
        self._count(f"{whose}cyclic", cyclic)
        self._count(f"{whose}triples", triples)

    def _summary(self, counters: dict[str, float]) -> dict[str, float]:
        raw = dict(counters)
        for counter in [name for name in raw if name.rpartition("/")[2] in _RAW]:
            del counters[counter]
        shares = {"disagreement": ("apart", "compared"), "split_share": ("split", "judged")}
        shares |= {
            f"{whose}cyclic_share": (f"{whose}cyclic", f"{whose}triples")
            for whose in ["", *(f"{name}/" for name in self.judges)]
        }
        counters |= {share: raw[part] / raw[whole] for share, (part, whole) in shares.items() if raw.get(whole)}
        for name, judge in self.judges.items():
            counters |= {f"{name}/{counter}": value for counter, value in judge.stats().items()}
        return counters


_RAW = frozenset({"apart", "compared", "split", "judged", "cyclic", "triples"})


def check_combination(
    names: Sequence[str],
    rule: str,
    weights: Sequence[float] | Mapping[str, float] | None,
    seed: int,
    on_abstain: str,
) -> FloatArray:
    """Check the settings of a combination.

    Args:
        names: M names of judges.
        rule: See `CombinedJudge`.
        weights: See `CombinedJudge`.
        seed: See `CombinedJudge`.
        on_abstain: See `CombinedJudge`.

    Returns:
        The weights, shape (M,), positive, sum one.

    Raises:
        JudgeError: If one of them cannot be.
    """
    if not names:
        raise JudgeError("a panel of no judges cannot judge; give at least one")
    if rule not in RULES:
        raise JudgeError(unknown_name("rule of a panel", str(rule), RULES))
    if on_abstain not in ON_ABSTAIN:
        raise JudgeError(unknown_name("on_abstain of a panel", str(on_abstain), ON_ABSTAIN))
    checked_integer("seed", seed, 0, JudgeError)
    if weights is None:
        return np.full(len(names), 1.0 / len(names))
    if isinstance(weights, Mapping):
        if set(weights) != set(names):
            raise JudgeError(f"weights name {sorted(weights)}, expected one weight for each of {sorted(names)}")
        weights = [weights[name] for name in names]
    if isinstance(weights, str) or not isinstance(weights, Sequence | np.ndarray) or len(weights) != len(names):
        raise JudgeError(f"weights = {weights!r}, expected {len(names)} positive numbers, one for each judge")
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0.0 < weight < float("inf"):
            raise JudgeError(
                f"weights = {list(weights)!r}: {weight!r} is not a positive number; leave a judge out instead"
            )
    values = np.array(weights, dtype=np.float64)
    return values / values.sum()


def _named(judges: Sequence[Judge] | Mapping[str, Judge]) -> dict[str, Judge]:
    """Judges by name; equal names are numbered."""
    if isinstance(judges, Mapping):
        return dict(judges)
    named: dict[str, Judge] = {}
    for judge in judges:
        name, number = judge.name, 1
        while name in named:
            number += 1
            name = f"{judge.name} ({number})"
        named[name] = judge
    return named


def _votes(answers: FloatArray) -> FloatArray:
    """1 for a win, 0 for a loss, 1/2 for a tie, NaN where nothing was answered."""
    margin = answers - 0.5
    return 0.5 + 0.5 * np.sign(np.where(np.abs(margin) < TIE, 0.0, margin))


def _at_once(
    ask: Callable[[Judge, IndexArray], FloatArray],
) -> Callable[[Judge, IndexArray], Iterator[tuple[IndexArray, FloatArray]]]:
    return lambda judge, index: iter([(np.arange(len(index)), ask(judge, index))])


def _filled(before: FloatArray | None, answer: FloatArray) -> FloatArray:
    """What an earlier judge answered, and this one's answer where that was nothing."""
    return answer if before is None else np.where(np.isnan(before), answer, before)
