"""A model in this process: exact probabilities, whatever the batch, and answers that belong to the weights."""

from typing import Any

import numpy as np
import pytest
import torch
from llm_tiny_model import letter_tokenizer, save_verdict_model, verdict_model

from magnetar.errors import JudgeError, ModelError
from magnetar.judges import Symmetrized, build_judge
from magnetar.judges.language_model import Choices, JudgeTemplate, LanguageModelJudge
from magnetar.judges.language_model.backends.transformers_backend import TransformersBackend

PROMPTS = ["short", "a prompt that is a good deal longer than the others " * 3, "prompt", "why?", "p"]
FIRST = ["yes", "a longer answer " * 10, "", "no", "one two three"]
SECOND = ["no", "maybe", "an answer", "because it is so " * 20, "x"]


@pytest.fixture(scope="module")
def backend(verdict_folder: str) -> Any:
    return TransformersBackend.from_pretrained(verdict_folder)


def brute_force(backend: Any, question: list) -> tuple[float, float]:
    """P(first) and the mass on the choices, from the whole distribution after one unpadded row."""
    ids = backend.tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=True)["input_ids"]
    with torch.no_grad():
        probability = backend.network(torch.tensor([ids])).logits[0, -1].double().softmax(-1)
    a, b = (float(probability[backend.tokenizer.convert_tokens_to_ids(word)]) for word in "AB")
    return a / (a + b), a + b


def test_the_probability_is_the_models_own_whatever_the_batch(backend):
    judge = LanguageModelJudge(backend)
    asked = list(zip(PROMPTS, FIRST, SECOND, strict=True))
    expected = np.array([brute_force(backend, judge.question(*pair)) for pair in asked])
    assert np.ptp(expected[:, 0]) > 0.1, "a model that always says the same would prove nothing"
    found = judge.pair_win_prob(PROMPTS, FIRST, SECOND)
    np.testing.assert_allclose(found, expected[:, 0], atol=1e-4)
    assert judge.stats()["choice_mass_mean"] == pytest.approx(expected[:, 1].mean(), abs=1e-4)
    for budget in (1, 3000, 10**6):
        small = TransformersBackend(backend.network, backend.tokenizer, name="m", tokens_per_batch=budget)
        np.testing.assert_allclose(
            LanguageModelJudge(small).pair_win_prob(PROMPTS, FIRST, SECOND), expected[:, 0], atol=1e-4
        )


def test_what_all_questions_begin_with_is_read_once(backend, monkeypatch):
    read: list[int] = []
    inner = backend.network.forward

    def counting(*args, **options):
        read.append(options["input_ids"].numel())
        return inner(*args, **options)

    monkeypatch.setattr(backend.network, "forward", counting)
    judge = LanguageModelJudge(backend)
    judge.pair_win_prob(PROMPTS[2:4] * 3, ["yes", "no"] * 3, [f"maybe {at}" for at in range(6)])
    together, tokens = sum(read), judge.stats()["tokens_in"]
    system = len(judge.question("", "a", "b")[0]["content"])
    # Six questions, one token a letter: five of six system texts are saved, and padding costs little.
    assert together < tokens - 4.5 * system


def test_batches_keep_to_the_budget(backend, monkeypatch):
    seen: list[int] = []
    inner = backend.network.forward

    def counting(*args, **options):
        seen.append(options["input_ids"].numel())
        return inner(*args, **options)

    monkeypatch.setattr(backend.network, "forward", counting)
    small = TransformersBackend(backend.network, backend.tokenizer, name="m", tokens_per_batch=3000)
    LanguageModelJudge(small).pair_win_prob(PROMPTS, FIRST, SECOND)
    assert max(seen) <= 3000 and len(seen) > 2


def test_a_reply_in_text_is_the_likelier_choice(backend):
    exact = LanguageModelJudge(backend).pair_win_prob(PROMPTS, FIRST, SECOND)
    text = LanguageModelJudge(backend, logprobs="never")
    np.testing.assert_array_equal(text.pair_win_prob(PROMPTS, FIRST, SECOND), np.round(exact))
    assert text.stats()["text_answers"] == 5


def test_mass_outside_the_choices_is_reported_and_may_make_the_answer_unreadable():
    tokenizer = letter_tokenizer()
    backend = TransformersBackend(verdict_model(tokenizer, chatter=9.0), tokenizer, name="chatter")
    judge = LanguageModelJudge(backend, min_choice_mass=0.0)
    judge.pair_win_prob(PROMPTS, FIRST, SECOND)
    mass = judge.stats()["choice_mass_mean"]
    assert 0.0 < mass < 0.5
    with pytest.raises(
        JudgeError, match=r"of the probability is on A, B, expected at least 0\.9; the likeliest token is 'z'"
    ):
        LanguageModelJudge(backend, min_choice_mass=0.9).pair_win_prob(PROMPTS, FIRST, SECOND)


def test_ties_and_longer_words_are_summed_over_their_first_tokens(backend):
    template = JudgeTemplate("t", "", "{prompt}{first}{second}", Choices("Aye", "Bee", "zero"))
    judge = LanguageModelJudge(backend, template, defence=False)
    ids = backend.tokenizer.apply_chat_template(
        judge.question("p", "q", "r"), add_generation_prompt=True, return_dict=True
    )["input_ids"]
    with torch.no_grad():
        probability = backend.network(torch.tensor([ids])).logits[0, -1].double().softmax(-1)
    a, b, z = (float(probability[backend.tokenizer.convert_tokens_to_ids(word)]) for word in "ABz")
    assert judge.pair_win_prob(["p"], ["q"], ["r"])[0] == pytest.approx((a + z / 2) / (a + b + z), abs=1e-5)


def test_a_choice_that_the_model_cannot_write_is_one_clear_error(backend):
    template = JudgeTemplate("t", "", "{prompt}{first}{second}", Choices("é", "ü"))
    with pytest.raises(JudgeError, match="no token that begins the choice 'ü'"):
        LanguageModelJudge(backend, template).pair_win_prob(["p"], ["q"], ["r"])


def test_a_model_without_a_system_turn_or_without_a_chat_template_is_asked_too(verdict_folder):
    backend: Any = TransformersBackend.from_pretrained(verdict_folder)
    backend.tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ m['content'] }}{% endfor %}"
    )
    text = backend.tokenizer.decode(backend.token_ids(LanguageModelJudge(backend).question("p", "q", "r")))
    assert text.startswith("You are an impartial judge.") and "Response A:" in text
    backend.tokenizer.chat_template = None
    bare = backend.tokenizer.decode(backend.token_ids(LanguageModelJudge(backend).question("p", "q", "r")))
    assert bare == text + "\n\nAnswer:"


def test_the_identity_belongs_to_weights_template_and_settings(tmp_path, verdict_folder, backend):
    judge = LanguageModelJudge(backend)
    same = LanguageModelJudge(TransformersBackend.from_pretrained(verdict_folder))
    assert judge.identity() == same.identity()
    others = [
        LanguageModelJudge(TransformersBackend.from_pretrained(save_verdict_model(tmp_path / "m", chatter=1.0))),
        LanguageModelJudge(backend, "both"),
        judge.with_defence(False),
        LanguageModelJudge(backend, logprobs="never"),
        LanguageModelJudge(backend, min_choice_mass=0.2),
        LanguageModelJudge(backend, max_length=3000),
        LanguageModelJudge(backend, version="2"),
        LanguageModelJudge(TransformersBackend.from_pretrained(verdict_folder, dtype="bfloat16")),
    ]
    assert len({judge.identity(), *(other.identity() for other in others)}) == 9
    # How it is batched, or called, or what becomes of a reply that cannot be read, decides no answer.
    renamed = LanguageModelJudge(
        TransformersBackend.from_pretrained(verdict_folder, tokens_per_batch=7), name="other", on_unreadable="mask"
    )
    assert renamed.identity() == judge.identity()
    # A model given as an object is known by its weights, too.
    given = LanguageModelJudge(TransformersBackend(backend.network, backend.tokenizer, name="m"))
    assert given.identity() == judge.identity()


def test_questions_longer_than_the_model_are_cut_and_counted(backend):
    judge = LanguageModelJudge(backend, max_length=1400)
    judge.pair_win_prob(["p", "p"], ["x" * 3000, "q"], ["y", "z"])
    assert judge.stats()["truncated_share"] == 0.5
    question = judge.question("p", "x" * 3000, "y")
    assert 1350 <= len(backend.token_ids(question)) <= 1400
    with pytest.raises(JudgeError, match="tokens, expected at most 1400"):
        LanguageModelJudge(backend, max_length=1400, on_long="error").pair_win_prob(["p"], ["x" * 3000], ["y"])


def test_the_spec_builds_it_and_asks_in_both_orders(verdict_folder, backend, tmp_path):
    judge = build_judge({"kind": "llm", "model": verdict_folder, "backend": "transformers", "tokens_per_batch": 4000})
    assert isinstance(judge, Symmetrized)
    assert judge.name == f"llm:{verdict_folder}"
    one = LanguageModelJudge(backend)
    expected = (one.pair_win_prob(PROMPTS, FIRST, SECOND) + 1 - one.pair_win_prob(PROMPTS, SECOND, FIRST)) / 2
    np.testing.assert_allclose(judge.pair_win_prob(PROMPTS, FIRST, SECOND), expected, atol=1e-4)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot load the tokenizer"):
        build_judge(f"llm:{tmp_path}", backend="transformers")
