import dataclasses

import pytest

from magnetar import methods
from magnetar.errors import ConfigError
from magnetar.methods import EachRound, Ema, EveryNUpdates, FixedMagnet, MagnetClock, Opponent, build_method


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_states_its_name_source_and_what_it_converges_to(name: str):
    method = build_method(name)
    assert method.name == name
    assert method.source.startswith(("arXiv:", "this library"))
    assert method.converges_to in methods.CONVERGES_TO
    assert method.settings["magnet"] == method.magnet.describe()


def test_an_unknown_method_is_named_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r"unknown method 'mpo_tr'; did you mean 'mpo_rt'"):
        build_method("mpo_tr")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prediction": "optimistik"}, "unknown prediction 'optimistik'; did you mean 'optimistic'"),
        (
            {"prediction": "extragradient", "opponent": Opponent("reference")},
            "opponent 'reference', expected self",
        ),
        ({"prediction": "optimistic", "objective": methods.HamiltonianDescent(1.0)}, "HamiltonianDescent chooses its"),
    ],
)
def test_a_prediction_that_could_not_be_made_is_refused(settings: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(build_method("mpo"), **settings)


@pytest.mark.parametrize("settings", [{"role": "mixture", "reference_weight": 1.5}, {"reference_weight": 0.1}])
def test_a_mixture_weight_out_of_place_is_refused(settings: dict):
    with pytest.raises(ConfigError, match="reference_weight is"):
        Opponent(**settings)


@pytest.mark.parametrize("name", ["omd", "inpo", "nash_md", "egpo"])
def test_methods_near_a_reference_need_a_strength(name: str):
    with pytest.raises(ConfigError, match="magnet_strength is 0"):
        build_method(name, magnet_strength=0.0)


def test_a_setting_of_another_method_is_refused_with_its_owners():
    with pytest.raises(ConfigError, match=r"'mirror_descent' has no setting 'magnet_strength'; it belongs to mpo"):
        build_method("mirror_descent", magnet_strength=0.1)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_a_step_size_or_strength_that_is_not_positive_is_refused(bad: float):
    with pytest.raises(ConfigError, match="step_size is"):
        build_method("mpo", step_size=bad)
    with pytest.raises(ConfigError, match="magnet_strength is"):
        build_method("mpo_rt", magnet_strength=bad)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"proximal": "clipp"}, "did you mean 'clip'"),
        ({"kl_estimator": "exakt"}, "did you mean 'exact'"),
        ({"clip_range": 0.0}, "clip_range is 0.0"),
        ({"magnet_every": 0}, "magnet_every is 0"),
    ],
)
def test_a_setting_outside_its_range_is_refused(settings: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        build_method("mpo", **settings)


def test_an_unknown_opponent_is_refused():
    with pytest.raises(ConfigError, match="unknown opponent 'referense'; did you mean 'reference'"):
        Opponent("referense")  # type: ignore[arg-type]


def test_schedules_move_the_magnet_exactly_when_they_say():
    clocks = [MagnetClock(update, round_ended=update in (3, 6)) for update in range(1, 7)]
    assert [EveryNUpdates(2).rate(c) for c in clocks] == [0, 1, 0, 1, 0, 1]
    assert [EachRound().rate(c) for c in clocks] == [0, 0, 1, 0, 0, 1]
    assert [FixedMagnet().rate(c) for c in clocks] == [0] * 6
    assert [Ema(0.1).rate(c) for c in clocks] == [0.1] * 6


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.5])
def test_a_moving_average_that_would_not_average_says_what_to_use_instead(rate: float):
    with pytest.raises(ConfigError, match="for that value use magnet_schedule"):
        Ema(rate)
