import re
from pathlib import Path

import numpy as np
import pytest

from magnetar.errors import GameError
from magnetar.games.builders import registry as builders
from magnetar.games.builders.registry import BUILDERS, READERS, by_name, describe
from magnetar.games.game import PreferenceGame


def log_odds(game: PreferenceGame) -> np.ndarray:
    return np.log(game.P / game.P.T)


def assert_equilibrium(game: PreferenceGame, policy: np.ndarray) -> None:
    assert game.duality_gap(policy) < 1e-12


class TestCycles:
    def test_rps_says_who_beats_whom(self) -> None:
        game = builders.rps()
        rock, paper, scissors = (game.actions.index(name) for name in ("rock", "paper", "scissors"))
        assert game.P[paper, rock] == game.P[scissors, paper] == game.P[rock, scissors] == 1.0

    def test_biased_rps_is_the_published_matrix(self) -> None:
        published = [[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]]
        np.testing.assert_array_equal(builders.biased_rps().P, published)
        np.testing.assert_allclose(builders.biased_rps().equilibrium(), [0.3, 0.3, 0.4], atol=1e-12)

    @pytest.mark.parametrize("odds", [(0.99, 0.6, 0.55), (0.6, 0.7, 0.8), (0.2, 0.4, 0.1)])
    def test_equilibrium_of_biased_rps_is_the_documented_one(self, odds: tuple[float, float, float]) -> None:
        p01, p12, p20 = odds
        margin = np.array([p12, p20, p01]) - 0.5
        game = builders.biased_rps(*odds)
        assert (game.P[0, 1], game.P[1, 2]) == pytest.approx((p01, p12))
        np.testing.assert_allclose(game.equilibrium(), margin / margin.sum(), atol=1e-12)

    @pytest.mark.parametrize("actions", [1, 2, 5, 8])
    def test_cyclic_game_looks_the_same_to_every_action(self, actions: int) -> None:
        game = builders.cyclic_game(actions)
        assert game.num_actions == actions
        for shift in range(actions):
            np.testing.assert_array_equal(np.roll(game.P, (shift, shift), axis=(0, 1)), game.P)
        np.testing.assert_allclose(game.P.sum(axis=1), actions / 2)
        assert (np.unique(game.P).size == 3) == (actions > 2)

    def test_win_of_the_cyclic_game_is_the_probability_of_winning(self) -> None:
        game = builders.cyclic_game(5, win=0.7)
        assert game.P[1, 0] == game.P[2, 0] == pytest.approx(0.7)
        assert game.P[3, 0] == game.P[4, 0] == pytest.approx(0.3)

    def test_blocks_of_clones_share_the_equilibrium_in_any_way(self) -> None:
        game = builders.cyclic_block_game(blocks=3, block_size=4, win=0.9)
        assert game.P[4, 0] == game.P[8, 4] == game.P[0, 8] == pytest.approx(0.9)
        assert game.actions[4] == "1.0"
        generator = np.random.default_rng(0)
        for _ in range(5):
            inside = generator.dirichlet(np.ones(4), size=3)
            assert_equilibrium(game, (inside / 3).ravel())
        np.testing.assert_allclose(game.equilibrium().reshape(3, 4).sum(axis=1), 1 / 3, atol=1e-12)
        lopsided = np.concatenate([np.full(4, 0.5), np.full(4, 0.3), np.full(4, 0.2)]) / 4
        assert game.duality_gap(lopsided) > 0.05

    def test_blocks_of_near_clones_are_mixed_as_each_block_alone(self) -> None:
        game = builders.cyclic_block_game(blocks=5, block_size=6, seed=2, win=0.8, difference=0.2)
        inside = [PreferenceGame(game.P[at : at + 6, at : at + 6]).equilibrium() for at in range(0, 30, 6)]
        assert_equilibrium(game, np.concatenate(inside) / 5)
        np.testing.assert_allclose(game.equilibrium(), np.concatenate(inside) / 5, atol=1e-9)
        deviation = np.abs(game.P[:6, :6] - 0.5)
        assert 0.1 < deviation.max() <= 0.2


class TestDisc:
    POINTS = np.array([[0.9, 0.1], [-0.3, 0.7], [-0.2, -0.8], [0.1, 0.3]])

    def test_probabilities_are_those_of_the_cross_product(self) -> None:
        for form, expected in (
            ("logistic", lambda c: 1 / (1 + np.exp(-1.5 * c))),
            ("linear", lambda c: 0.5 + 0.375 * c),
        ):
            game = builders.game_of_points(self.POINTS, 1.5, form)  # type: ignore[arg-type]
            for i, u in enumerate(self.POINTS):
                for j, w in enumerate(self.POINTS):
                    cross = float(np.linalg.det(np.stack([u, w])))
                    assert game.P[i, j] == pytest.approx(expected(cross), abs=1e-14)

    def test_turning_all_points_changes_nothing_and_mirroring_swaps_winners(self) -> None:
        game = builders.game_of_points(self.POINTS)
        angle = 0.7
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        np.testing.assert_allclose(builders.game_of_points(self.POINTS @ turn.T).P, game.P, atol=1e-15)
        np.testing.assert_allclose(builders.game_of_points(self.POINTS * [1, -1]).P, game.P.T, atol=1e-15)

    def test_linear_equilibrium_has_its_mean_point_at_the_origin(self) -> None:
        game = builders.disc_game(40, seed=1, form="linear")
        # With the origin among the points every payoff is a tie: the mean point has no cross product with any.
        np.testing.assert_allclose((game.P - 0.5) @ game.equilibrium(), 0.0, atol=1e-9)
        assert np.linalg.matrix_rank(game.P - 0.5, tol=1e-9) == 2

    def test_most_clockwise_point_of_a_half_disc_wins(self) -> None:
        angles = np.array([0.3, 2.0, 1.1, 0.2, 2.8])
        points = 0.8 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        for form in ("logistic", "linear"):
            game = builders.game_of_points(points, form=form)
            np.testing.assert_allclose(game.equilibrium(), np.eye(5)[3], atol=1e-9)

    def test_discs_are_ranks_and_strength_scales_log_odds(self) -> None:
        game = builders.disc_game(30, seed=4, discs=3)
        assert np.linalg.matrix_rank(log_odds(game), tol=1e-9) == 6
        np.testing.assert_allclose(log_odds(builders.disc_game(30, seed=4, discs=3, strength=6.0)), 3 * log_odds(game))

    def test_points_fill_the_disc_evenly(self) -> None:
        # In the linear form the squared log-odds have the mean k² E|u|²² / 2 = k² / 8 for u uniform on the disc.
        game = builders.disc_game(1500, seed=0, strength=2.0, form="linear")
        c = 2.0 * (game.P - 0.5)
        assert np.mean(c**2) == pytest.approx(1 / 8, rel=0.05)


class TestOrders:
    def test_log_odds_add_up_along_any_path_and_the_best_action_is_the_equilibrium(self) -> None:
        game = builders.bradley_terry(40, seed=0)
        logit = log_odds(game)
        np.testing.assert_allclose(logit[0, 1] + logit[1, 2], logit[0, 2], atol=1e-12)
        np.testing.assert_allclose(game.equilibrium(), np.eye(40)[logit.sum(axis=1).argmax()], atol=1e-12)
        np.testing.assert_array_equal(game.P, builders.noisy_bradley_terry(40, seed=0, noise=0.0).P)
        np.testing.assert_allclose(log_odds(builders.bradley_terry(40, seed=0, spread=2.0)), 2 * logit, atol=1e-9)

    def test_spread_and_noise_of_the_bradley_terry_game_change_it(self) -> None:
        def logit(**settings: float) -> np.ndarray:
            return log_odds(builders.noisy_bradley_terry(40, seed=0, **settings))

        ordered = logit(noise=0.0)
        noise = logit(noise=0.5) - ordered
        assert np.std(noise[np.triu_indices(40, 1)]) == pytest.approx(0.5, rel=0.1)
        np.testing.assert_allclose(logit(noise=0.0, spread=3.0), 3.0 * ordered, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(logit(noise=0.0, spread=0.0), 0.0)


class TestRandom:
    @pytest.mark.parametrize("name", BUILDERS)
    def test_every_builder_is_reproducible(self, name: str) -> None:
        np.testing.assert_array_equal(by_name(name).P, by_name(name).P)

    @pytest.mark.parametrize(
        "name", ["random_game", "noisy_bradley_terry", "disc_game", "random_annotators", "tournament", "egpo_game"]
    )
    def test_random_builders_depend_on_seed_and_size_only(self, name: str) -> None:
        build = BUILDERS[name]
        np.testing.assert_array_equal(build(12, seed=1).P, build(12, seed=1).P)
        assert not np.array_equal(build(12, seed=1).P, build(12, seed=2).P)
        assert build(12, seed=1).num_actions == 12

    @pytest.mark.parametrize("build", [builders.random_game, builders.egpo_game])
    def test_every_pair_is_uniform_and_independent(self, build) -> None:
        game = build(300, seed=0)
        drawn = game.P[np.tril_indices(300, -1)]
        share, _ = np.histogram(drawn, bins=10, range=(0, 1))
        # Five standard deviations of a bin's share of independent uniform numbers.
        np.testing.assert_allclose(share / drawn.size, 0.1, atol=5 * np.sqrt(0.09 / drawn.size))
        assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 5 / np.sqrt(drawn.size)

    def test_kinds_of_egpo_game(self) -> None:
        np.testing.assert_array_equal(builders.egpo_game(4, kind="tie").P, np.full((4, 4), 0.5))
        np.testing.assert_array_equal(
            builders.egpo_game(4, kind="lower_win").P, np.tril(np.ones((4, 4)), -1) + np.eye(4) / 2
        )
        np.testing.assert_allclose(builders.egpo_game(4, kind="lower_win").equilibrium(), [0, 0, 0, 1], atol=1e-12)

    def test_egpo_reference_is_a_softmax_of_normal_logits(self) -> None:
        logits = np.log(builders.egpo_reference(4000, seed=1))
        logits -= logits.mean()
        assert np.std(logits) == pytest.approx(1.0, rel=0.05)
        assert np.mean(logits**3) == pytest.approx(0.0, abs=0.15)
        assert builders.egpo_reference(10).sum() == pytest.approx(1.0)

    @pytest.mark.parametrize("seed", range(5))
    def test_tournament_equilibrium_is_odd_and_does_not_depend_on_the_margin(self, seed: int) -> None:
        sure, narrow = builders.tournament(12, seed), builders.tournament(12, seed, win=0.55)
        assert set(np.unique(sure.P)) == {0.0, 0.5, 1.0}
        np.testing.assert_array_equal(np.sign(sure.P - 0.5), np.sign(narrow.P - 0.5))
        equilibrium = sure.equilibrium()
        assert np.count_nonzero(equilibrium > 1e-9) % 2 == 1
        np.testing.assert_allclose(narrow.equilibrium(), equilibrium, atol=1e-9)
        policy = np.random.default_rng(seed).dirichlet(np.ones(12))
        assert narrow.duality_gap(policy) == pytest.approx(0.1 * sure.duality_gap(policy))


class TestAnnotators:
    def test_three_annotators_make_the_classical_cycle(self) -> None:
        expected = [[1 / 2, 2 / 3, 1 / 3], [1 / 3, 1 / 2, 2 / 3], [2 / 3, 1 / 3, 1 / 2]]
        rankings = [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]
        for game in (builders.condorcet_cycle(), builders.ranking_game(rankings)):
            np.testing.assert_allclose(game.P, expected, atol=1e-15)
            np.testing.assert_allclose(game.equilibrium(), 1 / 3, atol=1e-12)
        assert builders.ranking_game(rankings).actions == ("a", "b", "c")

    def test_longer_cycles_follow_the_documented_formula(self) -> None:
        game = builders.condorcet_cycle(7)
        for i in range(7):
            for j in range(7):
                d = (j - i) % 7
                assert game.P[i, j] == pytest.approx(0.5 if d == 0 else (7 - d) / 7)
        assert_equilibrium(game, np.full(7, 1 / 7))

    def test_probabilities_average_annotators_by_weight(self) -> None:
        game = builders.annotator_game([[0.0, 1.0], [3.0, 1.0]], weights=[3, 1], form="probability", temperature=2.0)
        expected = 0.75 / (1 + np.exp(0.5)) + 0.25 / (1 + np.exp(-1.0))
        assert game.P[0, 1] == pytest.approx(expected, abs=1e-15)

    def test_votes_count_shares_and_halve_ties(self) -> None:
        game = builders.annotator_game([[0.0, 1.0, 1.0], [3.0, 1.0, 2.0]], weights=[3, 1], actions=["x", "y", "z"])
        np.testing.assert_allclose(game.P, [[0.5, 0.25, 0.25], [0.75, 0.5, 0.375], [0.75, 0.625, 0.5]], atol=1e-15)
        assert game.actions == ("x", "y", "z")

    def test_probability_form_becomes_the_vote_as_the_temperature_falls(self) -> None:
        vote = builders.random_annotators(8, seed=3, annotators=5)
        cold = builders.random_annotators(8, seed=3, annotators=5, form="probability", temperature=1e-6)
        warm = builders.random_annotators(8, seed=3, annotators=5, form="probability")
        np.testing.assert_allclose(cold.P, vote.P, atol=1e-12)
        assert np.abs(warm.P - vote.P).max() > 0.1

    def test_one_annotator_is_transitive_and_full_agreement_is_one_annotator(self) -> None:
        for settings in ({"annotators": 1}, {"annotators": 9, "agreement": 1.0}):
            game = builders.random_annotators(10, seed=1, **settings)  # type: ignore[arg-type]
            assert sorted(np.round(game.P.sum(axis=1) - 0.5).astype(int)) == list(range(10))
            assert game.equilibrium().max() == pytest.approx(1.0)

    def test_a_weight_can_break_the_cycle(self) -> None:
        rankings = [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]
        game = builders.ranking_game(rankings, weights=[0.6, 0.2, 0.2])
        np.testing.assert_allclose(game.equilibrium(), [1, 0, 0], atol=1e-12)


class TestPage:
    PAGE = (Path(__file__).parents[3] / "docs" / "games.md").read_text(encoding="utf-8")

    def test_every_game_has_a_section_that_names_each_setting(self) -> None:
        sections = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", self.PAGE, re.M | re.S))
        assert set(sections) == {*BUILDERS, *READERS}
        for row in describe():
            for setting, _ in row.settings:
                assert f"`{setting}" in sections[row.name], f"{row.name} does not name {setting}"

    def test_every_game_that_the_page_runs_can_be_built(self) -> None:
        specs = re.findall(r"--game (\S+)", self.PAGE)
        built = [by_name(spec) for spec in specs if not spec.startswith(("file:", "empirical:"))]
        assert len(built) >= len(BUILDERS)


class TestNames:
    @pytest.mark.parametrize("name", BUILDERS)
    def test_every_builder_is_found_by_name(self, name: str) -> None:
        assert by_name(name).name.startswith(name)

    def test_settings_come_from_arguments_or_text(self) -> None:
        expected = builders.random_game(4, 7).P
        np.testing.assert_array_equal(by_name("random_game", actions=4, seed=7).P, expected)
        np.testing.assert_array_equal(by_name("random_game:actions=4,seed=7").P, expected)
        np.testing.assert_array_equal(by_name("random: actions=4", seed=7).P, expected)
        game = by_name("disc:actions=9,form=linear,strength=1.5", discs=2)
        np.testing.assert_array_equal(game.P, builders.disc_game(9, strength=1.5, discs=2, form="linear").P)

    def test_names_of_games_tell_their_settings(self) -> None:
        assert by_name("random:seed=3").name == "random_game(10, seed=3)"
        assert by_name("noisy_bradley_terry:actions=5,noise=2").name == "noisy_bradley_terry(5, seed=0, noise=2.0)"
        assert by_name("rps").name == "rps"

    def test_files_are_named_by_path_or_prefix(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        np.save(tmp_path / "mine, too.npy", builders.biased_rps().P)
        monkeypatch.chdir(tmp_path)
        for spec in (
            tmp_path / "mine, too.npy",
            "mine, too.npy",
            "file:mine, too.npy",
            str(tmp_path / "mine, too.npy"),
        ):
            np.testing.assert_array_equal(by_name(spec).P, builders.biased_rps().P)

    def test_descriptions_hold_every_setting_and_a_line(self) -> None:
        rows = {row.name: row for row in describe()}
        assert list(rows) == [*BUILDERS, *READERS]
        assert rows["random_game"].settings == (("actions", "10"), ("seed", "0"))
        assert rows["file"].settings == (("path", "required"),)
        assert len({row.summary for row in rows.values()}) == len(rows)
        assert all(20 < len(row.summary) < 120 for row in rows.values())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: builders.random_game(0), "actions is 0, expected at least 1"),
        (lambda: builders.random_game(3.5), "actions is 3.5, expected an integer of at least 1"),  # type: ignore[arg-type]
        (lambda: builders.random_game(True), "actions is True, expected an integer"),
        (lambda: builders.random_game(10**6), "actions is 1000000, expected at most 20000"),
        (lambda: builders.random_game(3, seed=-1), "seed is -1, expected"),
        (lambda: builders.noisy_bradley_terry(3, noise=-1.0), "noise is -1.0, expected"),
        (lambda: builders.noisy_bradley_terry(3, spread=float("inf")), "spread is inf, expected"),
        (lambda: builders.noisy_bradley_terry(3, spread="much"), "spread is much, expected"),  # type: ignore[arg-type]
        (lambda: builders.biased_rps(p12=1.2), "p12 is 1.2, expected a number in [0, 1]"),
        (lambda: builders.cyclic_game(3, win=0.2), "win is 0.2, expected a number in [0.5, 1]"),
        (lambda: builders.cyclic_block_game(200, 200), "blocks * block_size is 40000, expected at most 20000"),
        (lambda: builders.cyclic_block_game(difference=0.6), "difference is 0.6, expected a number in [0, 0.5]"),
        (lambda: builders.disc_game(strength=3.0, form="linear"), "strength is 3.0, expected a number in [0, 2]"),
        (lambda: builders.disc_game(form="linaer"), "unknown form 'linaer'; did you mean 'linear'?"),  # type: ignore[arg-type]
        (lambda: builders.game_of_points([[2.0, 0.0]]), "point 0 is [[2.0, 0.0]], expected a length of at most 1"),
        (lambda: builders.game_of_points([[np.nan, 0.0]]), "point 0 is [[nan, 0.0]], expected a length"),
        (lambda: builders.game_of_points([1.0, 0.0]), "points have shape (2,), expected (A, 2)"),
        (lambda: builders.egpo_game(kind="ties"), "unknown kind 'ties'; did you mean 'tie'?"),  # type: ignore[arg-type]
        (lambda: builders.annotator_game([[1.0, np.inf]]), "utilities[0, 1] = inf, expected a finite number"),
        (lambda: builders.annotator_game([1.0, 2.0]), "utilities have shape (2,), expected (annotators, actions)"),
        (lambda: builders.annotator_game([["a", "b"]]), "must be arrays of numbers"),
        (lambda: builders.annotator_game([[1.0, 2.0]], weights=[1, 1]), "weights have shape (2,), expected (1,)"),
        (lambda: builders.annotator_game([[1.0, 2.0]], weights=[0]), "weights are [0.0], expected"),
        (lambda: builders.annotator_game([[1.0]], temperature=0.0), "temperature is 0.0, expected a positive"),
        (lambda: builders.ranking_game([]), "there is no ranking"),
        (
            lambda: builders.ranking_game([["a", "b"], ["a", "a"]]),
            "ranking 1 is ['a', 'a'], expected each of a, b once",
        ),
        (lambda: by_name("rsp"), "unknown game 'rsp'; did you mean 'rps'?"),
        (lambda: by_name(3), "a game is named by text such as"),  # type: ignore[arg-type]
        (lambda: by_name(""), "unknown game ''"),
        (lambda: by_name("rps", actions=4), "game 'rps' has no setting 'actions' (given 4); it has none"),
        (lambda: by_name("cyclic_game", seed=4), "game 'cyclic_game' has no setting 'seed' (given 4); it has actions"),
        (lambda: by_name("disc_game", strenght=4), "has no setting 'strenght' (given 4); did you mean 'strength'?"),
        (lambda: by_name("random:action=4"), "unknown setting 'action'; did you mean 'actions'?"),
        (lambda: by_name("random:actions=ten"), "actions is 'ten', expected an integer"),
        (lambda: by_name("random:seed"), "'seed' is no setting, expected KEY=VALUE"),
        (lambda: by_name("random:seed=3", seed=4), "seed is given twice"),
        (lambda: by_name("noisy_bradley_tery:noise=0.5"), "did you mean 'noisy_bradley_terry'?"),
        (lambda: by_name("file:"), "names no file, expected file:PATH"),
        (lambda: by_name("nowhere.csv"), "nowhere.csv: no such file"),
        (lambda: by_name("nowhere.csv", actions=3), "game 'file' has no setting 'actions' (given 3)"),
    ],
)
def test_bad_input_is_one_clear_error(call, message: str) -> None:
    with pytest.raises(GameError, match=re.escape(message)) as caught:
        call()
    assert "\n" not in str(caught.value)
