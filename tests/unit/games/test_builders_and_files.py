import json
import re
from pathlib import Path

import numpy as np
import pytest

from magnetar import games
from magnetar.errors import GameError


def test_rps_says_who_beats_whom() -> None:
    game = games.rps()
    rock, paper, scissors = (game.actions.index(name) for name in ("rock", "paper", "scissors"))
    assert game.P[paper, rock] == game.P[scissors, paper] == game.P[rock, scissors] == 1.0


def test_biased_rps_is_the_published_matrix() -> None:
    np.testing.assert_allclose(games.biased_rps().P, [[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]], atol=1e-16)


@pytest.mark.parametrize("actions", [1, 2, 5, 8])
def test_cyclic_game_looks_the_same_to_every_action(actions: int) -> None:
    game = games.cyclic_game(actions)
    assert game.num_actions == actions
    for shift in range(actions):
        np.testing.assert_array_equal(np.roll(game.P, (shift, shift), axis=(0, 1)), game.P)
    np.testing.assert_allclose(game.P.sum(axis=1), actions / 2)
    assert (np.unique(game.P).size == 3) == (actions > 2)


@pytest.mark.parametrize("build", [games.random_game, games.noisy_bradley_terry])
def test_random_builders_depend_on_seed_and_size_only(build) -> None:
    np.testing.assert_array_equal(build(12, seed=1).P, build(12, seed=1).P)
    assert not np.array_equal(build(12, seed=1).P, build(12, seed=2).P)
    assert build(12, seed=1).num_actions == 12


def test_spread_and_noise_of_the_bradley_terry_game_change_it() -> None:
    def logit(**settings: float) -> np.ndarray:
        win_prob = games.noisy_bradley_terry(40, seed=0, **settings).P
        return np.log(win_prob / win_prob.T)

    ordered = logit(noise=0.0)
    # Bradley–Terry logits are differences of scores: they add up along any path.
    np.testing.assert_allclose(ordered[0, 1] + ordered[1, 2], ordered[0, 2], atol=1e-12)
    noise = logit(noise=0.5) - ordered
    assert np.std(noise[np.triu_indices(40, 1)]) == pytest.approx(0.5, rel=0.1)
    np.testing.assert_allclose(logit(noise=0.0, spread=3.0), 3.0 * ordered, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(logit(noise=0.0, spread=0.0), 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: games.random_game(0), "actions is 0, expected at least 1"),
        (lambda: games.random_game(3, seed=-1), "seed is -1, expected"),
        (lambda: games.noisy_bradley_terry(3, noise=-1.0), "noise is -1.0, expected"),
        (lambda: games.noisy_bradley_terry(3, spread=float("inf")), "spread is inf, expected"),
        (lambda: games.by_name("rsp"), "unknown game 'rsp'; did you mean 'rps'?"),
        (lambda: games.by_name("rps", actions=4), "game 'rps' has no setting 'actions' (given 4)"),
        (lambda: games.by_name("cyclic_game", seed=4), "game 'cyclic_game' has no setting 'seed' (given 4)"),
    ],
)
def test_bad_builder_input(call, message: str) -> None:
    with pytest.raises(GameError, match=re.escape(message)):
        call()


@pytest.mark.parametrize("name", games.BUILDERS)
def test_every_builder_is_found_by_name(name: str) -> None:
    assert games.by_name(name).name.startswith(name)


def test_by_name_passes_settings_on() -> None:
    np.testing.assert_array_equal(games.by_name("random_game", actions=4, seed=7).P, games.random_game(4, 7).P)


def test_load_reads_every_form(tmp_path: Path) -> None:
    game = games.random_game(4, seed=0)
    np.save(tmp_path / "plain.npy", game.P)
    rows = "\n".join(",".join(repr(float(x)) for x in row) for row in game.P)
    (tmp_path / "plain.csv").write_text(rows + "\n")
    (tmp_path / "named.csv").write_text("a, b, c, d\n" + rows + "\n\n")
    (tmp_path / "plain.json").write_text(json.dumps(game.P.tolist()))
    (tmp_path / "named.json").write_text(json.dumps({"P": game.P.tolist(), "actions": list("abcd"), "name": "mine"}))
    for file in sorted(tmp_path.iterdir()):
        loaded = games.load(file)
        np.testing.assert_array_equal(loaded.P, game.P)
        assert loaded.actions == (tuple("abcd") if file.stem == "named" else tuple("0123"))
        assert loaded.name == ("mine" if file.name == "named.json" else file.stem)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.npy", None, "no such file"),
        ("game.txt", b"0.5", "suffix '.txt', expected one of .npy, .csv, .json"),
        ("game.npy", b"not numpy", "cannot be read as .npy"),
        ("empty.npy", b"", "cannot be read as .npy"),
        ("game.json", b"{", "cannot be read as .json"),
        ("keys.json", b'{"matrix": [[0.5]]}', "an object with ['matrix'], expected P"),
        ("extra.json", b'{"P": [[0.5]], "note": 1}', "an object with ['P', 'note'], expected P"),
        ("text.json", b'"rps"', "is not an array of numbers"),
        ("game.csv", b"a,b\n0.5,x\n0.5,0.5", "cannot be read as .csv"),
        ("ragged.csv", b"0.5,0.5\n0.5", "is not an array of numbers"),
        ("empty.csv", b"", "P has shape (0,), expected a square matrix"),
        ("sum.csv", b"0.5,0.9\n0.4,0.5", "sum.csv: P[0,1] + P[1,0] = 1.3"),
        ("binary.csv", b"\xff\xfe\x00", "cannot be read as .csv"),
    ],
)
def test_files_that_hold_no_game(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(GameError, match=re.escape(message)):
        games.load(tmp_path / name)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "pickle.npy", np.array([[0.5, None], [None, 0.5]], dtype=object), allow_pickle=True)
    with pytest.raises(GameError, match=r"cannot be read as \.npy"):
        games.load(tmp_path / "pickle.npy")


def test_load_policy_reads_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("0.2,0.3,0.5\n")
    (tmp_path / "b.json").write_text("[0.2, 0.3, 0.5]")
    (tmp_path / "c.csv").write_text("1\n")
    np.testing.assert_array_equal(games.load_policy(tmp_path / "a.csv"), [0.2, 0.3, 0.5])
    np.testing.assert_array_equal(games.load_policy(tmp_path / "b.json"), [0.2, 0.3, 0.5])
    np.testing.assert_array_equal(games.load_policy(tmp_path / "c.csv"), [1.0])
    (tmp_path / "d.csv").write_text("0.2,0.8\n0.5,0.5\n")
    (tmp_path / "e.json").write_text('{"a": 1}')
    for name in ("d.csv", "e.json"):
        with pytest.raises(GameError, match="expected one row of probabilities"):
            games.load_policy(tmp_path / name)
