import re

import numpy as np
import pytest

from magnetar.errors import GameError
from magnetar.games.builders.registry import BUILDERS
from magnetar.games.builders.suite import suite


def test_standard_suite_is_large_and_of_every_kind() -> None:
    specs = suite("standard")
    assert len(specs) >= 100
    assert len({spec.name for spec in specs}) == len(specs)
    assert {spec.family for spec in specs} == set(BUILDERS)
    assert (min(s.num_actions for s in specs), max(s.num_actions for s in specs)) == (3, 1000)
    assert specs == suite()


def test_small_suite_is_small_and_of_every_kind() -> None:
    specs = suite("small")
    assert 10 <= len(specs) <= 15
    assert max(spec.num_actions for spec in specs) <= 50
    assert {spec.family for spec in specs} == set(BUILDERS)


@pytest.mark.parametrize("name", ["standard", "small"])
def test_specs_build_what_they_say(name: str) -> None:
    games = [spec.build() for spec in suite(name) if spec.num_actions <= 100]
    for spec, game in zip((s for s in suite(name) if s.num_actions <= 100), games, strict=True):
        assert (game.num_actions, game.name) == (spec.num_actions, spec.name)
    # No game stands twice under two names; each has been built from its own settings.
    assert len({game.P.tobytes() for game in games}) == len(games)
    np.testing.assert_array_equal(games[5].P, suite(name)[5].build().P)


def test_unknown_suite() -> None:
    with pytest.raises(GameError, match=re.escape("unknown suite 'smal'; did you mean 'small'?")):
        suite("smal")
