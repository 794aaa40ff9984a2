"""The helpers that check what a user gives and say what to give instead."""

import numpy as np
import pytest

from magnetar.errors import ConfigError, GameError, checked_integer


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_every_kind_of_integer_is_one(value):
    number = checked_integer("updates", value, 0)
    assert number == 3
    assert type(number) is int


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2.5, "updates is 2.5, expected an integer of at least 1; for instance 1"),
        (1e3, "updates is 1000.0, expected an integer of at least 1; for instance 1000"),
        (float("inf"), "updates is inf, expected an integer of at least 1; for instance 1"),
        (float("nan"), "updates is nan, expected an integer"),
        ("10", "updates is '10', expected an integer"),
        (None, "updates is None, expected an integer"),
        (True, "updates is True, expected an integer"),
        (np.True_, "updates is np.True_, expected an integer"),
        (np.array([3, 4]), r"updates is array\(\[3, 4\]\), expected an integer"),
        (0, "updates is 0, expected at least 1"),
        (np.int64(-3), "updates is -3, expected at least 1"),
    ],
)
def test_what_is_no_integer_or_too_small_is_refused(value, message):
    with pytest.raises(ConfigError, match=message):
        checked_integer("updates", value, 1)


def test_the_error_is_of_the_class_that_was_asked_for():
    with pytest.raises(GameError, match=r"actions is 1\.5"):
        checked_integer("actions", 1.5, 1, GameError)
