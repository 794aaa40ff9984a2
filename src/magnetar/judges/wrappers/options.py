"""The options that every kind of judge takes in a spec: what is put around it."""

from collections.abc import Mapping
from typing import Any

from magnetar.errors import JudgeError, checked_integer
from magnetar.judges.base import Judge
from magnetar.judges.combined import CombinedJudge
from magnetar.judges.wrappers.cache import Cached
from magnetar.judges.wrappers.flipped import Flipped, check_flips
from magnetar.judges.wrappers.pace import Batched, RateLimited, check_rate
from magnetar.judges.wrappers.paths import checked_file
from magnetar.judges.wrappers.record import Recorded
from magnetar.judges.wrappers.symmetrized import Symmetrized

__all__ = ["AROUND_OPTIONS", "WRAPPER_OPTIONS", "check_wrapper_options", "wrap"]

WRAPPER_OPTIONS = frozenset({"cache", "record", "requests_per_minute", "questions_per_call"})
"""What is put around each judge of a panel by itself."""

AROUND_OPTIONS = WRAPPER_OPTIONS | {"flip_share", "flip_seed"}
"""All options of what is put around a judge; those beyond `WRAPPER_OPTIONS` are put around a panel as a whole."""


def check_wrapper_options(judge: str, options: Mapping[str, Any]) -> None:
    """Check everything that opens no file.

    Args:
        judge: The judge as its spec names it, for messages.
        options: Some of `AROUND_OPTIONS`; None means not given.

    Raises:
        JudgeError: If a value cannot be.
    """
    try:
        for option in ("cache", "record"):
            if options.get(option) is not None:
                checked_file(option, options[option])
        if options.get("requests_per_minute") is not None:
            check_rate(options["requests_per_minute"])
        if options.get("questions_per_call") is not None:
            checked_integer("questions_per_call", options["questions_per_call"], 1, JudgeError)
        flip_share, flip_seed = options.get("flip_share"), options.get("flip_seed")
        if flip_share is not None:
            check_flips(flip_share, 0 if flip_seed is None else flip_seed)
        elif flip_seed is not None:
            raise JudgeError(f"flip_seed is {flip_seed!r}, but no pair is flipped; set flip_share, or leave it out")
    except JudgeError as error:
        raise JudgeError(f"judge {judge!r}: {error}") from error


def wrap(judge: Judge, options: Mapping[str, Any]) -> Judge:
    """Put around a judge what its options say.

    From the outside in: flips, both orders (where the judge is asked in both), record, cache, calls, rate, judge. So
    the true answers are kept, whatever is flipped; each order is kept and recorded by itself, the record holds what the
    cache answered too, and only what the cache lacks is cut into calls and limited. Around a panel of judges means
    around each of them, so that a panel of other weights, or one judge of it, finds the same answers; only flips are
    around the panel as a whole.

    Args:
        judge: A judge as its kind builds it.
        options: Some of `AROUND_OPTIONS`; None means not given.

    Returns:
        The judge, with whatever was asked for around it.

    Raises:
        JudgeError: If a file cannot be used, or the judge cannot tell its identity, which a cache needs.
    """
    given = {option: value for option, value in options.items() if value is not None}
    if not given:
        return judge
    if "flip_share" in given:
        share, seed = given.pop("flip_share"), given.pop("flip_seed", 0)
        return Flipped(wrap(judge, given), share, seed)
    if isinstance(judge, CombinedJudge):
        return judge.with_judges({name: wrap(member, given) for name, member in judge.judges.items()})
    symmetrized = isinstance(judge, Symmetrized)
    inner = judge.judge if isinstance(judge, Symmetrized) else judge
    size = given.get("questions_per_call")
    if "requests_per_minute" in given:
        inner = RateLimited(inner, given["requests_per_minute"], burst=size)  # a whole call passes at once
    if size is not None:
        inner = Batched(inner, size)
    if "cache" in given:
        inner = Cached(inner, given["cache"])
    if "record" in given:
        inner = Recorded(inner, given["record"], symmetrized=symmetrized)
    return Symmetrized(inner) if symmetrized else inner
