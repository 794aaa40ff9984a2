"""`magnetar judge`: let a judge answer a file of pairs or groups, and measure it."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magnetar.cli.arguments import at_least, check_output, options_of, parse_known, share, write_json
from magnetar.errors import ConfigError, MagnetarError

if TYPE_CHECKING:
    from magnetar.evaluation.judging import JudgedPairs, JudgeEvaluation, Resampling
    from magnetar.evaluation.judging.questions import GroupQuestions, PairQuestions
    from magnetar.judges import Judge, JudgeSpec

__all__ = ["main", "telling_kept"]

OF_PAIRS = ("out", "html", "baseline", "split", "limit", "max_group", "disagreements", "seed", "bootstrap")
"""Options that say something about --pairs only."""


def main(argv: list[str]) -> int:
    """Check everything that is cheap, ask, print a summary, write the files asked for.

    Args:
        argv: Arguments after ``magnetar judge``.

    Returns:
        Exit status.

    Raises:
        MagnetarError: Anything that the user can mend.
    """
    args = _parse(argv)
    if args.pairs is None and not args.injections:
        raise ConfigError("nothing to ask; give --pairs FILE, or --injections to try the judge's defence")
    if args.out is not None and args.out.suffix.lower() != ".parquet" and not args.out.is_dir():
        raise ConfigError(
            f"--out is {str(args.out)!r}, expected a name that ends in .parquet, which is what is written"
        )
    outputs = (args.out, args.json, args.html)
    for path in outputs:
        if path is not None:
            check_output(path)
    if args.max_group == 1 or args.max_group == 2:
        raise ConfigError(f"max_group is {args.max_group}, expected at least 3 for a triple, or 0 to leave cycles out")

    from magnetar.cli.kept_answers import build_kept, cache_path
    from magnetar.evaluation.judging import Resampling
    from magnetar.evaluation.judging.kept import kept_answers
    from magnetar.evaluation.judging.questions import GroupQuestions, read_questions
    from magnetar.judges import parse_judge_spec

    resampling = Resampling(args.bootstrap, args.confidence, args.seed)
    spec = parse_judge_spec(args.judge)
    baselines = {text: parse_judge_spec(text) for text in args.baseline}
    path = cache_path(args.cache, outputs, args.pairs)
    questions = None
    if args.pairs is not None:
        questions = read_questions(args.pairs, args.split).limited(args.limit, args.seed)
        if isinstance(questions, GroupQuestions) and (args.html is not None or baselines):
            raise ConfigError(f"{args.pairs} holds groups of responses; --html and --baseline are for pairs")
    judge, kept = build_kept(spec, path)
    with telling_kept(lambda: None if kept is None or questions is None else kept_answers(judge, kept, questions)):
        if isinstance(questions, GroupQuestions):
            _judge_groups(args, judge, questions, resampling)
        elif questions is not None:
            _judge_pairs(args, judge, baselines, questions, resampling, path)
        if args.injections:
            _try_injections(args, judge, alone=questions is None)
    if kept is not None and questions is not None:
        print(f"kept answers: {kept}", file=sys.stderr)
    return 0


@contextmanager
def telling_kept(kept: Callable[[], str | None]) -> Iterator[None]:
    """Let signals and errors end the work with a word on what is kept, if anything is.

    Args:
        kept: Says how much is kept and where; None for nothing.
    """
    from magnetar.cli.stop_signals import stop_signals

    def told() -> str | None:
        try:
            found = kept()
        except MagnetarError:
            return None  # what ended the work is what has to be told
        return None if found is None else f"{found}; the same command goes on from there"

    try:
        with stop_signals():
            yield
    except KeyboardInterrupt as error:
        words = None if error.args else told()
        if words is None:
            raise
        again = KeyboardInterrupt(f"stopped; {words}")
        again.signal_number = getattr(error, "signal_number", 2)  # type: ignore[attr-defined]
        raise again from error
    except MagnetarError:
        words = told()
        if words is not None:
            print(words, file=sys.stderr)
        raise


def _judge_pairs(
    args: argparse.Namespace,
    judge: "Judge",
    baselines: "dict[str, JudgeSpec]",
    questions: "PairQuestions",
    resampling: "Resampling",
    path: Path | None,
) -> None:
    from magnetar.cli.judge_text import evaluation_text
    from magnetar.cli.kept_answers import build_kept
    from magnetar.evaluation.judging import ask_pairs, measure_judge

    if questions.dropped:
        print(f"left out: {questions.dropped}", file=sys.stderr)
    judged = ask_pairs(judge, questions.pairs, progress=True)
    _write_answers(args, judge, questions, judged)
    cycles = _cycles(args, judge, judged, resampling)
    others = {}
    for name, spec in baselines.items() if questions.pairs.label_N is not None else ():
        others[name] = ask_pairs(build_kept(spec, path)[0], questions.pairs, progress=True)
    found = measure_judge(
        judged, cycles=cycles, baselines=others, resampling=resampling, disagreements=args.disagreements
    )
    print(evaluation_text(found))
    _report(args, judge, found)


def _cycles(args: argparse.Namespace, judge: "Judge", judged: "JudgedPairs", resampling: "Resampling") -> Any:
    from magnetar.evaluation.judging import measure_cycles, response_groups
    from magnetar.evaluation.judging.evaluate import NO_GROUPS

    if not args.max_group:
        return "not asked for"
    groups = response_groups(judged.pairs, max_responses=args.max_group, seed=args.seed)
    return measure_cycles(judge, groups, resampling, progress=True) if groups else NO_GROUPS


def _write_answers(args: argparse.Namespace, judge: "Judge", questions: "PairQuestions", judged: "JudgedPairs") -> None:
    if args.out is None:
        return
    from magnetar.evaluation.judging.tables import pair_table, write_table

    write_table(args.out, pair_table(questions, judged), _facts(args, judge))
    print(f"answers: {args.out}", file=sys.stderr)


def _report(args: argparse.Namespace, judge: "Judge", found: "JudgeEvaluation") -> None:
    facts = _facts(args, judge)
    if args.json is not None:
        write_json(args.json, {**found.to_dict(), **facts})
        print(f"figures: {args.json}", file=sys.stderr)
    if args.html is not None:
        from magnetar.reports.judge_page import write_judge_page

        print(f"report: {write_judge_page(found, args.html, settings=facts['settings'])}", file=sys.stderr)


def _judge_groups(
    args: argparse.Namespace, judge: "Judge", questions: "GroupQuestions", resampling: "Resampling"
) -> None:
    from magnetar.cli.judge_text import groups_text
    from magnetar.evaluation.judging import ask_groups
    from magnetar.evaluation.judging.groups import measure_groups
    from magnetar.evaluation.judging.measures import plain
    from magnetar.evaluation.judging.tables import group_table, write_table

    judge.stats()  # whatever was asked before is not of these groups
    win_prob = ask_groups(judge, questions.prompts, questions.responses, progress=True)
    if args.out is not None:
        write_table(args.out, group_table(questions, win_prob), _facts(args, judge))
        print(f"answers: {args.out}", file=sys.stderr)
    found = measure_groups(judge.name, questions, win_prob, resampling)
    counters = judge.stats()
    print(groups_text(found, counters))
    if args.json is not None:
        write_json(args.json, {**found.to_dict(), "counters": plain(counters), **_facts(args, judge)})
        print(f"figures: {args.json}", file=sys.stderr)


def _try_injections(args: argparse.Namespace, judge: "Judge", alone: bool) -> None:
    from dataclasses import asdict

    from magnetar.cli.judge_text import injections_text
    from magnetar.evaluation.judging.measures import plain
    from magnetar.judges.language_model.injections import measure_injections

    report = measure_injections(judge, confidence=args.confidence)
    print(injections_text(report))
    if args.json is not None and alone:
        summaries = [asdict(summary) for summary in report.summaries()]
        write_json(args.json, plain({"injections": summaries, "cases": report.rows(), **_facts(args, judge)}))
        print(f"figures: {args.json}", file=sys.stderr)


def _facts(args: argparse.Namespace, judge: "Judge") -> dict[str, Any]:
    """Which judge answered, with which settings and versions; for files."""
    from magnetar.errors import JudgeError
    from magnetar.evaluation import package_versions

    try:
        identity = judge.identity()
    except JudgeError:
        identity = None
    outputs = ("out", "json", "html", "cache")
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    return {
        "judge": judge.name,
        "identity": identity,
        "settings": {key: value for key, value in settings.items() if key not in outputs and value is not None},
        "versions": package_versions(),
    }


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="magnetar judge",
        description="Let a judge answer a file of pairs or of groups, keep what it said, and measure it.",
        epilog="What is answered is kept at once: a command that was stopped goes on when it is given again.",
        allow_abbrev=False,
    )
    option = options_of(parser)
    option(
        "judge",
        "panel, reward:MODEL, pairwise:MODEL, llm:MODEL, ...; a mapping as JSON; or a YAML file",
        required=True,
        metavar="SPEC",
    )
    option(
        "pairs",
        "preference data as TRL has it, pairs with soft labels or none (prompt, first, second), or groups (prompt, "
        "responses): a file, a folder or a Hub id",
        metavar="FILE",
    )
    option("split", "split of the data; the only one or 'train' if none")
    option("limit", "ask about this many rows, drawn with the seed", type=at_least(1), metavar="N")
    option("out", "write the answers here, as Parquet", type=Path, metavar="FILE")
    option("json", "write figures, settings and versions here", type=Path, metavar="FILE")
    option("html", "write a self-contained page here", type=Path, metavar="FILE")
    option(
        "cache",
        "keep answers in this file (default: beside the first output; 'none': nowhere)",
        metavar="FILE",
    )
    option("baseline", "another judge to compare accuracy with; may be given again", action="append", metavar="SPEC")
    option(
        "max_group",
        "most responses to one prompt that are compared with each other for cycles (default 6; 0: no cycles)",
        type=at_least(0),
        default=6,
        metavar="N",
    )
    option("disagreements", "worst disagreements to write (default 12)", type=at_least(0), default=12, metavar="N")
    option("injections", "try injected responses on the judge", action="store_true")
    option("seed", "seed of drawing and resampling (default 0)", type=at_least(0), default=0)
    option("bootstrap", "resamples of the intervals (default 2000)", type=at_least(100), default=2000)
    option("confidence", "coverage of the intervals (default 0.95)", type=share, default=0.95)
    args = parse_known(parser, argv)
    unused = [name for name in OF_PAIRS if getattr(args, name) != parser.get_default(name)]
    if args.pairs is None and args.injections and unused:
        given = ", ".join(f"--{name}" for name in unused)
        raise ConfigError(f"--injections without --pairs has no use for {given}; add --pairs FILE, or leave it out")
    args.baseline = args.baseline or []
    return args
