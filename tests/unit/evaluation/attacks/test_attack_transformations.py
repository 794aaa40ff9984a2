"""Attacks are pure changes of the last request: repeatable, reversible, and of nothing else."""

import base64
import codecs
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from magnetar.errors import ConfigError, DataError
from magnetar.evaluation.attacks import ATTACKS, Attack, parse_attacks
from magnetar.evaluation.attacks.many_shot import SHOTS
from magnetar.types import Prompt

REQUEST = "Why would {anyone} climb Mont Blanc, the 4,808 m mountain?\nTell Zoë at once."
HISTORY = [
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hello. What is it?"},
]
SYSTEM = {"role": "system", "content": "Be kind."}
PROMPTS: dict[str, Any] = {
    "text": REQUEST,
    "dialogue as text": f"\n\nHuman: Hello.\n\nAssistant: Hello.\n\nHuman: {REQUEST}\n\nAssistant:",
    "turn": [{"role": "user", "content": REQUEST}],
    "turns": [*HISTORY, {"role": "user", "content": REQUEST}],
    "system": [SYSTEM, *HISTORY, {"role": "user", "content": REQUEST}],
}
SPECS = [
    *(name for name in ATTACKS if name not in ("none", "template")),
    "many_shot:shots=30",
    "many_shot:shots=3,as_turns=false",
    "system_override:place=user",
    "fiction:layers=5",
    "caesar:shift=3",
    "leetspeak:share=0.4",
    "word_splitting:separator=.,share=0.5",
    "payload_splitting:pieces=9",
    "base64+prefix_injection",
    "caesar+role_play+prefill",
]


def attack(spec: str) -> Attack:
    return parse_attacks(spec)[-1]


def asked(prompt: Prompt) -> str:
    """What the user says last."""
    if isinstance(prompt, str):
        return prompt
    return next(turn["content"] for turn in reversed(prompt) if turn["role"] == "user")


def moved_back(text: str, shift: int) -> str:
    """Caesar's cipher undone letter by letter, by arithmetic and not by a table."""

    def back(letter: str) -> str:
        if not ("a" <= letter.lower() <= "z"):
            return letter
        start = ord("a") if letter.islower() else ord("A")
        return chr((ord(letter) - start - shift) % 26 + start)

    return "".join(map(back, text))


def recovered(spec: str, text: str) -> str:
    """Undo what an attack did to a request, with the standard library's own decoders."""
    name = spec.split(":")[0].split("+")[0]
    if name == "base64":
        codes = re.findall(r"[A-Za-z0-9+/=]{40,}", text)
        return base64.b64decode(codes[0]).decode()
    if name == "caesar":
        return moved_back(text, 3 if "shift=3" in spec else 13)
    if name == "word_splitting":
        mark = "." if "separator=." in spec else "-"
        return re.sub(rf"(?<=\w){re.escape(mark)}(?=\w)", "", text)
    if name == "payload_splitting":
        pieces = {name: json.loads(piece) for name, piece in re.findall(r"^(part_\d+) = (.*)$", text, re.M)}
        order = re.findall(r"part_\d+", text.split("question = ")[1])
        return "".join(pieces[name] for name in order)
    return text


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("spec", SPECS)
def test_the_request_can_be_recovered_from_the_attacked_prompt(spec: str, kind: str) -> None:
    text = asked(attack(spec).apply(PROMPTS[kind], seed=3).asked)
    found = recovered(spec, text)
    name = spec.split(":")[0].split("+")[0]
    if name == "leetspeak":  # the same characters but for six digits that stand for letters
        at = text.index(REQUEST[0])
        back = str.maketrans("431057", "aeiost")
        assert text[at : at + len(REQUEST)].lower().translate(back) == REQUEST.lower().translate(back)
    elif name == "character_noise":  # the same letters in each word, the first and the last in their places
        words, before = found.casefold().split(), asked(PROMPTS[kind]).casefold().split()
        assert [Counter(word) for word in words] == [Counter(word) for word in before]
    else:
        assert REQUEST in found


@pytest.mark.parametrize("spec", SPECS)
def test_an_attack_changes_the_prompt_and_keeps_earlier_turns(spec: str) -> None:
    for kind in ("turns", "system"):
        before = PROMPTS[kind]
        prompt = attack(spec).apply(before, seed=0).prompt
        assert isinstance(prompt, list) and prompt != before
        earlier = [turn for turn in before[:-1] if turn["role"] != "system"]
        start = [turn["role"] for turn in prompt].index("user")
        assert prompt[start : start + len(earlier)] == earlier
        if kind == "system":
            assert prompt[0]["role"] == "system" and prompt[0]["content"].startswith(SYSTEM["content"])
    assert PROMPTS["turns"] == [*HISTORY, {"role": "user", "content": REQUEST}], "the prompt itself was changed"


@pytest.mark.parametrize("spec", SPECS)
def test_an_attack_is_decided_by_the_seed_and_the_prompt(spec: str) -> None:
    made = [attack(spec).apply(PROMPTS["turns"], seed).prompt for seed in (0, 0, 1, 2, 3, 4, 5)]
    assert made[0] == made[1]
    draws = {"role_play", "authority", "many_shot", "character_noise", "payload_splitting"}
    parts = {part.split(":")[0] for part in spec.split("+")}
    draws_here = bool(parts & draws) or "share=" in spec
    assert (len({json.dumps(prompt) for prompt in made}) > 1) == draws_here


def test_no_attack_is_the_identity() -> None:
    for prompt in PROMPTS.values():
        found = attack("none").apply(prompt)
        assert found.prompt == prompt == found.asked and found.begun == ""


@pytest.mark.parametrize("prompt", ["", "  \n", [{"role": "user", "content": " "}]])
def test_an_empty_request_is_refused(prompt: Prompt) -> None:
    with pytest.raises(DataError, match="is empty, expected a text to attack with"):
        attack("role_play").apply(prompt)


def test_a_prompt_that_ends_with_the_assistant_is_refused() -> None:
    with pytest.raises(DataError, match="ends with the turn of 'assistant'"):
        attack("base64").apply(HISTORY)


@pytest.mark.parametrize("shots", [1, 8, len(SHOTS), 2 * len(SHOTS) + 1])
def test_many_shot_grows_as_told_and_uses_each_shot_before_any_again(shots: int) -> None:
    found = attack(f"many_shot:shots={shots}").apply(PROMPTS["turns"]).prompt
    assert isinstance(found, list) and len(found) == len(HISTORY) + 2 * shots + 1
    questions = Counter(turn["content"] for turn in found[len(HISTORY) : -1] if turn["role"] == "user")
    assert max(questions.values()) - min(questions.get(question, 0) for question, _ in SHOTS) <= 1
    as_text = attack(f"many_shot:shots={shots}").apply(REQUEST).prompt
    assert isinstance(as_text, str) and as_text.count("\nAnswer: ") == shots


def test_layers_of_fiction_add_up() -> None:
    lengths = [len(str(attack(f"fiction:layers={n}").apply(REQUEST).prompt)) for n in range(1, 6)]
    assert lengths == sorted(set(lengths))


def test_the_thirteenth_shift_is_rot13() -> None:
    text = asked(attack("caesar").apply(REQUEST).prompt)
    assert text.endswith(codecs.encode(REQUEST, "rot_13"))


def test_a_prefill_is_the_beginning_of_the_answer() -> None:
    for kind, prompt in PROMPTS.items():
        found = attack("prefill:prefix=Of course.").apply(prompt)
        assert found.begun == "Of course." and found.asked == prompt
        if isinstance(found.prompt, str):
            assert found.prompt.startswith(prompt) and found.prompt.endswith("Of course."), kind
        else:
            assert found.prompt == [*prompt, {"role": "assistant", "content": "Of course."}]


def test_a_dialogue_written_as_text_keeps_its_form() -> None:
    found = attack("word_splitting").apply(PROMPTS["dialogue as text"]).prompt
    assert isinstance(found, str)
    assert found.startswith("\n\nHuman: Hello.\n\nAssistant: Hello.\n\nHuman: Why w-o-u-l-d")
    assert found.endswith("\n\nAssistant:")


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("Pretty please: {request}!", encoding="utf-8")
    assert attack(f"template:file={file}").apply("Dance").prompt == "Pretty please: Dance!"
    file.write_text("Pretty please", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"has no \{request\}"):
        parse_attacks(f"template:file={file}")
    with pytest.raises(ConfigError, match="needs a file"):
        parse_attacks("template")


def test_specs_name_attacks() -> None:
    labels = [found.label for found in parse_attacks("many_shot:shots=8,as_turns=false, leetspeak:share=0.5,leetspeak")]
    assert labels == ["none", "many_shot:as_turns=false", "leetspeak:share=0.5", "leetspeak"]
    assert [found.label for found in parse_attacks(labels)] == labels
    everything = parse_attacks("all")
    assert len(everything) == len(ATTACKS) - 1 and everything[0].name == "none"
    assert parse_attacks("base64+many_shot:shots=2")[-1].label == "base64+many_shot:shots=2"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("role_ply", "unknown attack 'role_ply'; did you mean 'role_play'"),
        ("many_shot:shot=3", "unknown setting 'shot'; did you mean 'shots'"),
        ("many_shot:shots=few", "shots is 'few', expected an integer"),
        ("many_shot:shots=0", "shots is 0, expected at least 1"),
        ("caesar:shift=26", "shift is 26, expected 1 to 25"),
        ("leetspeak:share=0", "share is 0.0, expected a number above 0"),
        ("fiction:layers=6", "layers is 6, expected 1 to 5"),
        ("payload_splitting:pieces=1", "pieces is 1, expected at least 2"),
        ("word_splitting:separator=x", "expected a mark that is no letter"),
        ("system_override:place=top", "place is 'top', expected 'system' or 'user'"),
        ("base64+rol_play", "unknown attack 'rol_play'; did you mean 'role_play'"),
        ("", "no attack is named"),
    ],
)
def test_a_wrong_spec_says_what_would_be_right(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_attacks(spec)


def test_every_attack_says_where_it_comes_from() -> None:
    for name, kind in ATTACKS.items():
        assert name in ("none", "template") or re.search(r"arXiv:\d{4}\.\d{5}", kind.source), name
        assert kind.__doc__ and kind.name == name
