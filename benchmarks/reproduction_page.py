"""Tables and figures of `docs/reproduction.md`, from what the pipeline of `benchmarks/reproduction.yaml` left.

    python benchmarks/reproduction_page.py --collect runs/reproduction   # copies figures, no prompts and no responses
    python benchmarks/reproduction_page.py                               # writes the page's tables and pictures

The collected figures are in benchmarks/results/reproduction: each suite as `magnetar eval` writes it, less the samples
(the prompts are not ours to publish), and what each step took.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from method_pages import fill, trim_svg

from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.suite import SuiteResult, read_suite, write_suite
from magnetar.reports.figures import write_figures
from magnetar.reports.pipeline_data import StepData, read_pipeline
from magnetar.reports.pipeline_page import suite_groups
from magnetar.reports.run_data import read_json_lines

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "reproduction"
PAGE = ROOT / "docs" / "reproduction.md"
FIGURES = ROOT / "docs" / "figures" / "reproduction"
STEPS = "steps.json"
SAFETY, HARMLESS, LANGUAGE_MODEL = "safety", "harmless", "language_model"
MPO = "MPO round 3"


@dataclass(frozen=True)
class Claim:
    """Something that the paper reports, as a difference that is measured here.

    Attributes:
        says: The paper's claim.
        where: Its table or figure.
        first: The policy that is better if it is so.
        second: The other policy.
        by: "cost" for the change of the mean cost, the name of a judge for a win rate.
    """

    says: str
    where: str
    first: str
    second: str
    by: str


CLAIMS = (
    Claim("MPO lowers the cost of SFT", "Table 1", MPO, "SFT", "cost"),
    Claim("MPO beats SFT", "Table 2", MPO, "SFT", "evaluator"),
    Claim("MPO-RT beats SFT", "Table 2", "MPO-RT", "SFT", "evaluator"),
    Claim("a second round is better than the first", "Tables 1, 2", "MPO round 2", "MPO round 1", "evaluator"),
    Claim("a third round is better than the second", "Tables 1, 2", MPO, "MPO round 2", "evaluator"),
    Claim("MPO beats PPO", "Tables 1, 2", MPO, "PPO", "evaluator"),
    Claim("MPO beats iterative DPO", "Tables 1, 2", MPO, "iterative DPO", "evaluator"),
    Claim("self-play is needed", "Figure 5", MPO, "no self-play", "evaluator"),
    Claim("magnet moves are needed", "Figure 5", MPO, "no magnet moves", "evaluator"),
)


def collect(folder: Path) -> None:
    """Copy a pipeline's figures into the repository."""
    data = read_pipeline(folder)
    RESULTS.mkdir(parents=True, exist_ok=True)
    suites = suite_groups(data)
    if not suites:
        sys.exit(f"no suite in {folder}: run `magnetar pipeline --config benchmarks/reproduction.yaml --only evaluate`")
    for stage, suite in suites.items():
        write_suite(replace(suite, samples=()), RESULTS / f"{stage.rsplit('/', 1)[-1]}.json")
    text = json.dumps([step_record(step) for step in data.steps if step.finished], indent=1)
    (RESULTS / STEPS).write_text(text + "\n", encoding="utf-8")


def step_record(step: StepData) -> dict[str, Any]:
    """What a step took, on what, and what it said of itself."""
    record = {key: step.manifest.get(key) for key in ("hours", "finished", "git", "hardware", "seeds", "results")}
    record["hardware"] = {key: value for key, value in step.part("hardware").items() if key != "platform"}
    metrics = step.folder / "metrics.jsonl"
    if step.name.startswith("train/") and metrics.is_file():
        record["training"] = end_of_training(read_json_lines(metrics))
    return {"step": step.name, **record, "versions": dict(step.part("versions"))}


def end_of_training(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over the last quarter of the updates, which single updates are too noisy for."""
    last = lines[-max(1, len(lines) // 4) :]
    found = {}
    for key in sorted({key for line in last for key in line if key.startswith("kl_") or key == "entropy"}):
        values = [float(line[key]) for line in last if isinstance(line.get(key), int | float)]
        found[key] = sum(values) / len(values)
    return found


def suites() -> dict[str, SuiteResult]:
    """The collected suites by name."""
    return {path.stem: read_suite(path) for path in sorted(RESULTS.glob("*.json")) if path.name != STEPS}


def steps() -> list[dict[str, Any]]:
    """The collected steps, in the order in which they run."""
    return json.loads((RESULTS / STEPS).read_text(encoding="utf-8"))


def share(one: Estimate | None) -> str:
    """A share with its interval."""
    if one is None:
        return "–"
    if one.low is None or one.high is None:
        return f"{one.value:.1%}"
    return f"{one.value:.1%} [{100 * one.low:.1f}, {100 * one.high:.1f}]"


def number(one: Estimate | None) -> str:
    """A number with its interval."""
    if one is None:
        return "–"
    if one.low is None or one.high is None:
        return f"{one.value:+.3f}"
    return f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose first column is words."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def cost_table(suite: SuiteResult) -> str:
    """Table 1: costs."""
    rows = [
        [one.policy, runs_of(suite, one.policy), number(one.mean_cost), number(one.change), share(one.share_safe)]
        for one in suite.costs
    ]
    return table(["policy", "seeds", "mean cost", f"less that of {suite.reference}", "cost below zero"], rows)


def win_rate_table(found: dict[str, SuiteResult]) -> str:
    """Table 2: win rates against SFT under the judges."""
    columns = [
        (stage, judge)
        for stage in (SAFETY, HARMLESS, LANGUAGE_MODEL)
        if stage in found
        for judge in dict.fromkeys(one.judge for one in found[stage].matchups)
    ]
    cells = {
        (stage, one.judge, one.policy): one
        for stage, suite in found.items()
        for one in suite.matchups
        if one.opponent == suite.reference
    }
    names = dict.fromkeys(policy for _, _, policy in cells)
    where = {SAFETY: "safety prompts", HARMLESS: "held-out dialogues", LANGUAGE_MODEL: "safety prompts"}
    rows = []
    for name in names:
        ones = [cells.get((stage, judge, name)) for stage, judge in columns]
        rows.append([name, *(share(None if one is None else one.win_rate) for one in ones)])
        at_equal_length = cells.get((SAFETY, "evaluator", name))
        rows[-1].insert(2, share(at_equal_length.length_controlled if at_equal_length else None))
    heads = [f"{judge}, {where[stage]}" for stage, judge in columns]
    heads.insert(1, "the same at equal length")
    return table(["policy", *heads], rows)


def claim_table(found: dict[str, SuiteResult]) -> str:
    """What the paper reports, what was measured here, and whether that shows it."""
    rows = []
    for claim in CLAIMS:
        measured = difference(found[SAFETY], claim)
        if measured is None:
            continue
        null = 0.0 if claim.by == "cost" else 0.5
        better = (measured.value < null) if claim.by == "cost" else (measured.value > null)
        verdict = "**yes**" if better else "**the opposite**"
        verdict = verdict if measured.excludes(null) else "not shown"
        text = number(measured) if claim.by == "cost" else share(measured)
        kind = "mean cost" if claim.by == "cost" else "win rate"
        rows.append([f"{claim.says} ({claim.where})", f"{kind} of {claim.first} against {claim.second}", text, verdict])
    return table(["the paper", "measured", "value", "shown here"], rows)


def difference(suite: SuiteResult, claim: Claim) -> Estimate | None:
    """The figure that a claim is about; None where it was not measured."""
    if claim.by == "cost":
        return next((one.change for one in suite.costs if one.policy == claim.first), None)
    for one in suite.matchups:
        if (one.judge, one.policy, one.opponent) == (claim.by, claim.first, claim.second):
            return one.win_rate
    for game in suite.tournament:
        if game.judge == claim.by and claim.first in game.names and claim.second in game.names:
            at, other = game.names.index(claim.first), game.names.index(claim.second)
            value, low, high = game.win_rate[at][other], game.low[at][other], game.high[at][other]
            confidence = float(suite.settings.get("intervals", {}).get("confidence", 0.95))
            return None if value is None else Estimate(value, low, high, confidence, "tournament")
    return None


def attack_table(found: dict[str, SuiteResult]) -> str:
    """Unsafe share under each attack."""
    records = [one for suite in found.values() for one in suite.attacks]
    policies = list(dict.fromkeys(one.policy for one in records))
    cells = {(one.attack, one.policy): one for one in records}
    rows = [
        [attack, *(share(cells[attack, name].unsafe_share) if (attack, name) in cells else "–" for name in policies)]
        for attack in dict.fromkeys(one.attack for one in records)
    ]
    return table(["attack", *policies], rows)


def exploit_table(found: dict[str, SuiteResult]) -> str:
    """Lower bounds of exploitability."""
    rows = [
        [one.policy, one.attacker, share(one.win_rate), share(one.excess)]
        for suite in found.values()
        for one in suite.exploitability
    ]
    return table(["policy", "attacker", "win rate of the attacker", "above one half"], rows)


def judge_table() -> str:
    """How often the trained judges agree with people."""
    rows = []
    for step in steps():
        results = step["results"] or {}
        if step["step"].startswith("preference/") and "accuracy" in results:
            accuracy = Estimate(**results["accuracy"])
            rows.append([step["step"].split("/")[1], f"{results['held_out_pairs']}", share(accuracy)])
    return table(["judge", "held-out pairs", "agrees with people"], rows)


def training_table() -> str:
    """How far each run went from its start."""
    rows = []
    for step in steps():
        training = step.get("training")
        if training:
            cells = [
                f"{training[key]:.2f}" if key in training else "–" for key in ("kl_reference", "kl_magnet", "entropy")
            ]
            rows.append([step["step"].removeprefix("train/"), f"{60 * step['hours']:.0f}", *cells])
    return table(
        ["run", "minutes", "KL to the start, nats a response", "KL to the magnet", "entropy, nats a token"], rows
    )


def provenance() -> str:
    """Hardware, hours, versions and commits in one sentence each."""
    found = steps()
    hours = sum(step["hours"] or 0.0 for step in found)
    hardware = found[-1]["hardware"]
    versions = found[-1]["versions"]
    commits = sorted({str((step["git"] or {}).get("commit", ""))[:10] for step in found} - {""})
    named = ", ".join(f"{name} {versions[name]}" for name in ("magnetar", "torch", "transformers", "trl", "peft"))
    return (
        f"{hours:.1f} hours in all on {hardware.get('processor', 'a CPU')} ({hardware.get('cores')} cores, "
        f"{hardware.get('threads')} thread used, {hardware.get('memory_gib'):.0f} GiB), beside other work, without an "
        f"accelerator; {named}; commits {', '.join(commits)}."
    )


def runs_of(suite: SuiteResult, policy: str) -> str:
    """How many seeds stand behind a policy."""
    return str(len(suite.policies[policy].spec))


def blocks() -> dict[str, str]:
    """Everything on the page that was measured, by marker."""
    found = suites()
    contents = {
        "claims": claim_table(found),
        "costs": cost_table(found[SAFETY]),
        "win-rates": win_rate_table(found),
        "judges": judge_table(),
        "training": training_table(),
        "attacks": attack_table(found),
        "exploitability": exploit_table(found),
        "provenance": provenance(),
    }
    return {name: text for name, text in contents.items() if text.count("\n") != 1}  # a table without rows


def draw() -> None:
    """Figures of the collected suites."""
    for name in suites():
        for path in write_figures(RESULTS / f"{name}.json", FIGURES / name):
            trim_svg(path)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collect", type=Path, metavar="FOLDER", help="output_dir of the pipeline")
    options = parser.parse_args()
    if options.collect is not None:
        collect(options.collect)
    draw()
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), blocks()), encoding="utf-8")


if __name__ == "__main__":
    main()
