"""`magnetar eval`: play two policies against each other under a judge."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magnetar.cli.arguments import at_least, check_output, options_of, parse_known, share, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from magnetar.evaluation import Matchup
    from magnetar.evaluation.players import StreamingPlayer

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Check everything that is cheap, play, print a table, write the files asked for.

    Args:
        argv: Arguments after ``magnetar eval``.

    Returns:
        Exit status.

    Raises:
        MagnetarError: Anything that the user can mend.
    """
    if any(word == "--config" or word.startswith("--config=") for word in argv):
        from magnetar.cli.suite import main as suite

        return suite(argv)
    args = _parse(argv)
    for path in (args.json, args.html):
        if path is not None:
            check_output(path)

    from magnetar.data import load_prompts
    from magnetar.evaluation.categories import select_categories
    from magnetar.evaluation.players import check_player_spec, make_player, refuse_unreadable, rendering_note
    from magnetar.judges import parse_judge_spec
    from magnetar.rollout import SamplingParams

    sampling = SamplingParams(args.max_new_tokens, args.temperature, args.top_p, args.top_k)
    spec = parse_judge_spec(args.judge)
    for player in (args.policy, args.opponent):
        check_player_spec(player)
    prompts = load_prompts(args.dataset, args.split or ("test" if args.dataset == "demo" else None))
    if args.categories is not None:
        prompts = select_categories(prompts, args.categories, args.dataset)
    if args.limit is not None and args.limit < len(prompts):
        prompts = prompts.shuffle(seed=args.seed).select(range(args.limit))
    players = {name: make_player(name, dtype=args.dtype) for name in (args.policy, args.opponent)}
    prompts = _answerable(players, prompts, args)
    refuse_unreadable(players, prompts["prompt"][:])
    note = rendering_note(players)
    if note is not None:
        print(f"note: {note}", file=sys.stderr)

    from magnetar.judges import build_judge

    matchup, judge_counts = _play(args, players, prompts, build_judge(spec), sampling)
    return _report(args, matchup, judge_counts)


def _answerable(players: "Mapping[str, StreamingPlayer]", prompts: Any, args: argparse.Namespace) -> Any:
    """The prompts that all files of responses answer; an error where there are others that are not to be skipped."""
    from magnetar.evaluation.suite.answers import refuse_uncovered

    asked = prompts["prompt"][:]
    left = refuse_uncovered(players, asked, args.responses_per_prompt, args.missing)
    if len(left) < len(asked):
        print(
            f"{len(asked) - len(left)} of {len(asked)} prompts are left out: not all files answer them", file=sys.stderr
        )
    return prompts.select(left)


def _play(
    args: argparse.Namespace, players: "Mapping[str, Any]", prompts: Any, judge: Any, sampling: Any
) -> "tuple[Matchup, dict[str, float]]":
    from magnetar.evaluation.play import play
    from magnetar.evaluation.players import GenerationRequest

    request = GenerationRequest(
        sampling,
        responses_per_prompt=args.responses_per_prompt,
        seed=args.seed,
        batch_size=args.batch_size,
        progress=True,
    )
    matchup = play(
        players[args.policy],
        players[args.opponent],
        prompts["prompt"][:],
        prompts["category"][:] if "category" in prompts.column_names else None,
        judge,
        request=request,
        both_orders=args.swap,
        missing=args.missing,
    )
    without = len(prompts) - len(matchup.prompts)
    if without:
        print(f"{without} of {len(prompts)} prompts are left out: not both answered them", file=sys.stderr)
    return matchup, judge.stats()


def _report(args: argparse.Namespace, matchup: "Matchup", judge_counts: dict[str, float]) -> int:
    from magnetar.cli.summary_text import print_summary
    from magnetar.evaluation import evaluation_record, sample_records
    from magnetar.evaluation.summary import summarize

    summary = summarize(
        matchup, bootstrap=args.bootstrap, confidence=args.confidence, seed=args.seed, length_control=True
    )
    samples = sample_records(matchup, args.samples, seed=args.seed)
    settings = {key: value for key, value in vars(args).items() if key not in ("json", "html")}
    settings["judge_counts"] = judge_counts
    print_summary(summary, samples)
    if args.json is not None:
        record = {**evaluation_record(summary, settings), "samples": samples}
        write_json(args.json, record)
        print(f"figures: {args.json}", file=sys.stderr)
    if args.html is not None:
        from magnetar.reports import write_matchup_report

        print(f"report: {write_matchup_report(summary, samples, args.html, settings=settings)}", file=sys.stderr)
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    """Read the flags; names and defaults are those of `magnetar train` where both have them."""
    parser = argparse.ArgumentParser(
        prog="magnetar eval",
        description="Let two policies answer the same prompts and have a judge say how often the first one wins. With "
        "--config FILE: many policies under many judges (magnetar eval --config FILE --help).",
        allow_abbrev=False,
    )
    who = (
        "'demo', a Hub id, a model or adapter folder, file:RESPONSES.jsonl (prompt and response on each line), or "
        "endpoint:URL#model=NAME (OpenAI-compatible)"
    )

    option = options_of(parser)
    option("policy", f"who is evaluated: {who}", required=True, metavar="A")
    option("opponent", "against whom: as for --policy", required=True, metavar="B")
    option("judge", "panel, reward:MODEL, cost:MODEL, pairwise:MODEL, ...", required=True, metavar="SPEC")
    option("dataset", "prompts: 'demo', a file, a folder or a Hub id", required=True, metavar="D")
    option("split", "split of the dataset; 'test' of 'demo', else the only one or 'train'")
    option("limit", "evaluate on this many prompts, drawn with the seed", type=at_least(1), metavar="N")
    option("categories", "by category, which the dataset must have; only these, if any are named", nargs="*")
    option(
        "missing", "prompts that a file does not answer: 'error' or 'skip'", choices=("error", "skip"), default="error"
    )
    option("swap", "ask the judge in both orders, and say what the order does", action="store_true")
    option("json", "write figures, settings, versions and samples here", type=Path, metavar="FILE")
    option("html", "write a self-contained page here", type=Path, metavar="FILE")
    option("samples", "answers to print and to write (default 4)", type=at_least(0), default=4, metavar="N")
    option("max_new_tokens", "longest response in tokens (default 64)", type=int, default=64)
    option("temperature", "sampling temperature (default 1.0)", type=float, default=1.0)
    option("top_p", "nucleus sampling (default 1.0: off)", type=float, default=1.0)
    option("top_k", "sample among the k likeliest tokens (default 0: off)", type=int, default=0)
    option("responses_per_prompt", "responses of each side to a prompt (default 1)", type=at_least(1), default=1)
    option("batch_size", "prompts at a time (default 16)", type=at_least(1), default=16)
    option("dtype", "precision of the weights (default float32)", default="float32")
    option("seed", "seed of sampling, drawing and resampling (default 0)", type=at_least(0), default=0)
    option("bootstrap", "resamples of the interval (default 2000)", type=at_least(100), default=2000)
    option("confidence", "coverage of the interval (default 0.95)", type=share, default=0.95)
    return parse_known(parser, argv)
