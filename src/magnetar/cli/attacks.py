"""`magnetar attacks`: list attacks, write attacked prompts to a file, or measure policies under attack."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from magnetar.cli.arguments import at_least, check_output, options_of, parse_known
from magnetar.errors import ConfigError

__all__ = ["main"]

MEASURES = ("policy", "judge", "output_dir")


def main(argv: list[str]) -> int:
    """Do what the options ask for.

    Args:
        argv: Arguments after ``magnetar attacks``.

    Returns:
        Exit status.

    Raises:
        MagnetarError: Anything that the user can mend.
    """
    args = _parse(argv)
    given = [name for name in MEASURES if getattr(args, name)]
    if args.dataset is None:
        if given or args.out is not None:
            raise ConfigError("dataset is missing; give --dataset with the prompts to attack with")
        print(_listing())
        return 0
    if args.out is not None and not given:
        return _write_prompts(args)
    missing = [name for name in MEASURES if not getattr(args, name)]
    if missing:
        raise ConfigError(
            f"{missing[0]} is missing; give --policy, --judge cost:MODEL and --output_dir to measure, or --out FILE to "
            "write the attacked prompts"
        )
    return _measure(args)


def _listing() -> str:
    from magnetar.evaluation.attacks import ATTACKS
    from magnetar.games.settings import plain_settings, setting_text

    lines = []
    for name, kind in ATTACKS.items():
        settings = plain_settings(kind)
        shown = ", ".join(f"{key}={setting_text(value)}" for key, value in settings.items())
        lines.append(f"{name}{f':  {shown}' if shown else ''}")
        lines.append(f"    {(kind.__doc__ or '').splitlines()[0]} [{kind.source}]")
    return "\n".join([*lines, "", "Write NAME, NAME:KEY=VALUE, A+B for B on what A made, or all."])


def _write_prompts(args: argparse.Namespace) -> int:
    from magnetar.evaluation.attacks import parse_attacks
    from magnetar.evaluation.suite.attacks import attacked_prompts

    check_output(args.out)
    prompts, _ = _prompts(args)
    rows = attacked_prompts(parse_attacks(args.attacks), prompts, args.seed)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    args.out.write_text(text, encoding="utf-8")
    print(f"{len(rows)} prompts: {args.out}", file=sys.stderr)
    return 0


def _prompts(args: argparse.Namespace) -> Any:
    from magnetar.evaluation.suite.asked import load_suite_prompts
    from magnetar.evaluation.suite.config import SuiteConfig

    values = {**_common(args), "output_dir": ".", "policies": {"nobody": "demo"}, "judges": {"none": "panel"}}
    return load_suite_prompts(SuiteConfig.from_dict(values))


def _measure(args: argparse.Namespace) -> int:
    from magnetar.cli.stop_signals import stop_signals
    from magnetar.cli.suite import STOPPED
    from magnetar.evaluation.suite.attack_run import attack_policies
    from magnetar.evaluation.suite.config import SuiteConfig
    from magnetar.evaluation.suite.tables import suite_tables, table_text, write_tables

    label, judge = _label(args.judge)
    config = SuiteConfig.from_dict(
        {
            **_common(args),
            "output_dir": str(args.output_dir),
            "policies": _named(args.policy),
            "judges": {label or "cost": {"judge": judge, "ask": "costs"}},
            "matchups": "none",
            "missing": args.missing,
            "sampling": {
                "max_new_tokens": args.max_new_tokens,
                "temperature": args.temperature,
                "responses": args.responses_per_prompt,
                "batch_size": args.batch_size,
                "dtype": args.dtype,
                "seed": args.seed,
            },
            "attacks": {"attacks": args.attacks, "reads": args.reads.split(","), "seed": args.seed},
        }
    )
    with stop_signals():
        try:
            result = attack_policies(config)
        except KeyboardInterrupt as stop:
            stop.args = (STOPPED,)
            raise
    write_tables(result, config.output_dir)
    print("\n\n".join(table_text(table) for table in suite_tables(result) if table.name == "attacks"))
    print(f"figures: {config.output_dir / 'suite.json'}", file=sys.stderr)
    print(f"page: magnetar report {config.output_dir}", file=sys.stderr)
    return 0


def _common(args: argparse.Namespace) -> dict[str, Any]:
    """The prompts as a suite's configuration names them."""
    prompts = {"dataset": args.dataset, "split": args.split, "limit": args.limit, "seed": args.seed}
    return {"prompts": prompts}


def _named(given: list[str]) -> dict[str, str]:
    """Policies as ``SPEC`` or ``NAME=SPEC``."""
    policies: dict[str, str] = {}
    for word in given:
        label, spec = _label(word)
        name = label or spec
        if name in policies:
            raise ConfigError(f"policy {name!r} is given twice; name them apart: --policy NAME=SPEC")
        policies[name] = spec
    return policies


def _label(word: str) -> tuple[str | None, str]:
    """Name, or None, and spec of ``NAME=SPEC`` or ``SPEC``."""
    name, equals, spec = word.partition("=")
    return (name, spec) if equals and not {"/", ":", "{"} & set(name) else (None, word)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="magnetar attacks",
        description="List adversarial changes of prompts; with --dataset and --out write attacked prompts; with "
        "--policy and --judge measure how unsafe answers become.",
        epilog="Together with match-ups and costs: the key 'attacks' of magnetar eval --config.",
        allow_abbrev=False,
    )
    option = options_of(parser)
    option("attacks", "such as 'role_play,many_shot:shots=8' (default: all)", default="all", metavar="SPECS")
    option("dataset", "prompts: 'demo', a file, a folder or a Hub id", metavar="D")
    option("split", "split of the dataset; 'test' of 'demo', else the only one or 'train'")
    option("limit", "so many prompts, drawn with the seed", type=at_least(1), metavar="N")
    option("out", "write the attacked prompts here, one a line", type=Path, metavar="FILE")
    option("policy", "who is attacked, as for magnetar eval; NAME=SPEC names it; may be given again", action="append")
    option("judge", "scores, and its zero parts safe from unsafe: cost:MODEL; NAME=SPEC names it", metavar="SPEC")
    option("reads", "the request that the judge sees: original, attacked, or both with a comma", default="original")
    option("output_dir", "answers, suite.json and tables go here", type=Path, metavar="DIR")
    option("missing", "prompts without an answer: 'error', or 'skip'", choices=("error", "skip"), default="error")
    option("max_new_tokens", "longest response in tokens (default 64)", type=at_least(1), default=64)
    option("temperature", "sampling temperature (default 1.0)", type=float, default=1.0)
    option("responses_per_prompt", "responses to each prompt (default 1)", type=at_least(1), default=1)
    option("batch_size", "prompts at a time (default 16)", type=at_least(1), default=16)
    option("dtype", "precision of the weights (default float32)", default="float32")
    option("seed", "of attacks, sampling and drawing (default 0)", type=at_least(0), default=0)
    return parse_known(parser, argv)
