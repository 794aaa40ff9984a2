"""Judges loaded from folders: cards, adapters, damage, and digests of what was loaded."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from tiny_classifiers import make_model, make_tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaForCausalLM

from magnetar.errors import JudgeError
from magnetar.judges import (
    GeneralPreferenceJudge,
    PairwiseModelJudge,
    RewardModelJudge,
    Symmetrized,
    build_judge,
    parse_judge_spec,
)
from magnetar.judges.models.card import CARD_FILE, JudgeCard, write_card
from magnetar.judges.models.classifier import SequenceClassifier

PROMPTS = ["ask what ", "one two "]
RESPONSES = ["a b c d e", "best answer !"]


def save(folder: Path, kind: str = "llama", labels: int = 1, card: JudgeCard | None = None) -> Path:
    tokenizer = make_tokenizer(chat=False, cls=kind == "bert")
    make_model(kind, tokenizer, labels).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if card is not None:
        write_card(folder, card)
    return folder


def save_adapter(folder: Path, base: Path, labels: int, kind: str, **settings: Any) -> tuple[Path, Any]:
    """A LoRA adapter with random weights, not the zeros that training starts from; and the adapted model."""
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
    config = LoraConfig(task_type=TaskType.SEQ_CLS, r=2, target_modules="all-linear", **settings)
    adapted: Any = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    adapted.save_pretrained(folder)
    return folder, adapted.eval()


def test_the_card_says_how_a_judge_is_asked_and_options_win(tmp_path):
    template = "{second} ! {first} ? {prompt}"
    pairwise = save(tmp_path / "p", card=JudgeCard("pairwise", template=template, max_length=9))
    judge = build_judge(f"pairwise:{pairwise}", symmetrize=False, device="cpu")
    assert isinstance(judge, PairwiseModelJudge)
    assert (judge.template, judge.classifier.max_length) == (template, 9)
    other = "{prompt} {first} {second}"
    judge = build_judge(f"pairwise:{pairwise}", symmetrize=False, device="cpu", template=other, max_length=11)
    assert isinstance(judge, PairwiseModelJudge)
    assert (judge.template, judge.classifier.max_length) == (other, 11)

    reward = save(tmp_path / "r", card=JudgeCard("reward", temperature=0.25))
    for options, temperature in (({}, 0.25), ({"temperature": 3.0}, 3.0)):
        judge = build_judge(f"reward:{reward}", device="cpu", **options)
        assert isinstance(judge, RewardModelJudge)
        assert judge.temperature == temperature

    general = save(tmp_path / "g", labels=4, card=JudgeCard("general", temperature=0.1, normalize=False))
    for options, expected in (({}, (0.1, False)), ({"normalize": True, "temperature": 2.0}, (2.0, True))):
        judge = build_judge(f"general:{general}", device="cpu", **options)
        assert isinstance(judge, GeneralPreferenceJudge)
        assert (judge.temperature, judge.normalize) == expected


def test_a_checkpoint_of_another_kind_is_one_clear_error_before_any_weights_load(tmp_path):
    folder = save(tmp_path, card=JudgeCard("pairwise"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(JudgeError, match=rf"'reward:{folder}' was trained as pairwise; write pairwise:{folder}"):
        parse_judge_spec(f"reward:{folder}")
    with pytest.raises(JudgeError, match="trained as pairwise"):
        RewardModelJudge.from_pretrained(str(folder))
    cost = save(tmp_path / "cost", card=JudgeCard("cost"))
    with pytest.raises(JudgeError, match="was trained as cost; write cost:"):
        build_judge(f"reward:{cost}")


def test_the_kind_can_be_left_to_the_card(tmp_path):
    general = save(tmp_path / "g", labels=2, card=JudgeCard("general"))
    judge = build_judge(f"model:{general}", device="cpu", normalize=False)
    assert isinstance(judge, GeneralPreferenceJudge)
    assert (judge.name, judge.normalize) == (f"general:{general}", False)
    pairwise = save(tmp_path / "p", card=JudgeCard("pairwise"))
    assert isinstance(build_judge(f"model:{pairwise}", device="cpu"), Symmetrized)
    with pytest.raises(JudgeError, match="unknown option of judge 'pairwise' 'normalize'"):
        parse_judge_spec(f"model:{pairwise}", normalize=False)
    with pytest.raises(JudgeError, match=r"has no card .* write reward:MODEL"):
        parse_judge_spec(f"model:{save(tmp_path / 'bare')}")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{broken", "not the card of a judge"), ('["reward"]', "not the card"), ('{"kind": "oracle"}', "kind 'oracle'")],
)
def test_a_damaged_card_is_refused(tmp_path, content: str, message: str):
    (save(tmp_path) / CARD_FILE).write_text(content)
    with pytest.raises(JudgeError, match=message):
        parse_judge_spec(f"reward:{tmp_path}")


@pytest.mark.parametrize("kind", ["llama", "bert"])
@pytest.mark.parametrize(("labels", "judge_kind"), [(1, "reward"), (4, "general")])
def test_an_adapter_folder_answers_as_the_adapted_model(tmp_path, kind: str, labels: int, judge_kind: str):
    base = save(tmp_path / "base", kind)
    # The base has a head of one output; a language model would have none.
    if kind == "llama":
        LlamaForCausalLM(make_model(kind, make_tokenizer(chat=False)).config).save_pretrained(base)
    elif labels != 1:
        save(base, kind, labels)
    folder, adapted = save_adapter(tmp_path / "adapter", base, labels, kind)
    write_card(folder, JudgeCard(judge_kind, temperature=0.5, normalize=False))
    judge: Any = build_judge(f"{judge_kind}:{folder}", device="cpu")
    tokenizer = judge.classifier.tokenizer
    with torch.no_grad():
        expected = [
            adapted(**tokenizer(judge.text(*pair), return_tensors="pt", return_token_type_ids=False)).logits[0].numpy()
            for pair in zip(PROMPTS, RESPONSES, strict=True)
        ]
    np.testing.assert_allclose(judge.features(PROMPTS, RESPONSES), expected, atol=1e-4)
    assert type(judge.classifier.model).__name__.endswith("ForSequenceClassification"), "the adapter is not merged"


def test_an_adapter_without_a_head_on_a_base_without_one_is_refused(tmp_path):
    base = save(tmp_path / "base")
    LlamaForCausalLM(make_model("llama", make_tokenizer(chat=False)).config).save_pretrained(base)
    folder, _ = save_adapter(tmp_path / "adapter", base, 1, "llama")
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    save_file({name: value for name, value in load_file(file).items() if "score" not in name}, file)
    with pytest.raises(JudgeError, match=r"lacks trained weights for score\.weight.*modules_to_save"):
        build_judge(f"reward:{folder}", device="cpu")


def test_an_adapter_of_a_policy_is_refused(tmp_path):
    base = save(tmp_path / "base")
    LlamaForCausalLM(make_model("llama", make_tokenizer(chat=False)).config).save_pretrained(base)
    policy = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(policy, LoraConfig(task_type=TaskType.CAUSAL_LM, target_modules="all-linear")).save_pretrained(
        str(tmp_path / "policy")
    )
    with pytest.raises(JudgeError, match=r"trained for CAUSAL_LM, expected SEQ_CLS"):
        build_judge(f"reward:{tmp_path / 'policy'}", device="cpu")


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:2000])


def _drop_weight(file: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(file)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.safetensors", _truncate, "cannot be loaded"),
        ("model.safetensors", Path.unlink, "cannot be loaded"),
        ("model.safetensors", _drop_weight, r"lacks trained weights for model\.layers\.1\.mlp\.up_proj\.weight"),
        ("config.json", lambda file: file.write_text("{"), "cannot be loaded"),
        ("config.json", Path.unlink, "holds no config"),
        ("tokenizer.json", lambda file: file.write_text("{"), "cannot be loaded"),
    ],
)
def test_damaged_and_partial_checkpoints_are_one_clear_error(tmp_path, name: str, damage: Any, message: str):
    damage(save(tmp_path) / name)
    with pytest.raises(JudgeError, match=message):
        build_judge(f"reward:{tmp_path}", device="cpu")


def test_a_missing_base_of_an_adapter_is_named(tmp_path):
    base = save(tmp_path / "base")
    folder, _ = save_adapter(tmp_path / "adapter", base, 1, "llama")
    shutil.rmtree(base)
    with pytest.raises(JudgeError, match="base model of"):
        build_judge(f"reward:{folder}", device="cpu")


def test_identity_follows_what_decides_an_answer_and_nothing_else(tmp_path):
    folder = save(tmp_path / "model")
    spec = f"reward:{folder}"
    identity = build_judge(spec, device="cpu").identity()
    assert identity == build_judge(spec, device="cpu").identity()
    for options in ({"tokens_per_batch": 100}, {"share_beginnings": False}):
        assert build_judge(spec, device="cpu", **options).identity() == identity, options
    moved = shutil.copytree(folder, tmp_path / "moved")
    (moved / "README.md").write_text("notes")
    assert build_judge(f"reward:{moved}", device="cpu").identity() == identity
    for options in ({"temperature": 2.0}, {"max_length": 9}, {"on_long": "left"}, {"dtype": "bfloat16"}):
        assert build_judge(spec, device="cpu", **options).identity() != identity, options
    assert build_judge(f"cost:{folder}", device="cpu").identity() != identity

    def changed(name: str, change: Any) -> str:
        copy = shutil.copytree(folder, tmp_path / f"changed-{name}")
        change(copy / name)
        return build_judge(f"reward:{copy}", device="cpu").identity()

    def other_weight(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[-1] ^= 0x01
        file.write_bytes(content)

    def with_template(file: Path) -> None:
        settings = json.loads(file.read_text())
        file.write_text(json.dumps({**settings, "chat_template": "{{ messages }}"}))

    def named(file: Path) -> None:
        settings = json.loads(file.read_text())
        file.write_text(json.dumps({**settings, "_name_or_path": "/elsewhere", "transformers_version": "9"}))

    assert changed("model.safetensors", other_weight) != identity
    assert changed("tokenizer_config.json", with_template) != identity
    assert changed("config.json", named) == identity


def test_identity_of_pairwise_and_general_judges_has_their_settings(tmp_path):
    folder = save(tmp_path, labels=2)
    general = build_judge(f"general:{folder}", device="cpu").identity()
    assert build_judge(f"general:{folder}", device="cpu", normalize=False).identity() != general
    pairwise = build_judge(f"pairwise:{folder}", device="cpu").identity()
    for options in ({"template": "{first} {second} {prompt}"}, {"first_label": 1}, {"symmetrize": False}):
        assert build_judge(f"pairwise:{folder}", device="cpu", **options).identity() != pairwise, options


def test_identity_of_an_adapter_depends_on_adapter_and_base(tmp_path):
    base = save(tmp_path / "base")
    folder, _ = save_adapter(tmp_path / "adapter", base, 1, "llama")
    identity = build_judge(f"reward:{folder}", device="cpu").identity()

    moved, moved_base = tmp_path / "moved", shutil.copytree(base, tmp_path / "other-base")
    shutil.copytree(folder, moved)
    settings = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": str(moved_base)}))
    assert build_judge(f"reward:{moved}", device="cpu").identity() == identity
    (moved / "adapter_config.json").write_text(json.dumps({**settings, "lora_alpha": settings["lora_alpha"] * 2}))
    assert build_judge(f"reward:{moved}", device="cpu").identity() != identity


def test_a_folder_that_changed_after_loading_no_longer_says_what_was_loaded(tmp_path):
    folder = save(tmp_path)
    judge = build_judge(f"reward:{folder}", device="cpu")
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content + b" ")
    with pytest.raises(JudgeError, match="changed after the model was loaded"):
        judge.identity()


def test_a_model_in_memory_is_known_by_its_parameters():
    tokenizer = make_tokenizer(chat=False)
    model = make_model("llama", tokenizer)
    judge = RewardModelJudge(SequenceClassifier(model, tokenizer))
    identity = judge.identity()
    judge.scores(PROMPTS, RESPONSES)
    assert judge.identity() == identity
    again = RewardModelJudge(SequenceClassifier(make_model("llama", tokenizer), make_tokenizer(chat=False)))
    assert again.identity() == identity
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-6
    assert judge.identity() != identity
    chat = RewardModelJudge(SequenceClassifier(make_model("llama", tokenizer), make_tokenizer(chat=True)))
    assert chat.identity() != identity


HUB_SCRIPT = """
import sys
from pathlib import Path
from magnetar.judges import build_judge
for commit in sys.argv[2:]:
    Path(sys.argv[1]).write_text(commit)
    judge = build_judge("reward:org/tiny", device="cpu")
    print(judge.temperature, judge.identity())
"""


def test_a_model_of_the_hub_is_known_by_its_commit(tmp_path):
    """In the Hub's cache, without a connection."""
    folder = save(tmp_path / "model", card=JudgeCard("reward", temperature=0.5))
    repository = tmp_path / "cache" / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    commits = ["a" * 40, "b" * 40]
    for commit in commits:
        shutil.copytree(folder, repository / "snapshots" / commit)
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", HUB_SCRIPT, str(repository / "refs" / "main"), *commits]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (first, one), (second, other) = (line.split() for line in done.stdout.splitlines())
    assert first == second == "0.5"
    assert one != other
