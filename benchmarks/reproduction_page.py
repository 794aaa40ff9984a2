"""Tables and figures of `docs/reproduction.md`, from what the pipeline of `benchmarks/reproduction.yaml` left.

    python benchmarks/reproduction_page.py --collect runs/reproduction   # copies figures, no prompts and no responses
    python benchmarks/reproduction_page.py                               # writes the page's tables and pictures

The collected figures are in benchmarks/results/reproduction: each suite as `magnetar eval` writes it, less the samples
(the prompts are not ours to publish), and what each step took.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from method_pages import fill, trim_svg

from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.suite import SuiteResult, read_suite, write_suite
from magnetar.evaluation.suite.answers import file_name
from magnetar.evaluation.suite.config import PolicyConfig
from magnetar.evaluation.suite.results import ExploitabilityRecord
from magnetar.reports.figures import plots, write_figures
from magnetar.reports.pipeline_data import StepData, read_pipeline
from magnetar.reports.pipeline_page import suite_groups
from magnetar.reports.run_data import read_json_lines
from magnetar.reports.sections.matchups import by_category, matchup_judges, shown_matchups

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "reproduction"
PAGE = ROOT / "docs" / "reproduction.md"
FIGURES = ROOT / "docs" / "figures" / "reproduction"
STEPS, APOLOGIES = "steps.json", "apologies.json"
APOLOGY = re.compile(r"(i['’]m|i am) (so |very |really )?sorry", re.IGNORECASE)
SAFETY, HARMLESS, LANGUAGE_MODEL = "safety", "harmless", "language_model"
KEPT = "\u00a0"  # a space at which no line breaks
MPO = "MPO round 3"
LAST_ROUND = {"MPO": MPO}  # without a round a run is its last one
COMPARED = ("PPO 3e-4", "iterative DPO 3e-4, round 2", MPO, "MPO-RT")  # at a like distance from SFT


@dataclass(frozen=True)
class Claim:
    """Something that the paper reports, as a match-up that is measured here.

    Attributes:
        says: The paper's claim.
        where: Its table or figure.
        first: The policy that is better if it is so.
        second: The other policy.
    """

    says: str
    where: str
    first: str
    second: str


CLAIMS = (
    Claim("MPO is better than SFT", "Tables 1, 2", MPO, "SFT"),
    Claim("MPO-RT is better than SFT", "Tables 1, 2", "MPO-RT", "SFT"),
    Claim("a second round is better than one", "Tables 1, 2", "MPO round 2", "MPO round 1"),
    Claim("a third round is better than two", "Tables 1, 2", MPO, "MPO round 2"),
    Claim("self-play is needed", "Figure 5", MPO, "no self-play"),
    Claim("magnet moves are needed", "Figure 5", MPO, "no magnet moves"),
    Claim("MPO is better than PPO", "Tables 1, 2", MPO, "PPO"),
    Claim("the same, PPO with a smaller step", "Tables 1, 2", MPO, "PPO 3e-4"),
    Claim("MPO is better than iterative DPO", "Tables 1, 2", MPO, "iterative DPO"),
    Claim("the same, DPO as far as MPO", "Tables 1, 2", MPO, "iterative DPO 3e-4, round 2"),
    Claim("the same, DPO with a smaller step", "Tables 1, 2", MPO, "iterative DPO 3e-4"),
)


def collect(folder: Path) -> None:
    """Copy a pipeline's figures into the repository."""
    data = read_pipeline(folder)
    RESULTS.mkdir(parents=True, exist_ok=True)
    suites = suite_groups(data)
    if not suites:
        sys.exit(f"no suite in {folder}: run `magnetar pipeline --config benchmarks/reproduction.yaml --only evaluate`")
    for stage, suite in suites.items():
        write_suite(here(replace(suite, samples=()), folder), RESULTS / f"{stage.rsplit('/', 1)[-1]}.json")
    safety = next(stage for stage in suites if stage.endswith(SAFETY))
    shares = json.dumps(apologies(suites[safety], folder / safety / "answers"), indent=1)
    (RESULTS / APOLOGIES).write_text(shares + "\n", encoding="utf-8")
    text = json.dumps([step_record(step) for step in data.steps if step.finished], indent=1)
    (RESULTS / STEPS).write_text(text + "\n", encoding="utf-8")


def apologies(suite: SuiteResult, folder: Path) -> dict[str, list[float]]:
    """Share of a policy's answers that begin with an apology, which a judge of harmlessness likes, for each seed."""
    shares: dict[str, list[float]] = {}
    for label, policy in suite.policies.items():
        for run in PolicyConfig(policy.spec, policy.seeds).run_names(label):
            lines = (folder / f"{file_name(run)}.jsonl").read_text(encoding="utf-8").split("\n")[1:]
            texts = [text for line in lines if line for text in json.loads(line)["texts"]]
            begun = sum(APOLOGY.match(text.strip()) is not None for text in texts)
            shares.setdefault(label, []).append(begun / len(texts))
    return shares


def here(suite: SuiteResult, folder: Path) -> SuiteResult:
    """The suite with paths below the pipeline's folder, wherever that was."""
    text = json.dumps(suite.to_dict(), ensure_ascii=False).replace(f"{folder.resolve()}", folder.name)
    return SuiteResult.from_dict(json.loads(text), str(folder))


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
    return {
        path.stem: read_suite(path) for path in sorted(RESULTS.glob("*.json")) if path.name not in (STEPS, APOLOGIES)
    }


def steps() -> list[dict[str, Any]]:
    """The collected steps, in the order in which they run."""
    return json.loads((RESULTS / STEPS).read_text(encoding="utf-8"))


def share(one: Estimate | None) -> str:
    """A share with its interval, in percent."""
    return with_interval(one, lambda value: f"{value:.1%}", lambda end: f"{100 * end:.1f}")


def number(one: Estimate | None) -> str:
    """A number with its interval."""
    return with_interval(one, lambda value: f"{value:+.3f}", lambda end: f"{end:+.3f}")


def with_interval(one: Estimate | None, value: Callable[[float], str], end: Callable[[float], str]) -> str:
    """An estimate as its value and, where there is one, its interval."""
    if one is None:
        return "–"
    if one.low is None or one.high is None:
        return value(one.value)
    return f"{value(one.value)} [{end(one.low)},{KEPT}{end(one.high)}]"


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
        (stage, one.judge, LAST_ROUND.get(one.policy, one.policy)): one
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


def distance_table(suite: SuiteResult) -> str:
    """How far each policy went from the reference, and what it won there."""
    judges = matchup_judges(suite)
    rates = {(one.judge, one.policy): one.win_rate for one in suite.matchups if one.opponent == suite.reference}
    measured = [(name, one, one.distance.value) for name, one in suite.policies.items() if one.distance is not None]
    rows = [
        [name, f"{far:.1f}", ", ".join(f"{value:.1f}" for value in one.run_distances)]
        + [share(rates.get((judge, name))) for judge in judges]
        for name, one, far in sorted(measured, key=lambda entry: entry[2])
    ]
    return table(["policy", f"nats from {suite.reference}", "each seed", *judges], rows)


def claim_table(suite: SuiteResult) -> str:
    """What the paper reports, the win rate here under each judge, and whether that shows it."""
    judges = [game.judge for game in suite.tournament]
    rows = []
    for claim in CLAIMS:
        cells = [verdict(win_rate(suite, judge, claim.first, claim.second)) for judge in judges]
        rows.append([f"{claim.says} ({claim.where})", f"{claim.first} against {claim.second}", *cells])
    return table(["the paper", "measured", *judges], rows)


def verdict(rate: Estimate | None) -> str:
    """A win rate, and whether its interval is on the claim's side of one half."""
    if rate is None:
        return "–"
    word = "**yes**" if rate.value > 0.5 else "**the opposite**"
    return f"{share(rate)} {word if rate.excludes(0.5) else 'not shown'}"


def win_rate(suite: SuiteResult, judge: str, first: str, second: str) -> Estimate | None:
    """Win rate in the tournament of a judge; None where the two did not meet."""
    for game in suite.tournament:
        if game.judge == judge and {first, second} <= set(game.names):
            at, other = game.names.index(first), game.names.index(second)
            value = game.win_rate[at][other]
            if value is not None:
                confidence = suite.settings["intervals"]["confidence"]
                return Estimate(value, game.low[at][other], game.high[at][other], confidence, "tournament")
    return None


def order_note(suite: SuiteResult) -> str:
    """What the place of an answer does to a language model as the judge."""
    asked = [one for one in suite.matchups if one.orders is not None]
    first = [one.orders.first_place.value for one in asked if one.orders is not None]
    left_out = [one.masked / (one.masked + one.comparisons) for one in asked]
    return (
        f"Asked in both orders, {asked[0].judge} prefers whatever is shown first, with a mean probability of "
        f"{min(first):.0%} to {max(first):.0%}; {min(left_out):.0%} to {max(left_out):.0%} of the pairs got no verdict."
    )


def answer_table(suite: SuiteResult) -> str:
    """What the responses are like, which no win rate tells."""
    sorry = json.loads((RESULTS / APOLOGIES).read_text(encoding="utf-8"))
    rows = []
    for name, policy in suite.policies.items():
        one = policy.responses
        if one is not None:
            odd = one.degeneracy
            cells = [f"{one.tokens:.0f}", f"{one.truncated:.0%}", f"{odd.repeated_across_prompts:.0%}"]
            rows.append([name, *cells, f"{odd.distinct_2:.2f}", ", ".join(f"{one:.0%}" for one in sorry[name])])
    head = ["policy", "tokens", "cut off at 32", "the same answer to different prompts", "share of distinct word pairs"]
    head.append("begins with an apology, each seed")
    return table(head, rows)


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
        [one.policy, attacker(one), share(one.win_rate), share(one.excess)]
        for suite in found.values()
        for one in suite.exploitability
    ]
    return table(["policy", "attacker", "win rate of the attacker", "above one half"], rows)


def attacker(one: ExploitabilityRecord) -> str:
    """Who attacks, in words."""
    if one.attacker != "best_of_n":
        return "the strongest, chosen on the other half of the prompts" if one.attacker == "best" else one.attacker
    return f"the best of {one.settings['n']} of its own responses"


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
    machine = f"{hardware.get('processor', 'a CPU')} ({hardware['cores']} threads, {hardware['memory_gib']:.0f} GiB)"
    return (
        f"{hours:.1f} hours in all, each step as it last ran (a repeated evaluation finds its answers again), on "
        f"{machine}, beside other work, without an accelerator; {named}; commits {', '.join(commits)}."
    )


def runs_of(suite: SuiteResult, policy: str) -> str:
    """How many seeds stand behind a policy."""
    return str(len(suite.policies[policy].spec))


def blocks() -> dict[str, str]:
    """Everything on the page that was measured, by marker."""
    found = suites()
    contents = {
        "claims": claim_table(found[SAFETY]),
        "costs": cost_table(found[SAFETY]),
        "win-rates": win_rate_table(found),
        "distances": distance_table(found[SAFETY]),
        "order": order_note(found[LANGUAGE_MODEL]),
        "answers": answer_table(found[SAFETY]),
        "judges": judge_table(),
        "training": training_table(),
        "attacks": attack_table(found),
        "exploitability": exploit_table(found),
        "provenance": provenance(),
    }
    return {name: text for name, text in contents.items() if text.count("\n") != 1}  # a table without rows


def draw() -> None:
    """The pictures that the page shows, of all that the collected suites would give."""
    shown = set(re.findall(r"\(figures/reproduction/([\w.-]+)\)", PAGE.read_text(encoding="utf-8")))
    FIGURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        made: dict[str, Path] = {}
        for name, suite in suites().items():
            paths = [
                *write_figures(RESULTS / f"{name}.json", Path(folder) / name),
                *few_policies(suite, Path(folder) / name),
            ]
            made |= {f"{name}-{path.name}": path for path in paths}
        if not shown <= made.keys():
            sys.exit(f"{PAGE} shows {sorted(shown - made.keys())}, and there are only {sorted(made)}")
        for name in shown:
            shutil.copy(made[name], FIGURES / name)
            trim_svg(FIGURES / name)
    for old in FIGURES.iterdir():
        if old.name not in shown:
            old.unlink()


def few_policies(suite: SuiteResult, folder: Path) -> list[Path]:
    """Categories of the methods that the paper compares; nine policies at once nobody can tell apart."""
    paths = []
    for judge in matchup_judges(suite):
        shown, whom = shown_matchups(suite, judge)
        groups = by_category({name: shown[name] for name in COMPARED if name in shown})
        if groups:
            paths += [folder / f"compared-{judge}.svg", folder / f"compared_radar-{judge}.svg"]
            plots.draw_groups(paths[-2], groups, f"win rate{whom}")
            names = [name for name in COMPARED if name in shown]
            values = {
                name: [None if (one := cells[name]) is None else one.value for cells in groups.values()]
                for name in names
            }
            plots.draw_radar(paths[-1], list(groups), values)
    return paths


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
