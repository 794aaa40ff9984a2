"""Colours can be told apart by readers with deficient colour vision, and words can be read on them, light and dark."""

import itertools
import re
from importlib.resources import files

import numpy as np
import pytest
from numpy.typing import NDArray

from magnetar.reports.drawing.heat import FAINT, STRONG
from magnetar.reports.plot_style import COLORS

STYLE = (files("magnetar.reports") / "templates" / "style.css").read_text(encoding="utf-8")
# Machado, Oliveira and Fernandes (2009), A Physiologically-based Model for Simulation of Color Vision Deficiency:
# matrices for severity 1, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])
APART = 18.0  # CIE76; 2.3 is just noticeable side by side


def colors(dark: bool) -> dict[str, str]:
    """Variables of the style sheet, in full."""
    start = STYLE.index("prefers-color-scheme: dark") if dark else 0
    block = STYLE[start : STYLE.index("}", start)]
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", block))
    return {name: value if len(value) == 7 else "#" + 2 * value[1:] for name, value in found.items()}  # as #fff


def linear(color: str) -> NDArray[np.float64]:
    values = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(light: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio = TO_XYZ @ np.clip(light, 0, 1) / WHITE
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(first: str, second: str) -> float:
    """WCAG 2: from 1 to 21."""
    dark, light = sorted(float(TO_XYZ[1] @ linear(color)) for color in (first, second))
    return (light + 0.05) / (dark + 0.05)


def blend(color: str, below: str, opacity: float) -> str:
    mixed = [
        round(opacity * int(color[at : at + 2], 16) + (1 - opacity) * int(below[at : at + 2], 16)) for at in (1, 3, 5)
    ]
    return "#" + "".join(f"{value:02x}" for value in mixed)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_two_tones_look_alike(sight: str, dark: bool) -> None:
    found = colors(dark)
    tones = [found[f"tone-{number}"] for number in range(1, 9)]
    for names in (tones, [found["up"], found["down"]]):
        for first, second in itertools.combinations(names, 2):
            distance = float(np.linalg.norm(lab(SIGHT[sight] @ linear(first)) - lab(SIGHT[sight] @ linear(second))))
            assert distance >= APART, f"{first} and {second} are {distance:.1f} apart"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_words_and_lines_stand_out(dark: bool) -> None:
    found = colors(dark)
    for ink, ground in itertools.product(("ink", "muted"), ("card", "page")):
        assert contrast(found[ink], found[ground]) >= 4.5, f"{ink} on {ground}"
    for number in range(1, 9):
        assert contrast(found[f"tone-{number}"], found["card"]) >= 3.0
    for side in ("up", "down"):
        assert contrast(found[f"on-{side}"], found[side]) >= 4.5, "the share within a bar of outcomes"
        assert contrast(found[side], found[f"{side}-soft"]) >= 4.5, "a chip"
        for opacity in np.linspace(FAINT, FAINT + STRONG, 8):
            assert contrast(found["ink"], blend(found[f"cell-{side}"], found["card"], float(opacity))) >= 4.5, (
                "a cell's number"
            )


def test_figures_for_papers_have_the_tones_of_the_pages() -> None:
    assert [colors(dark=False)[f"tone-{number}"] for number in range(1, 9)] == list(COLORS)
