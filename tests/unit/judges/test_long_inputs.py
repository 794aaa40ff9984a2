"""What becomes of inputs longer than a judge can read: the rule, its limits, and what is counted."""

from typing import Any

import numpy as np
import pytest
from tiny_classifiers import logit_of, make_model, make_tokenizer

from magnetar.errors import JudgeError
from magnetar.judges import PairwiseModelJudge, RewardModelJudge, build_judge, parse_judge_spec
from magnetar.judges.models.classifier import SequenceClassifier
from magnetar.judges.models.fitting import GAP, Question, cut_prompt, cut_response, fit_questions

CHAT = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "first question"},
    {"role": "assistant", "content": "first answer"},
    {"role": "user", "content": "second question"},
]


def letters(questions: Any) -> list[int]:
    """A tokenizer of single characters, with a template of ten."""
    return [10 + len(prompt) + sum(map(len, responses)) for prompt, responses in questions]


def longest_that_fits(question: Question, limit: int) -> int:
    prompt, responses = question
    fitting = [
        c
        for c in range(max(len(prompt), *map(len, responses)))
        if letters([(cut_prompt(prompt, c), tuple(cut_response(text, c) for text in responses))])[0] <= limit
    ]
    return max(fitting)


def test_a_response_loses_its_middle_and_a_prompt_its_beginning():
    assert cut_response("abcdefghij", 10) == "abcdefghij"
    assert cut_response("abcdefghij", 5) == "abc" + GAP + "ij"
    assert cut_response("abcdefghij", 0) == GAP
    assert cut_prompt("abcdefghij", 4) == "ghij"
    assert cut_prompt("abcdefghij", 0) == ""


@pytest.mark.parametrize(
    ("characters", "expected"),
    [
        (100, CHAT),
        (47, CHAT[1:]),  # the system turn would lose its beginning; what is left begins with the user
        (41, CHAT[1:]),
        (40, [{"role": "user", "content": "irst question"}, *CHAT[2:]]),
        (20, CHAT[3:]),  # a dialogue does not begin with the assistant
        (15, CHAT[3:]),
        (8, [{"role": "user", "content": "question"}]),
        (0, [{"role": "user", "content": ""}]),
    ],
)
def test_chat_turns_go_from_the_first_on(characters: int, expected: list[dict[str, str]]):
    assert sum(len(turn["content"]) for turn in CHAT) == 48
    assert cut_prompt(CHAT, characters) == expected


@pytest.mark.parametrize("seed", range(30))
def test_the_longest_part_is_cut_until_all_fit(seed: int):
    rng = np.random.default_rng(seed)
    limit = int(rng.integers(24, 400))
    questions: list[Question] = []
    while len(questions) < 4:
        lengths = rng.integers(0, 600, 2 + seed % 2)
        prompt, *responses = ("".join(rng.choice(list("abcdef "), length)) for length in lengths)
        if letters([(prompt, tuple(responses))])[0] > limit:
            questions.append((prompt, tuple(responses)))
    for question, (prompt, responses) in zip(questions, fit_questions(questions, letters, limit), strict=True):
        size = letters([(prompt, responses)])[0]
        assert size <= limit
        best = longest_that_fits(question, limit)
        kept = max([len(prompt)] + [len(text.replace(GAP, "")) for text in responses])
        assert kept <= best
        assert size >= 0.97 * limit or kept == best
        # A part shorter than the others' length is whole.
        for before, after in zip(question[1], responses, strict=True):
            assert after == (before if len(before) <= kept else cut_response(before, kept))
        assert str(question[0]).endswith(str(prompt))
        assert len(prompt) == min(len(question[0]), kept)


def test_a_long_prompt_leaves_a_short_response_whole():
    ((prompt, (response,)),) = fit_questions([("p" * 5000, ("short answer",))], letters, 100)
    assert response == "short answer"
    assert 70 <= len(prompt) <= 78


def test_few_rounds_suffice():
    calls = 0

    def counted(questions: Any) -> list[int]:
        nonlocal calls
        calls += 1
        return letters(questions)

    rng = np.random.default_rng(0)
    questions: list[Question] = [
        ("p" * int(rng.integers(500, 9000)), ("r" * int(n),)) for n in rng.integers(0, 900, 50)
    ]
    fit_questions(questions, counted, 512)
    assert calls <= 10  # two of them for the ends


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_a_judge_reads_the_cut_text_and_counts_it(kind: str):
    tokenizer = make_tokenizer(chat=False, cls=kind == "bert")
    model = make_model(kind, tokenizer)
    judge = RewardModelJudge(SequenceClassifier(model, tokenizer, max_length=12))
    prompts: list[str] = ["ask what is the best answer one two three four five six ", "ask "]
    responses = ["a b", "c d e f g h a b c d e f g h a b c d e f"]
    scores = judge.scores(prompts, responses)
    stats = judge.stats()
    assert stats["truncated_share"] == 1.0
    assert stats["tokens"] <= 24

    def tokens(prompt: str, response: str) -> list[int]:
        return tokenizer(judge.text(prompt, response))["input_ids"]

    for prompt, response, score in zip(prompts, responses, scores, strict=True):
        # Independently: try every length, and keep the largest that fits.
        options = [tokens(str(cut_prompt(prompt, c)), cut_response(response, c)) for c in range(1, 60)]
        allowed = [logit_of(model, ids)[0] for ids in options if 11 <= len(ids) <= 12]
        assert min(abs(score - value) for value in allowed) < 1e-5
    whole = RewardModelJudge(SequenceClassifier(model, tokenizer))
    whole.scores(prompts, responses)
    assert whole.stats()["truncated_share"] == 0.0


def test_the_end_of_both_responses_of_a_pair_is_read():
    tokenizer = make_tokenizer(chat=False)
    judge = PairwiseModelJudge(
        SequenceClassifier(make_model("llama", tokenizer), tokenizer, max_length=20),
        template="{prompt} ! {first} ? {second} .",
    )
    body = " ".join(["a"] * 40)
    last = [judge.pair_win_prob(["ask"], [f"{body} {x}"], [f"{body} {y}"])[0] for x, y in ("cd", "ed", "cf")]
    assert len({round(value, 6) for value in last}) == 3, "the end of a response made no difference"


def test_left_cuts_behind_the_leading_special_tokens():
    tokenizer = make_tokenizer(chat=False, cls=True)
    model = make_model("bert", tokenizer)
    judge = RewardModelJudge(SequenceClassifier(model, tokenizer, max_length=8, on_long="left"))
    scores = judge.scores(["a b c d e f g h ", "a "], ["one two three", "two"])
    ids = tokenizer("a b c d e f g h one two three")["input_ids"]
    # Ten words and two special tokens: the leading special token and the last seven tokens stay.
    assert scores[0] == pytest.approx(logit_of(model, [ids[0], *ids[-7:]])[0], abs=1e-5)
    assert scores[1] == pytest.approx(logit_of(model, tokenizer("a two")["input_ids"])[0], abs=1e-5)
    stats = judge.stats()
    assert (stats["responses"], stats["tokens"], stats["truncated_share"]) == (2, 8 + 4, 0.5)


def test_error_names_the_length_and_the_limit():
    tokenizer = make_tokenizer(chat=False)
    judge = RewardModelJudge(
        SequenceClassifier(make_model("llama", tokenizer), tokenizer, max_length=4, on_long="error")
    )
    with pytest.raises(
        JudgeError, match=r"at most 4 tokens, and 1 of 2 inputs .* 6 tokens for the response 'b c d e f'"
    ):
        judge.scores(["a ", "a "], ["b", "b c d e f"])


def test_a_limit_below_the_template_is_an_error_and_not_a_reading_of_nothing():
    tokenizer = make_tokenizer(chat=True)
    judge = RewardModelJudge(SequenceClassifier(make_model("llama", tokenizer), tokenizer, max_length=4))
    with pytest.raises(JudgeError, match="its template alone takes"):
        judge.scores(["ask what is"], ["a b c"])


def test_the_model_limit_is_the_default_and_roberta_counts_from_its_padding_token():
    for kind, limit in (("llama", 64), ("roberta", 64 - 0 - 1)):
        tokenizer = make_tokenizer(chat=False)
        judge = RewardModelJudge(SequenceClassifier(make_model(kind, tokenizer), tokenizer))
        assert judge.classifier.max_length == limit
        judge.scores(["a " * 100], ["b"])
        stats = judge.stats()
        assert 0.95 * limit <= stats["tokens"] <= limit
        assert stats["truncated_share"] == 1.0


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("chat", [True, False])
def test_empty_prompts_and_responses_are_judged_like_any_text(kind: str, chat: bool):
    tokenizer = make_tokenizer(chat=chat)
    judge = RewardModelJudge(SequenceClassifier(make_model(kind, tokenizer), tokenizer))
    win_prob = judge.group_win_prob(["", "ask "], [["", "a", " "], ["", "b", "b"]])
    assert np.isfinite(win_prob).all()
    pairwise = PairwiseModelJudge(SequenceClassifier(make_model(kind, tokenizer), tokenizer))
    assert 0.0 < pairwise.pair_win_prob(["ask"], [""], ["a"])[0] < 1.0


def test_the_options_are_checked_and_arrive(tmp_path):
    tokenizer = make_tokenizer(chat=False)
    make_model("llama", tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    judge = build_judge(f"reward:{tmp_path}", device="cpu", on_long="left", max_length=7, share_beginnings=False)
    assert isinstance(judge, RewardModelJudge)
    assert (judge.classifier.on_long, judge.classifier.max_length) == ("left", 7)
    assert judge.classifier.obstacle == "share_beginnings is off"
    with pytest.raises(JudgeError, match=r"unknown on_long 'midle'; did you mean 'middle'"):
        parse_judge_spec(f"reward:{tmp_path}", on_long="midle")
    with pytest.raises(JudgeError, match="share_beginnings = 'yes', expected true or false"):
        parse_judge_spec(f"reward:{tmp_path}", share_beginnings="yes")
