"""Templates: what is asked, checked before anything is."""

from pathlib import Path

import pytest

from magnetar.errors import JudgeError
from magnetar.judges.language_model import TEMPLATE_NAMES, Choices, JudgeTemplate, load_template

GOOD = 'system: s\nuser: "{prompt} {first} {second} {{x}}"\nchoices: {first: A, second: B}\n'


@pytest.mark.parametrize("name", TEMPLATE_NAMES)
def test_every_template_of_the_library_names_its_choices_in_its_question(name: str):
    template = load_template(name)
    assert template.user.rstrip().endswith("Reply with one letter, A or B.")
    assert template.choices.words == ("A", "B")
    if name != "both":
        assert name.removesuffix("ness") in template.user.replace("less harmful", "harmless")


def test_a_users_file_is_read(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text(GOOD + 'verdict_marker: "Verdict:"\nmax_new_tokens: 300\n')
    template = load_template(str(file))
    assert template == JudgeTemplate(
        str(file), "s", "{prompt} {first} {second} {{x}}", Choices("A", "B"), "Verdict:", 300
    )
    assert load_template(template) is template
    file.write_text('user: "{prompt} {first} {second}"\nchoices: {first: one, second: two, tie: neither}\n')
    assert load_template(file).choices.words == ("one", "two", "neither")
    assert load_template(file).system == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user: [", "is not YAML"),
        ("just text", "the file holds 'just text', expected a mapping"),
        ("", "the file holds None"),
        (GOOD.replace("user", "usr"), "unknown key 'usr'; did you mean 'user'"),
        (GOOD.split("choices")[0], "the file lacks 'choices'"),
        (GOOD.replace("{second}", "{third}"), r"user has the fields \['first', 'prompt', 'third'\]"),
        (GOOD.replace("{second}", "{second} {second}"), "each exactly once"),
        (GOOD.replace("{second}", "{second!r}"), "and bare"),
        (GOOD.replace("{{x}}", "{"), "user is not a format string"),
        (GOOD.replace("second: B", "second: A"), "choice 'A' is how 'A' begins"),
        (GOOD.replace("second: B", "second: AB"), "choice 'A' is how 'AB' begins"),
        (GOOD.replace("second: B", "second: ' B'"), "choice ' B', expected text without blanks"),
        (GOOD.replace("second: B", "second: 2"), "choice 2, expected text"),
        (GOOD.replace("second: B", "second: B, third: C"), "unknown key 'third'"),
        (GOOD.replace("system: s", "system: [1]"), r"system = \[1\], expected text"),
        (GOOD + "max_new_tokens: 0\n", "max_new_tokens = 0"),
        (GOOD + "verdict_marker: ''\n", "verdict_marker = ''"),
    ],
)
def test_a_template_that_cannot_be_asked_is_one_clear_error(tmp_path: Path, content: str, message: str):
    file = tmp_path / "mine.yml"
    file.write_text(content)
    with pytest.raises(JudgeError, match=message) as caught:
        load_template(file)
    assert "\n" not in str(caught.value)


def test_a_template_that_is_not_there_is_one_clear_error(tmp_path: Path):
    with pytest.raises(JudgeError, match="unknown template 'helpfulnes'; did you mean 'helpfulness'"):
        load_template("helpfulnes")
    with pytest.raises(JudgeError, match=r"there is no template file 'missing\.yaml'"):
        load_template("missing.yaml")
    with pytest.raises(JudgeError, match="template = 3, expected the name"):
        load_template(3)  # type: ignore[arg-type]
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(JudgeError, match="cannot be read"):
        load_template(tmp_path / "binary.yaml")
