"""The pages of docs/methods: one for each method, true to its signature, and what they state by hand."""

import importlib.util
import inspect
import math
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmark_scripts import load_script
from magnetar import games, methods
from magnetar.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "methods"
SECTIONS = (
    "What it solves",
    "Update",
    "Guarantee",
    "What we measured",
    "Settings",
    "On language models",
    "Command",
    "Source",
)
LARGEST_FIGURE_BYTES = 80_000

every_method = pytest.mark.parametrize("name", list(methods.METHODS))
every_page = pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)


sections = load_script("language_model_sections")
script = load_script("method_pages")
evidence = load_script("language_model_evidence")
TRAINABLE = [name for name, make in methods.METHODS.items() if make().games_only_because is None]
every_trainable = pytest.mark.parametrize("name", TRAINABLE)


def text_of(name: str) -> str:
    page = PAGES / f"{name}.md"
    assert page.is_file(), f"method {name!r} has no page: write {page} with the markers of another page"
    return page.read_text(encoding="utf-8")


def between_markers(text: str, marker: str) -> str:
    return text.split(f"<!-- {marker}:begin -->\n")[1].split(f"\n<!-- {marker}:end -->")[0]


@every_method
def test_the_sections_come_in_the_same_order(name: str) -> None:
    text = text_of(name)
    assert re.match(rf"# .+ \(`{name}`\)\n\n[A-Z][^\n]+\.\n\n## ", text), "expected a title and one sentence"
    assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == SECTIONS
    for section in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]:
        assert len(section.split()) >= 10


@every_method
def test_every_setting_is_there_with_its_default(name: str) -> None:
    rows = between_markers(text_of(name), "settings").splitlines()[2:]
    parameters = inspect.signature(methods.METHODS[name]).parameters
    stated = {row.split(" | ")[0]: row.split(" | ")[2] for row in rows}
    assert stated == {f"| `{key}`": f"`{parameter.default!r}`" for key, parameter in parameters.items()}


@every_method
def test_what_follows_from_the_code_is_up_to_date(name: str) -> None:
    text = text_of(name)
    for marker, content in script.blocks(name).items():
        assert between_markers(text, marker) == content, f"run: python benchmarks/method_pages.py {name}"


def test_the_index_is_up_to_date() -> None:
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    assert between_markers(index, "common") == script.common_block(), "run: python benchmarks/method_pages.py --text"
    assert between_markers(index, "index") == script.index_block(), "run: python benchmarks/method_pages.py mpo"


@every_method
def test_the_source_of_the_zoo_is_named_and_linked(name: str) -> None:
    source, section = methods.METHODS[name]().source, text_of(name).split("## Source")[1]
    assert source in section
    for number in re.findall(r"arXiv:(\d{4}\.\d{5})", source):
        assert f"(https://arxiv.org/abs/{number})" in section


# Each update of these two fits scores to the whole matrix.
SLOW = ("bt_rlhf", "iterative_dpo")
with_slow_ones_marked = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in methods.METHODS]


@pytest.mark.parametrize("name", with_slow_ones_marked)
def test_the_numbers_are_those_that_the_method_gives(name: str) -> None:
    """Every number of the table again; a machine that rounds otherwise may change the second digit by one."""

    def numbers(block: str) -> np.ndarray:
        cells = [row.split(" | ")[1:] for row in block.split("\n\n")[1].splitlines()[2:]]
        small = script.ROUNDING
        return np.array([[small if "rounding" in cell else float(cell.strip(" |")) for cell in row] for row in cells])

    stated = numbers(between_markers(text_of(name), "measured"))
    measured = numbers(script.measured_block(name, script.measure(name)))
    np.testing.assert_allclose(stated, measured, rtol=0.11, atol=2 * script.ROUNDING)


@every_page
def test_links_and_figures_resolve(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    for link in links:
        if link.startswith("https://arxiv.org/abs/"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, link
        if target.suffix == ".svg":
            assert 10_000 < target.stat().st_size < LARGEST_FIGURE_BYTES
            assert "</svg>" in target.read_text(encoding="utf-8")[-20:]


def test_no_page_and_no_figure_is_left_over() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == {*methods.METHODS, "README"}
    figures = {f"{name}_{kind}.svg" for name in methods.METHODS for kind in ("gap", "path")}
    assert {figure.name for figure in (PAGES / "figures").iterdir()} == figures


@every_method
def test_the_commands_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [shlex.split(line, comments=True) for line in between_markers(text_of(name), "command").splitlines()]
    runs = [words[1:] for words in commands if words[:1] == ["magnetar"]]
    assert len(runs) == len(script.GAMES) + 1
    for words in runs:
        words[words.index("--updates") + 1] = "3"
        assert main(words[:-2]) == 0  # without the picture
        assert name in capsys.readouterr().out


def train_command(name: str) -> list[str]:
    """Words of the command that trains a language model."""
    block = between_markers(text_of(name), "language-model-run").split("```bash\n")[1].split("```")[0]
    return shlex.split(block.replace("\\\n", " "))


@every_trainable
def test_the_command_that_trains_is_read_by_the_real_parser(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from magnetar.cli.run_options import parse_run

    words = train_command(name)
    assert words[:2] == ["magnetar", "train"]
    monkeypatch.chdir(tmp_path)
    options, args, model = parse_run([*words[2:], "--use_cpu", "true", "--report_to", "none"])
    assert (options.model, options.dataset, args.method) == ("demo", "demo", name)
    assert args.output_dir == f"runs/{name}" and model.use_peft
    scores = methods.METHODS[name]().sampled_objective.needs_reward
    assert options.judge == (sections.SCORING_JUDGE if scores else "panel")


def test_the_judge_of_the_commands_scores() -> None:
    from magnetar.judges import build_judge, require_scores

    judge = require_scores(build_judge(sections.SCORING_JUDGE.replace("examples.scores", "scores_example")), "a test")
    scores = judge.features(["Why?"] * 3, ["Rain falls.", "Precipitation notwithstanding", ""])[:, 0]
    assert scores[0] > max(scores[1:])


@pytest.fixture(autouse=True)
def _examples_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("scores_example", ROOT / "examples" / "scores.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "scores_example", module)
    spec.loader.exec_module(module)


@every_trainable
def test_the_section_on_language_models_has_its_parts_in_order(name: str) -> None:
    section = text_of(name).split("## On language models")[1].split("\n## ")[0]
    glance, loss, run = re.split(r"<!-- language-models:end -->|<!-- language-model-run:begin -->", section)
    assert "| loss |" in glance and "L_i" in loss + section, "the loss is written out"
    assert [part for part in ("Settings", "Conventions", "Cost of an update", "```bash") if part in run] == [
        "Settings", "Conventions", "Cost of an update", "```bash",
    ]  # fmt: skip
    settings = set(re.findall(r"^\| `--(\w+)`", run, re.MULTILINE))
    assert settings == set(sections.fields_of(name))


@pytest.mark.parametrize("name", [name for name in methods.METHODS if name not in TRAINABLE])
def test_a_method_of_games_only_says_why_in_one_line(name: str) -> None:
    line = between_markers(text_of(name), "language-models")
    assert line == f"For exact games only: {methods.METHODS[name]().games_only_because}."


def test_the_counted_costs_are_those_of_the_formulas() -> None:
    """Comparisons of a group are G (G − 1)/2, of other opponents G · H, and scores G."""
    g, within = sections.GROUP, sections.GROUP * (sections.GROUP - 1) // 2
    expected = {
        "mpo": (within, g), "mirror_descent": (within, g), "nash_md": (g * g, 2 * g), "egpo": (within + g * g, 2 * g),
        "omwu": (within + g * g, 2 * g), "ppo": (g, g), "iterative_dpo": (within, g),
    }  # fmt: skip
    for name, (comparisons, generated) in expected.items():
        cost = sections.cost_of(name)
        assert (cost.comparisons, cost.generated) == (comparisons, generated), name
    assert sections.cost_of("ppo").valued == g, "at the first step those are the values at sampling too"
    assert sections.cost_of("egpo").frozen == g, "the magnet; the first half's pass is one of the sampling policy"
    assert sections.cost_of("mpo").frozen == 2 * g, "reference and magnet"
    assert sections.cost_of("mirror_descent").frozen == g, "the reference, for the log"


class TestEvidence:
    """docs/language_model_evidence.md."""

    TEXT = (ROOT / "docs" / "language_model_evidence.md").read_text(encoding="utf-8")

    def rows(self) -> list[list[str]]:
        return [line.strip("| ").split(" | ") for line in between_markers(self.TEXT, "methods").splitlines()[4:]]

    def test_all_methods_are_there_with_the_settings_of_the_command(self) -> None:
        from magnetar.cli.games_llm_runs import settings_of

        assert [row[0] for row in self.rows()] == [f"[`{name}`](methods/{name}.md)" for name in TRAINABLE]
        for row, name in zip(self.rows(), TRAINABLE, strict=True):
            assert row[1] == evidence.settings_words(settings_of(name)), "run: benchmarks/language_model_evidence.py"
            assert row[2] == methods.METHODS[name]().converges_to

    def test_links_figures_and_tests_exist(self) -> None:
        for link in re.findall(r"\]\(([^)\s]+)\)", self.TEXT):
            assert (ROOT / "docs" / link).is_file(), link
        for path in re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py)`", self.TEXT):
            assert (ROOT / path).is_file(), path


def test_the_command_for_the_figure_draws_the_figure(tmp_path: Path) -> None:
    lines = between_markers(text_of("mpo"), "command").splitlines()
    [line] = [line for line in lines if "--simplex" in line]
    assert main([*shlex.split(line)[1:-1], str(tmp_path / "path.svg")]) == 0
    assert (tmp_path / "path.svg").stat().st_size > 10_000


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="index:begin"):
        script.fill("# A page", {"index": "| a |"})


class TestStepSizesNearTheLimit:
    """The table in the index, on rock–paper–scissors, whose eigenvalue λ is √3/6 and singular value σ is √3/2."""

    LAMBDA, SIGMA, PULL = math.sqrt(3) / 6, math.sqrt(3) / 2, 0.05

    def distance_grows_by(self, method: methods.Method, updates: int = 3000) -> float:
        """Distance to the equilibrium, which is uniform, after some updates, over the distance before them."""
        start, uniform = np.array([1 / 3 + 1e-6, 1 / 3, 1 / 3 - 1e-6]), np.full(3, 1 / 3)
        trace = games.run(method, games.rps(), updates, initial=start, reference=uniform, magnet=uniform)
        return float(np.linalg.norm(trace.policy - uniform) / np.linalg.norm(start - uniform))

    def test_eigenvalue_and_singular_value(self) -> None:
        skew = games.rps().P - 0.5
        assert np.abs(np.linalg.eigvals(skew / 3)).max() == pytest.approx(self.LAMBDA)
        assert np.linalg.svd(skew)[1].max() == pytest.approx(self.SIGMA)

    def limits(self) -> dict[str, float]:
        squared, pull = self.LAMBDA**2, self.PULL
        omd = 2 * pull / (squared + pull**2)
        return {
            "mmd": 2 * pull / (squared - pull**2),
            "mpo_rt": omd,
            "omd": omd,
            "inpo": omd,
            "extragradient": 1 / self.LAMBDA,
            "omwu": 1 / (math.sqrt(3) * self.LAMBDA),
            "ogda": 1 / (math.sqrt(3) * self.SIGMA),
            "nash_md": self.root(lambda step: (1 - step * pull) ** 2 * (1 + step**2 * squared) - 1),
            "egpo": self.root(
                lambda step: abs((1 - step * pull) * (1 + 1j * step * self.LAMBDA) - step**2 * squared) - 1
            ),
        }

    @staticmethod
    def root(excess) -> float:  # type: ignore[no-untyped-def]
        """The first step from zero on at which the modulus reaches one, by a fine scan."""
        steps = np.arange(1, 60_000) * 1e-4
        return float(next(step for step in steps if excess(step) > 0))

    @pytest.mark.parametrize(
        "name", ["mmd", "mpo_rt", "omd", "inpo", "extragradient", "omwu", "ogda", "nash_md", "egpo"]
    )
    def test_inside_the_limit_it_converges_and_outside_it_does_not(self, name: str) -> None:
        limit, make = self.limits()[name], methods.METHODS[name]
        settings: dict[str, object] = {}
        if "magnet_strength" in inspect.signature(make).parameters:
            settings["magnet_strength"] = self.PULL
        if name == "mpo_rt":
            settings["magnet"] = methods.FixedMagnet()
        assert self.distance_grows_by(make(step_size=0.97 * limit, **settings)) < 0.1
        assert self.distance_grows_by(make(step_size=1.03 * limit, **settings)) > 10

    @pytest.mark.parametrize("name", ["mirror_descent", "sppo"])
    def test_mirror_descent_moves_away_at_every_step(self, name: str) -> None:
        for step in (0.05, 1.0):
            assert self.distance_grows_by(methods.METHODS[name](step_size=step)) > 1.1

    def test_the_presets_of_mmd_and_omd_are_stable_in_every_game(self) -> None:
        largest = 1 / 8  # λ² of any game
        mmd, omd = methods.mmd().objective.settings, methods.omd().objective.settings
        mpo = methods.mpo().objective.settings
        for settings in (mmd, mpo):
            step, pull = settings["step_size"], settings["magnet_strength"]
            assert step * (largest - pull**2) < 2 * pull
            assert step > 4 * pull, "the pages say that the preset lies above the theorem's limit"
        assert omd["step_size"] * (largest + omd["magnet_strength"] ** 2) < 2 * omd["magnet_strength"]
        for seed in range(20):
            game = games.random_game(6, seed=seed)
            root = np.sqrt(game.equilibrium())
            assert np.abs(np.linalg.eigvals(root[:, None] * (game.P - 0.5) * root)).max() <= math.sqrt(largest)


def test_iterative_dpo_cycles_or_settles_as_its_page_says() -> None:
    def still_moves(kl_coef: float) -> bool:
        trace = games.run(methods.iterative_dpo(kl_coef), games.biased_rps(), 300, record=True)
        assert trace.policies is not None
        return bool(np.abs(np.diff(trace.policies[-10:], axis=0)).max() > 1e-3)

    assert [still_moves(kl_coef) for kl_coef in (0.1, 0.7, 2.0)] == [True, True, False]


def test_larger_steps_help_optimism_and_extragradient_as_their_pages_say() -> None:
    for game in (fixed.build() for fixed in script.GAMES):
        for make, step, updates in ((methods.omwu, 1.0, 4000), (methods.extragradient, 2.0, 2000)):
            preset, larger = (games.run(method, game, updates) for method in (make(), make(step_size=step)))
            assert larger.duality_gap[-200:].max() < 0.1 * preset.duality_gap[-200:].max()
