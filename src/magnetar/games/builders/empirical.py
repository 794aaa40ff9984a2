"""Empirical games: real models as actions, win probabilities estimated from judged pairs of their responses."""

import gzip
import json
import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from magnetar.errors import GameError, unknown_name
from magnetar.games.checks import check_between, check_choice, check_count, sigmoid
from magnetar.games.game import PreferenceGame

__all__ = ["COLUMNS", "PAIR_SUFFIXES", "EmpiricalEstimate", "empirical_estimate", "empirical_game"]

FloatArray = NDArray[np.float64]

PAIR_SUFFIXES = (".jsonl", ".jsonl.gz")
"""Forms of a file that holds judged pairs."""

COLUMNS = ("prompt", "generator_1", "generator_2", "win_prob_1")
"""Columns that every judged pair must have."""


@dataclass(frozen=True, eq=False)
class EmpiricalEstimate:
    """An empirical game, with what its win probabilities rest on.

    Attributes:
        game: The game; its actions are the names of the models.
        prompts: Number of prompts behind each pair, shape (A, A), symmetric; zero on the diagonal.
        direct_prompts: How many of them compared the two models with each other, shape (A, A).
        standard_error: Standard error of each win probability over prompts, shape (A, A); zero on the diagonal. It
            covers the choice of prompts, not errors of the judge or of the estimate within a prompt.
        dropped: Models left out because pairs of theirs had too few prompts, in the order of leaving.
        self_comparisons: Number of rows that compare a model with itself; they say nothing about two models.
    """

    game: PreferenceGame
    prompts: NDArray[np.int64]
    direct_prompts: NDArray[np.int64]
    standard_error: FloatArray
    dropped: tuple[str, ...]
    self_comparisons: int


@dataclass
class _Prompt:
    """Judgements on one prompt.

    ``direct[a, b]`` holds P(a beats b) as judged with a shown first. ``against[opponent]`` holds, for each model, its
    log-odds against one and the same answer shown in one and the same place.
    """

    direct: dict[tuple[int, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    against: dict[tuple[int, str, int], dict[int, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )


def empirical_game(
    pairs: str | Path | Iterable[Mapping[str, Any]],
    minimum_prompts: int = 10,
    models: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] = (),
    clip: float = 0.01,
    incomplete: Literal["error", "drop"] = "error",
    name: str | None = None,
) -> PreferenceGame:
    """Game among real models, from judged pairs of their responses.

    `empirical_estimate` says how, and returns the counts and standard errors too.

    Args:
        pairs: A .jsonl or .jsonl.gz file, or rows, of judged pairs.
        minimum_prompts: See `empirical_estimate`.
        models: See `empirical_estimate`.
        exclude: See `empirical_estimate`.
        clip: See `empirical_estimate`.
        incomplete: See `empirical_estimate`.
        name: Name of the game.

    Returns:
        The game; its actions are the names of the models.

    Raises:
        GameError: As `empirical_estimate`.
    """
    return empirical_estimate(pairs, minimum_prompts, models, exclude, clip, incomplete, name).game


def empirical_estimate(
    pairs: str | Path | Iterable[Mapping[str, Any]],
    minimum_prompts: int = 10,
    models: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] = (),
    clip: float = 0.01,
    incomplete: Literal["error", "drop"] = "error",
    name: str | None = None,
) -> EmpiricalEstimate:
    r"""Estimate the game among real models from judged pairs of their responses.

    ``P_ab = mean over prompts x of P̂_x(a ≻ b)``, over the prompts where it can be had:

    - where a and b were compared on x: the mean of the judgements, each order of showing them counting alike;
    - else where both were compared with one and the same answer of a third model c, shown in the same place:
      ``P̂_x(a ≻ b) = σ(ℓ_ac − ℓ_bc)`` with the log-odds ``ℓ_ac = logit P_x(a ≻ c)``, averaged over such answers.

    The second assumes a Bradley–Terry order *within one prompt only*; what a judge adds to the log-odds for the place
    of an answer cancels. Prompts are averaged as probabilities, so each prompt is an annotator with an order of its
    own, and the whole may be intransitive. What the second cannot see: on prompts where c's answer beats both by more
    than ``clip`` lets through, a and b count as a tie. A pair judged in one order only keeps the judge's favour for a
    place. Pairs rest on different prompts where models answered different ones; see the standard errors.

    Args:
        pairs: A .jsonl or .jsonl.gz file, or rows. Columns: ``prompt`` (text or chat turns), ``generator_1`` and
            ``generator_2`` (names of the models), ``win_prob_1`` (P(the first response wins), in [0, 1]; 0.5 for a
            tie); ``response_1`` and ``response_2`` (text, optional) tell different answers of a model apart.
        minimum_prompts: Fewest prompts that a pair may rest on, at least 2.
        models: Models that become actions, in this order, as a list or joined by "+"; None takes all, in the order in
            which they appear. The others still serve as third models.
        exclude: Models that do not become actions, as a list or joined by "+".
        clip: Judgements outside ``[clip, 1 − clip]`` are moved to its edge before log-odds are taken, in (0, 1/2). A
            judge's certainty is often exactly 0 or 1, and how many nines it has means little.
        incomplete: What to do where pairs rest on too few prompts: "error", or "drop" the models in most such pairs
            until none is left.
        name: Name of the game; the file's name by default.

    Returns:
        The game with counts and standard errors.

    Raises:
        GameError: A file that cannot be read, a row with missing or wrong columns, models that do not occur, pairs with
            too few prompts, or a setting outside its range.
    """
    check_count("minimum_prompts", minimum_prompts, least=2, most=2**31)
    if not check_between("clip", clip, 0.0, 0.5) * (0.5 - clip) > 0:
        raise GameError(f"clip is {clip}, expected a number strictly between 0 and 0.5, such as 0.01")
    check_choice("incomplete", incomplete, ("error", "drop"))
    source = _source_name(pairs)
    names, prompts, own = _collect(_rows(pairs), source, clip)
    total, square, count, direct = _sums(prompts, len(names))
    keep = _chosen(models, exclude, names, source)
    dropped: list[str] = []
    short = _too_few(count, keep, minimum_prompts)
    while incomplete == "drop" and short.any():
        dropped.append(names[keep.pop(int(short.sum(axis=0).argmax()))])
        short = _too_few(count, keep, minimum_prompts)
    if len(keep) < 2:
        raise GameError(f"{source}: fewer than two models with {minimum_prompts} prompts a pair; lower minimum_prompts")
    if short.any():
        raise GameError(_too_few_message(source, count, keep, names, short, minimum_prompts))
    at = np.ix_(keep, keep)
    np.fill_diagonal(count, 1)
    mean = total[at] / count[at]
    np.fill_diagonal(mean, 0.5)
    # Unbiased variance over prompts, divided by their number; on the diagonal there is nothing to estimate.
    variance = np.maximum(square[at] / count[at] - mean**2, 0.0) / np.maximum(count[at] - 1, 1)
    np.fill_diagonal(variance, 0.0)
    np.fill_diagonal(count, 0)
    title = name or (Path(source).name.split(".")[0] if isinstance(pairs, str | os.PathLike) else "empirical_game")
    game = PreferenceGame(mean, actions=[names[i] for i in keep], name=title)
    return EmpiricalEstimate(game, count[at], direct[at], np.sqrt(variance), tuple(dropped), own)


def _source_name(pairs: object) -> str:
    return os.fspath(pairs) if isinstance(pairs, str | os.PathLike) else "the given rows"


def _rows(pairs: str | Path | Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    if not isinstance(pairs, str | os.PathLike):
        if isinstance(pairs, Mapping) or not isinstance(pairs, Iterable):
            raise GameError(f"pairs are a {type(pairs).__name__}, expected a file or rows (one mapping each)")
        yield from pairs
        return
    path = Path(pairs).expanduser()
    if not path.name.lower().endswith(PAIR_SUFFIXES):
        raise GameError(f"{path}: suffix {path.suffix!r}, expected one of {', '.join(PAIR_SUFFIXES)}")
    try:
        with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _parsed_line(path, number, line)
    except FileNotFoundError as error:
        raise GameError(f"{path}: no such file; expected judged pairs in {', '.join(PAIR_SUFFIXES)} form") from error
    except EOFError as error:
        raise GameError(f"{path}: the file is truncated ({error}); copy or download it again") from error
    except (OSError, zlib.error, UnicodeDecodeError) as error:
        raise GameError(
            f"{path}: cannot be read ({error}); expected JSON Lines, gzipped where it ends in .gz"
        ) from error


def _parsed_line(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise GameError(f"{path}: line {number} is not a JSON object ({error}); is the file truncated?") from error


def _collect(rows: Iterable[Mapping[str, Any]], source: str, clip: float) -> tuple[list[str], list[_Prompt], int]:
    """Models in the order of their appearance, the judgements by prompt, and the number of rows passed over."""
    names: dict[str, int] = {}
    own = 0
    prompts: dict[str, _Prompt] = defaultdict(_Prompt)
    for number, row in enumerate(rows, 1):
        win = _checked_row(row, f"{source}: row {number}")
        if row["generator_1"] == row["generator_2"]:
            own += 1
            continue
        first, second = (names.setdefault(row[column], len(names)) for column in ("generator_1", "generator_2"))
        prompt = prompts[json.dumps(row["prompt"], sort_keys=True, default=str)]
        prompt.direct[first, second].append(win)
        inside = min(max(win, clip), 1.0 - clip)
        log_odds = float(np.log(inside) - np.log1p(-inside))
        prompt.against[first, str(row.get("response_1")), 1][second].append(-log_odds)
        prompt.against[second, str(row.get("response_2")), 2][first].append(log_odds)
    if not prompts:
        raise GameError(f"{source}: no row compares two models, expected judged pairs with {', '.join(COLUMNS)}")
    return list(names), list(prompts.values()), own


def _checked_row(row: Any, where: str) -> float:
    """P(the first response wins), once the row's columns are what they should be."""
    if not isinstance(row, Mapping):
        raise GameError(f"{where} is a {type(row).__name__}, expected an object with {', '.join(COLUMNS)}")
    for column in COLUMNS:
        if column not in row:
            nearest = get_close_matches(column, map(str, row), n=1, cutoff=0.6)
            hint = f"; rename {nearest[0]!r}?" if nearest else ""
            raise GameError(f"{where} has no column {column!r} but {', '.join(map(str, row))}{hint}")
    for column in ("generator_1", "generator_2"):
        if not isinstance(row[column], str) or not row[column]:
            raise GameError(f"{where}: {column} is {row[column]!r}, expected the name of a model")
    win = row["win_prob_1"]
    number = isinstance(win, int | float | np.number) and not isinstance(win, bool)
    if not (number and 0.0 <= win <= 1.0):
        raise GameError(f"{where}: win_prob_1 is {win!r}, expected a number in [0, 1]: P(the first response wins)")
    return float(win)


def _sums(prompts: list[_Prompt], models: int) -> tuple[FloatArray, FloatArray, NDArray[np.int64], NDArray[np.int64]]:
    """Sum and sum of squares of the per-prompt win probabilities, prompts and direct prompts, each (A, A)."""
    total, square = np.zeros((models, models)), np.zeros((models, models))
    count, direct = np.zeros((models, models), dtype=np.int64), np.zeros((models, models), dtype=np.int64)
    for prompt in prompts:
        win_prob = _through_third_answers(prompt, models)
        for first, second in {(min(pair), max(pair)) for pair in prompt.direct}:
            orders = [float(np.mean(wins)) for wins in [prompt.direct.get((first, second))] if wins]
            orders += [1.0 - float(np.mean(wins)) for wins in [prompt.direct.get((second, first))] if wins]
            win_prob[first, second] = np.mean(orders)
            win_prob[second, first] = 1.0 - win_prob[first, second]
            direct[first, second] += 1
            direct[second, first] += 1
        known = ~np.isnan(win_prob)
        count += known
        total[known] += win_prob[known]
        square[known] += win_prob[known] ** 2
    return total, square, count, direct


def _through_third_answers(prompt: _Prompt, models: int) -> FloatArray:
    """``σ(ℓ_ac − ℓ_bc)`` for one prompt, shape (A, A); NaN where no answer was compared with both."""
    difference, answers = np.zeros((models, models)), np.zeros((models, models))
    for log_odds in prompt.against.values():
        if len(log_odds) > 1:
            members = np.array(list(log_odds))
            value = np.array([np.mean(values) for values in log_odds.values()])
            difference[np.ix_(members, members)] += value[:, None] - value[None, :]
            answers[np.ix_(members, members)] += 1.0
    np.fill_diagonal(answers, 0.0)
    found = answers > 0
    return np.where(found, sigmoid(difference / np.where(found, answers, 1.0)), np.nan)


def _chosen(
    models: str | Sequence[str] | None, exclude: str | Sequence[str], names: list[str], source: str
) -> list[int]:
    """Places in ``names`` of the models that become actions."""
    wanted, unwanted = (
        [part.strip() for part in given.split("+")] if isinstance(given, str) else list(given)
        for given in (names if models is None else models, exclude)
    )
    for model in (*wanted, *unwanted):
        if model not in names:
            raise GameError(f"{source}: {unknown_name('model', str(model), names)}")
    if len(set(wanted)) < len(wanted):
        raise GameError(f"models are {wanted}, expected each name once")
    return [names.index(model) for model in wanted if model not in unwanted]


def _too_few(count: NDArray[np.int64], keep: list[int], minimum_prompts: int) -> NDArray[np.bool_]:
    short = count[np.ix_(keep, keep)] < minimum_prompts
    np.fill_diagonal(short, False)
    return short


def _too_few_message(
    source: str, count: NDArray[np.int64], keep: list[int], names: list[str], short: NDArray[np.bool_], minimum: int
) -> str:
    pairs = [(int(count[keep[i], keep[j]]), names[keep[i]], names[keep[j]]) for i, j in np.argwhere(np.triu(short))]
    fewest, first, second = min(pairs)
    return (
        f"{source}: {len(pairs)} pairs of models rest on fewer than {minimum} prompts, the fewest {first!r} and "
        f"{second!r} ({fewest}); lower minimum_prompts, name the models to keep, or use incomplete='drop'"
    )
