import gzip
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from magnetar.errors import GameError
from magnetar.games.builders.empirical import empirical_estimate, empirical_game
from magnetar.games.builders.files import load
from magnetar.games.builders.registry import by_name

Rows = list[dict[str, Any]]
SHARED = Path(os.environ.get("MAGNETAR_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
REAL = SHARED / "alpaca_eval_gpt4_pairs.jsonl.gz"


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def row(prompt: str, first: str, second: str, win: float, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "generator_1": first, "generator_2": second, "win_prob_1": win, **more}


def against_base(strength: np.ndarray, base: np.ndarray, bias: float = 0.0) -> Rows:
    """Every model against the base's answer, shown first, on every prompt; ``strength`` is (prompts, models)."""
    return [
        row(f"prompt {x}", "base", f"model {m}", float(sigmoid(base[x] - strength[x, m] + bias)))
        for x in range(len(strength))
        for m in range(strength.shape[1])
    ]


def known_strengths(prompts: int = 30, models: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((prompts, models)), generator.standard_normal(prompts)


def test_models_never_compared_are_estimated_through_the_base() -> None:
    strength, base = known_strengths()
    found = empirical_estimate(against_base(strength, base), clip=1e-6)
    each = sigmoid(strength[:, :, None] - strength[:, None, :])
    assert found.game.actions == ("base", "model 0", "model 1", "model 2", "model 3")
    np.testing.assert_allclose(found.game.P[1:, 1:], each.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.game.P[0, 1:], sigmoid(base[:, None] - strength).mean(axis=0), atol=1e-12)
    expected = each.std(axis=0, ddof=1) / np.sqrt(30)
    np.testing.assert_allclose(found.standard_error[1:, 1:], expected, atol=1e-12)
    np.testing.assert_array_equal(found.prompts, 30 * (1 - np.eye(5, dtype=int)))
    np.testing.assert_array_equal(found.direct_prompts[1:, 1:], 0)
    np.testing.assert_array_equal(found.direct_prompts[0, 1:], 30)


def test_favour_for_a_place_cancels_between_models_but_not_against_the_base() -> None:
    strength, base = known_strengths()
    fair = empirical_game(against_base(strength, base), clip=1e-6)
    biased = empirical_game(against_base(strength, base, bias=0.8), clip=1e-6)
    np.testing.assert_allclose(biased.P[1:, 1:], fair.P[1:, 1:], atol=1e-12)
    assert (biased.P[0, 1:] > fair.P[0, 1:] + 0.05).all()


def test_answers_shown_in_different_places_are_not_linked() -> None:
    rows = [row("x", "base", "a", 0.3), row("x", "b", "base", 0.6)]
    rows += [row("y", "base", "a", 0.3), row("y", "b", "base", 0.6)]
    with pytest.raises(GameError, match=re.escape("1 pairs of models rest on fewer than 2 prompts, the fewest 'a'")):
        empirical_game(rows, minimum_prompts=2)


def test_different_answers_of_the_base_are_not_linked() -> None:
    rows = [
        row(x, "base", model, 0.3, response_1=answer, response_2=model)
        for x in ("x", "y", "z")
        for model, answer in (("a", "one"), ("b", "one" if x != "z" else "two"))
    ]
    found = empirical_estimate(rows, minimum_prompts=2)
    assert found.prompts[1, 2] == 2
    assert found.prompts[0, 1] == 3


def test_prompts_with_orders_of_their_own_make_a_cycle_together() -> None:
    # Condorcet: on each third of the prompts the models are ranked by another rotation of one order.
    strength = np.array([np.roll([3.0, 0.0, -3.0], shift) for shift in range(3)] * 4)
    game = empirical_game(against_base(strength, np.zeros(12)), models=["model 0", "model 1", "model 2"], clip=1e-6)
    near, far = sigmoid(np.array([3.0, 6.0]))
    expected = (2 * near + (1 - far)) / 3
    assert game.P[0, 1] == game.P[1, 2] == game.P[2, 0] == pytest.approx(expected)
    np.testing.assert_allclose(game.equilibrium(), 1 / 3, atol=1e-9)
    by_mean = strength.mean(axis=0)
    assert np.ptp(by_mean) == pytest.approx(0.0)


def test_direct_comparisons_count_both_orders_alike_and_go_before_indirect_ones() -> None:
    rows = []
    for x in ("x", "y"):
        rows += [row(x, "a", "b", 0.9), row(x, "a", "b", 0.7), row(x, "b", "a", 0.4)]
        rows += [row(x, "c", "a", 0.9), row(x, "c", "b", 0.1)]
    found = empirical_estimate(rows, minimum_prompts=2)
    assert found.game.P[0, 1] == pytest.approx((0.8 + 0.6) / 2)
    assert found.direct_prompts[0, 1] == 2
    assert found.standard_error[0, 1] == 0.0


def test_ties_and_certain_judgements() -> None:
    def rows(win: float) -> Rows:
        return [row(x, "base", model, win if model == "a" else 0.5) for x in "xy" for model in "ab"]

    assert empirical_game(rows(0.5), minimum_prompts=2).P.tolist() == np.full((3, 3), 0.5).tolist()
    certain = empirical_game(rows(0.0), minimum_prompts=2, clip=0.02)
    assert certain.P[1, 2] == pytest.approx(0.98)
    assert certain.P[1, 0] == 1.0


def test_pairs_with_too_few_prompts_are_refused_or_their_models_dropped() -> None:
    strength, base = known_strengths(prompts=12)
    rows = [r for r in against_base(strength, base) if r["generator_2"] != "model 2" or r["prompt"] < "prompt 4"]
    few = sum(r["generator_2"] == "model 2" for r in rows)
    with pytest.raises(
        GameError,
        match=re.escape(f"4 pairs of models rest on fewer than 10 prompts, the fewest 'base' and 'model 2' ({few})"),
    ):
        empirical_game(rows)
    found = empirical_estimate(rows, incomplete="drop")
    assert found.dropped == ("model 2",)
    assert found.game.actions == ("base", "model 0", "model 1", "model 3")
    assert empirical_estimate(rows, minimum_prompts=few).game.num_actions == 5
    assert empirical_game(rows, exclude=["model 2"]).actions == found.game.actions
    with pytest.raises(GameError, match="fewer than two models with 13 prompts a pair"):
        empirical_game(rows, minimum_prompts=13, incomplete="drop")


def test_models_choose_and_order_the_actions_and_others_still_link_them() -> None:
    strength, base = known_strengths()
    rows = against_base(strength, base)
    whole = empirical_game(rows)
    part = empirical_game(rows, models=["model 3", "model 1"])
    assert part.actions == ("model 3", "model 1")
    assert part.P[0, 1] == whole.P[4, 2]
    np.testing.assert_array_equal(empirical_game(rows, models="model 3+model 1").P, part.P)


def test_rows_within_one_model_are_counted_and_hold_nothing() -> None:
    rows = against_base(*known_strengths())
    found = empirical_estimate([*rows, row("prompt 0", "base", "base", 0.9)])
    assert found.self_comparisons == 1
    np.testing.assert_array_equal(found.game.P, empirical_game(rows).P)


def test_chat_prompts_and_files_give_the_same_game(tmp_path: Path) -> None:
    rows = against_base(*known_strengths())
    for one in rows:
        one["prompt"] = [{"role": "user", "content": one["prompt"]}]
    text = "\n".join(map(json.dumps, rows)) + "\n\n"
    (tmp_path / "pairs.jsonl").write_text(text)
    (tmp_path / "pairs.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    expected = empirical_game(rows)
    for name in ("pairs.jsonl", "pairs.jsonl.gz"):
        path = tmp_path / name
        for game in (
            empirical_game(path),
            load(path),
            by_name(f"empirical:{path},minimum_prompts=5"),
            by_name(str(path)),
        ):
            np.testing.assert_array_equal(game.P, expected.P)
            assert (game.actions, game.name) == (expected.actions, "pairs")
    assert by_name(f"empirical:{tmp_path / 'pairs.jsonl'},models=model 0+model 2").actions == ("model 0", "model 2")


GOOD = row("x", "a", "b", 0.5)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no row compares two models, expected judged pairs with prompt, generator_1"),
        (
            [GOOD, {"prompt": "x", "generator_1": "a", "generator_2": "b", "win_prob": 0.5}],
            "row 2 has no column 'win_prob_1'",
        ),
        ([{**GOOD, "win_prob": 1, "win_prob_1": "0.5"}], "row 1: win_prob_1 is '0.5', expected a number in [0, 1]"),
        ([{"prompt": "x", "generator_1": "a", "generator_2": "b", "win_prob": 0.5}], "; rename 'win_prob'?"),
        ([{**GOOD, "win_prob_1": 1.5}], "row 1: win_prob_1 is 1.5, expected"),
        ([{**GOOD, "win_prob_1": float("nan")}], "row 1: win_prob_1 is nan, expected"),
        ([{**GOOD, "win_prob_1": None}], "row 1: win_prob_1 is None, expected"),
        ([{**GOOD, "win_prob_1": True}], "row 1: win_prob_1 is True, expected"),
        ([{**GOOD, "generator_2": 3}], "row 1: generator_2 is 3, expected the name of a model"),
        ([["x"]], "row 1 is a list, expected an object"),
        (GOOD, "pairs are a dict, expected a file or rows"),
        (3, "pairs are a int, expected a file or rows"),
    ],
)
def test_rows_that_cannot_be_used(rows: Any, message: str) -> None:
    with pytest.raises(GameError, match=re.escape(message)):
        empirical_game(rows)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minimum_prompts": 1}, "minimum_prompts is 1, expected at least 2"),
        ({"clip": 0.0}, "clip is 0.0, expected a number strictly between 0 and 0.5"),
        ({"clip": 0.5}, "clip is 0.5, expected a number strictly between 0 and 0.5"),
        ({"incomplete": "dorp"}, "unknown incomplete 'dorp'; did you mean 'drop'?"),
        ({"models": ["model 9"]}, "unknown model 'model 9'; did you mean 'model"),
        ({"exclude": "bose"}, "unknown model 'bose'; did you mean 'base'?"),
        ({"models": ["base", "base"]}, "expected each name once"),
        ({"models": ["base"]}, "fewer than two models"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(GameError, match=re.escape(message)):
        empirical_game(against_base(*known_strengths()), **settings)


def write_truncated_gzip(path: Path) -> None:
    whole = gzip.compress("\n".join(json.dumps(r) for r in against_base(*known_strengths())).encode())
    path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("pairs.jsonl", None, "no such file; expected judged pairs in .jsonl, .jsonl.gz form"),
        ("pairs.parquet", None, "suffix '.parquet', expected one of .jsonl, .jsonl.gz"),
        ("pairs.jsonl", lambda path: path.write_text(""), "no row compares two models"),
        ("pairs.jsonl", lambda path: path.write_text(json.dumps(GOOD)[:-5]), "line 1 is not a JSON object"),
        ("pairs.jsonl", lambda path: path.write_text("3\n"), "row 1 is a int, expected an object"),
        ("pairs.jsonl", lambda path: path.write_bytes(b"\xff\xfe"), "cannot be read"),
        ("pairs.jsonl.gz", write_truncated_gzip, "the file is truncated"),
        ("pairs.jsonl.gz", lambda path: path.write_text("{}"), "cannot be read (Not a gzipped file"),
        ("pairs.jsonl.gz", lambda path: path.write_bytes(b""), "no row compares two models"),
    ],
)
def test_files_that_cannot_be_used(
    tmp_path: Path, name: str, write: Callable[[Path], Any] | None, message: str
) -> None:
    if write is not None:
        write(tmp_path / name)
    with pytest.raises(GameError, match=re.escape(message)) as caught:
        empirical_game(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not REAL.exists(), reason=f"no judged responses of real models at {REAL}")
def test_real_models_make_a_game_with_cycles() -> None:
    found = empirical_estimate(REAL)
    game, off = found.game, ~np.eye(found.game.num_actions, dtype=bool)
    assert game.num_actions > 50
    assert found.prompts[off].min() >= 10
    # Only the baseline was compared with the others directly.
    baseline = game.actions.index("gpt4_1106_preview")
    assert np.count_nonzero(found.direct_prompts.sum(axis=1)) == game.num_actions
    assert not np.delete(np.delete(found.direct_prompts, baseline, 0), baseline, 1).any()
    assert 0.0 < found.standard_error[off].max() < 0.5 / np.sqrt(9)
    beats = game.P > 0.5
    assert np.trace(beats.astype(int) @ beats @ beats) > 0, "no three models in a circle"
    # How often a model beats the baseline is judged directly; how often it beats the others is not, yet must agree.
    others = np.arange(game.num_actions) != baseline
    against_the_rest = game.P[:, others].mean(axis=1)
    ranks = [np.argsort(np.argsort(rate[others])) for rate in (game.P[:, baseline], against_the_rest)]
    assert np.asarray(np.corrcoef(np.stack(ranks)))[0, 1] > 0.9
    strong, weak = game.actions.index("FuseChat-Gemma-2-9B-Instruct"), game.actions.index("pythia-12b-mix-sft")
    assert game.P[strong, weak] > 0.5 + 4 * found.standard_error[strong, weak]
    assert game.duality_gap(game.equilibrium()) < 1e-8
