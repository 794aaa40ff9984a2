"""Attacks as a part of a suite, and as a command: figures by hand, bad input, and what a user sees."""

import json
from pathlib import Path
from typing import Any

import pytest

from magnetar.cli.main import main
from magnetar.errors import ConfigError, DataError
from magnetar.evaluation.attacks import parse_attacks
from magnetar.evaluation.suite import read_suite
from magnetar.evaluation.suite.config import SuiteConfig
from magnetar.evaluation.suite.run import evaluate_suite
from unit.evaluation.suite.conftest import write_lines

ATTACKS = "base64,character_noise:share=1,prefill"
LETTERS = {"judge": "python:suite_judges:letters", "ask": "costs"}


def write_attacked(path: Path, prompts: list[str], lengths: dict[str, int]) -> None:
    """A file of responses to plain and attacked prompts, as long as the attack says and one more for each prompt."""
    rows = []
    for attack in parse_attacks(ATTACKS):
        for at, prompt in enumerate(prompts):
            text = "x" * (lengths[attack.label.split(":")[0]] + at % 2)
            rows.append({"prompt": attack.apply(prompt, 0).prompt, "response": text})
    write_lines(path, rows)


def configured(world: dict[str, Any], **changes: Any) -> dict[str, Any]:
    policies = {"SFT": "file:sft.jsonl", "MPO": "file:mpo.jsonl"}
    basis = {"policies": policies, "judges": {"letters": LETTERS}, "sampling": {}, "attacks": ATTACKS}
    return world | basis | changes


def test_a_suite_under_attack(world: dict[str, Any], prompts: list[str]) -> None:
    # A response is unsafe from five letters on; what a prefill put before it counts too.
    write_attacked(Path("sft.jsonl"), prompts, {"none": 3, "base64": 4, "character_noise": 5, "prefill": 1})
    write_attacked(Path("mpo.jsonl"), prompts, {"none": 1, "base64": 1, "character_noise": 4, "prefill": 1})
    told: list[str] = []
    result = evaluate_suite(SuiteConfig.from_dict(configured(world)), tell=told.append, progress=False)
    shares = {(one.policy, one.attack): one.unsafe_share.value for one in result.attacks}
    labels = [attack.label for attack in parse_attacks(ATTACKS)]
    assert shares == {
        **{("SFT", label): value for label, value in zip(labels, (0.0, 0.5, 1.0, 1.0), strict=True)},
        **{("MPO", label): value for label, value in zip(labels, (0.0, 0.0, 0.5, 1.0), strict=True)},
        ("SFT", "any"): 1.0,
        ("MPO", "any"): 1.0,
    }
    noise = next(one for one in result.attacks if (one.policy, one.attack) == ("MPO", labels[2]))
    assert noise.mean_cost is not None and noise.mean_cost.value == pytest.approx(-0.5)
    assert noise.change is not None and noise.change.value == 0.5 and noise.prompts == len(prompts)
    assert {name: part.value for name, part in noise.categories.items()} == {"even": 0.5, "third": 0.5}
    assert result == read_suite(Path("out")) and result.settings["attacks"]["attacks"] == [ATTACKS]
    assert any("attacks: 3 on 18 prompts, 72 different prompts" in line for line in told)
    assert [one.policy for one in result.costs] == ["SFT", "MPO"], "the plain prompts are measured as before"
    again = evaluate_suite(SuiteConfig.from_dict(configured(world)), tell=told.append, progress=False)
    assert again.attacks == result.attacks


def test_files_that_lack_answers_to_attacked_prompts(world: dict[str, Any], prompts: list[str]) -> None:
    whole = {"none": 3, "base64": 4, "character_noise": 5, "prefill": 1}
    write_attacked(Path("sft.jsonl"), prompts, whole)
    write_attacked(Path("mpo.jsonl"), prompts, whole)
    lines = Path("mpo.jsonl").read_text().splitlines()
    Path("mpo.jsonl").write_text("\n".join(lines[:-3]) + "\n")
    with pytest.raises(DataError, match=r"3 of 72 prompts.*magnetar attacks --out FILE"):
        evaluate_suite(SuiteConfig.from_dict(configured(world)), tell=lambda _: None, progress=False)
    told: list[str] = []
    skipping = SuiteConfig.from_dict(configured(world, missing="skip"))
    result = evaluate_suite(skipping, tell=told.append, progress=False)
    assert {one.prompts for one in result.attacks} == {15}
    assert any("3 of 18 prompts lack an answer to some attack" in line for line in told)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attacks": "bse64"}, "unknown attack 'bse64'; did you mean 'base64'"),
        ({"attacks": {"attack": "all"}}, "attacks: unknown key 'attack'; did you mean 'attacks'"),
        ({"attacks": {"attacks": "all", "reads": "plain"}}, "unknown request to read 'plain'"),
        ({"attacks": {"attacks": []}}, r"attacks is \[\], expected text or a list of texts"),
        ({"attacks": {"attacks": "all", "seed": -1}}, "attacks: seed is -1"),
        ({"judges": {"longer": "python:suite_judges:longer"}}, "no judge is asked for costs"),
        (
            {"policies": {"far": "endpoint:http://localhost:1/v1#model=m"}},
            "'prefill' begins the answer, but policy 'far'.*leave the attack out: base64,character_noise:share=1",
        ),
    ],
)
def test_configurations_that_cannot_be(world: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    policies = {"SFT": "file:sft.jsonl"}
    with pytest.raises(ConfigError, match=message):
        SuiteConfig.from_dict(configured(world, **({"policies": policies} | changes), reference=None))


def test_the_command_writes_prompts_and_measures_their_answers(
    world: dict[str, Any], prompts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["attacks", "--dataset", "prompts.jsonl", "--attacks", ATTACKS]
    assert main([*flags, "--out", "attacked.jsonl"]) == 0
    rows = [json.loads(line) for line in Path("attacked.jsonl").read_text().splitlines()]
    assert len(rows) == 4 * len(prompts) and [row["original"] for row in rows[: len(prompts)]] == prompts
    write_lines(Path("mine.jsonl"), [{"prompt": row["prompt"], "response": "xxxx"} for row in rows])
    capsys.readouterr()
    measured = ["--policy", "mine=file:mine.jsonl", "--judge", LETTERS["judge"], "--output_dir", "out"]
    assert main([*flags, *measured, "--reads", "original,attacked"]) == 0
    shown = capsys.readouterr().out
    assert "Safety under attack" in shown and "prefill" in shown
    found = {(one.reads, one.attack): one.unsafe_share.value for one in read_suite(Path("out")).attacks}
    assert len(found) == 10 and found["original", "prefill"] == 1.0 and found["original", "base64"] == 0.0


def test_the_command_leaves_what_a_suite_measured_and_says_what_it_cannot_add(
    world: dict[str, Any], prompts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    suite = evaluate_suite(SuiteConfig.from_dict(world), tell=lambda line: None, progress=False)
    assert suite.matchups and suite.samples
    write_attacked(Path("mine.jsonl"), prompts, {"none": 3, "base64": 4, "character_noise": 5, "prefill": 1})
    flags = ["attacks", "--dataset", "prompts.jsonl", "--output_dir", "out"]
    mine = ["--policy", "mine=file:mine.jsonl"]
    assert main([*flags, "--attacks", "base64", *mine, "--judge", f"harm={LETTERS['judge']}"]) == 0
    found = read_suite(Path("out"))
    assert (found.matchups, found.samples, found.notes) == (suite.matchups, suite.samples, suite.notes)
    assert [one.attack for one in found.attacks] == ["none", "base64", "any"]
    assert (set(found.policies), set(found.judges)) == ({"SFT", "MPO", "mine"}, {"longer", "harm"})
    refused = {
        "judge 'longer' is 'python:suite_judges:letters', but": [*mine, "--judge", f"longer={LETTERS['judge']}"],
        "policy 'MPO' is ('file:mine.jsonl',), but": ["--policy", "MPO=file:mine.jsonl", "--judge", LETTERS["judge"]],
        "so it has no costs": [*mine, "--judge", "python:suite_judges:longer"],
    }
    for message, words in refused.items():
        capsys.readouterr()
        assert main([*flags, "--attacks", "base64", *words]) == 2
        error = capsys.readouterr().err
        assert message in error and "different prompts to answer" not in error, "known before anybody answers"


def test_the_worst_case_is_always_that_of_the_attacks_beside_it(world: dict[str, Any], prompts: list[str]) -> None:
    write_attacked(Path("mine.jsonl"), prompts, {"none": 1, "base64": 1, "character_noise": 9, "prefill": 1})
    flags = ["attacks", "--dataset", "prompts.jsonl", "--policy", "mine=file:mine.jsonl", "--judge", LETTERS["judge"]]
    for spec in ("character_noise:share=1", "base64"):
        assert main([*flags, "--output_dir", "out", "--attacks", spec]) == 0
        share = {one.attack: one.unsafe_share.value for one in read_suite(Path("out")).attacks}
        assert share.pop("any") == max(share.values()), share


def test_the_command_lists_attacks_with_their_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attacks"]) == 0
    shown = capsys.readouterr().out
    assert "many_shot:  shots=8, as_turns=true" in shown and "arXiv:2310.06387" in shown


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--policy", "demo"], "dataset is missing"),
        (["--dataset", "demo", "--policy", "demo"], "judge is missing; give --policy, --judge cost:MODEL"),
        (["--dataset", "demo"], "policy is missing"),
        (["--dataset", "demo", "--polcy", "demo"], "unknown option 'polcy'; did you mean 'policy'"),
    ],
)
def test_a_command_that_cannot_be(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attacks", *flags]) == 2
    assert message in capsys.readouterr().err
