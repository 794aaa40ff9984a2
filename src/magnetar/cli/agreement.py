"""`magnetar agreement`: how far two judges, or a judge and labels, agree."""

import argparse
import sys
from pathlib import Path

from magnetar.cli.arguments import at_least, check_output, options_of, parse_known, share, write_json
from magnetar.errors import ConfigError, DataError

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Check everything that is cheap, ask both, print the figures, write the file asked for.

    Args:
        argv: Arguments after ``magnetar agreement``.

    Returns:
        Exit status.

    Raises:
        MagnetarError: Anything that the user can mend.
    """
    args = _parse(argv)
    if args.json is not None:
        check_output(args.json)

    from magnetar.cli.judge import telling_kept
    from magnetar.cli.judge_text import agreement_text
    from magnetar.cli.kept_answers import build_kept, cache_path
    from magnetar.evaluation import package_versions
    from magnetar.evaluation.judging import JudgedPairs, Resampling, ask_pairs, measure_agreement
    from magnetar.evaluation.judging.agreement import LABELS
    from magnetar.evaluation.judging.kept import kept_answers
    from magnetar.evaluation.judging.questions import GroupQuestions, read_questions
    from magnetar.judges import parse_judge_spec

    resampling = Resampling(args.bootstrap, args.confidence, args.seed)
    specs = [parse_judge_spec(text) for text in (args.judge, args.against) if text != LABELS]
    if args.judge == LABELS:
        raise ConfigError("--judge is 'labels', expected a judge; labels can only be what it is held --against")
    path = cache_path(args.cache, (args.json,), args.pairs)
    questions = read_questions(args.pairs, args.split).limited(args.limit, args.seed)
    if isinstance(questions, GroupQuestions):
        raise DataError(f"{args.pairs} holds groups of responses, expected pairs (prompt, first, second)")
    if questions.dropped:
        print(f"left out: {questions.dropped}", file=sys.stderr)
    if args.against == LABELS and questions.pairs.label_N is None:
        raise DataError(f"{args.pairs} has no labels; add a column win_prob, or name a second judge with --against")
    judged: list[JudgedPairs] = []
    done: list[str | None] = []
    judge, at = None, None

    def kept() -> str | None:
        now = None if judge is None or at is None else kept_answers(judge, at, questions)
        return ", ".join(filter(None, (*done, now))) or None

    with telling_kept(kept):
        for spec in specs:
            judge, at = build_kept(spec, path)
            judged.append(ask_pairs(judge, questions.pairs, progress=True))
            done.append(None if at is None else kept_answers(judge, at, questions))
            judge = None  # one model in memory at a time
    found = measure_agreement(judged[0], judged[1] if len(judged) > 1 else None, resampling=resampling)
    print(agreement_text(found))
    if args.json is not None:
        settings = {key: str(value) for key, value in vars(args).items() if key not in ("json", "cache") and value}
        write_json(args.json, {**found.to_dict(), "settings": settings, "versions": package_versions()})
        print(f"figures: {args.json}", file=sys.stderr)
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="magnetar agreement",
        description="Say how far two judges, or a judge and human labels, agree about the same pairs.",
        allow_abbrev=False,
    )
    option = options_of(parser)
    spec = "panel, reward:MODEL, pairwise:MODEL, llm:MODEL, ...; a mapping as JSON; or a YAML file"
    option("judge", spec, required=True, metavar="A")
    option("against", "'labels' (the default), or another judge", default="labels", metavar="B")
    option("pairs", "preference data: a file, a folder or a Hub id", required=True, metavar="FILE")
    option("split", "split of the data; the only one or 'train' if none")
    option("limit", "ask about this many rows, drawn with the seed", type=at_least(1), metavar="N")
    option("json", "write figures, settings and versions here", type=Path, metavar="FILE")
    option("cache", "keep answers in this file (default: beside --json, if given; 'none': nowhere)", metavar="FILE")
    option("seed", "seed of drawing and resampling (default 0)", type=at_least(0), default=0)
    option("bootstrap", "resamples of the intervals (default 2000)", type=at_least(100), default=2000)
    option("confidence", "coverage of the intervals (default 0.95)", type=share, default=0.95)
    return parse_known(parser, argv)
