"""What a suite asks: the prompts, how policies are sampled, and judges whose answers are kept."""

from collections.abc import Callable

from magnetar.data import load_prompts
from magnetar.errors import JudgeError, MagnetarError
from magnetar.evaluation.categories import require_categories, select_categories
from magnetar.evaluation.players import GenerationRequest
from magnetar.evaluation.suite.config import SuiteConfig
from magnetar.evaluation.suite.costs import check_scores
from magnetar.judges import Judge, Symmetrized, build_judge, parse_judge_spec
from magnetar.judges.models.card import read_card
from magnetar.judges.wrappers import Cached
from magnetar.types import Prompt

__all__ = ["ANSWERS", "Tell", "check_cost_judges", "generation_request", "kept_judge", "load_suite_prompts"]

Tell = Callable[[str], None]
ANSWERS = "answers"
JUDGE_ANSWERS = "judge_answers.sqlite"
BUILT_AT_NO_COST = ("python", "replay")


def load_suite_prompts(config: SuiteConfig) -> tuple[list[Prompt], list[str] | None]:
    """The prompts of a configuration and their categories.

    Raises:
        DataError: They cannot be read, or have no categories although those are required.
    """
    asked = config.prompts
    dataset = load_prompts(asked.dataset, asked.split or ("test" if asked.dataset == "demo" else None))
    if isinstance(asked.categories, tuple):
        dataset = select_categories(dataset, asked.categories, asked.dataset)
    elif asked.categories == "required":
        require_categories(dataset, asked.dataset)
    if asked.limit is not None and asked.limit < len(dataset):
        dataset = dataset.shuffle(seed=asked.seed).select(range(asked.limit))
    has = "category" in dataset.column_names
    return dataset["prompt"][:], dataset["category"][:] if has and asked.categories != "none" else None


def check_cost_judges(config: SuiteConfig) -> None:
    """Refuse judges that are asked for costs and give none, as far as that is known without loading a model.

    Raises:
        JudgeError: Such a judge.
    """
    for label, asked in config.judges.items():
        if "costs" not in asked.ask:
            continue
        spec = parse_judge_spec(asked.spec)
        card = read_card(spec.target or "") if spec.kind == "model" else None
        if card is not None and card.kind not in ("reward", "cost"):
            raise JudgeError(
                f"judges: {label}: {spec} is a {card.kind} model, which only says which of two responses is better; "
                "name a cost model (cost:MODEL) or another judge that scores"
            )
        if spec.kind in BUILT_AT_NO_COST:
            try:
                check_scores(build_judge(spec))
            except MagnetarError as error:
                raise type(error)(f"judges: {label}: {error}") from error


def generation_request(config: SuiteConfig, progress: bool) -> GenerationRequest:
    """How the policies of a configuration are sampled."""
    sampling = config.sampling
    return GenerationRequest(
        sampling.params,
        responses_per_prompt=sampling.responses,
        seed=sampling.seed,
        batch_size=sampling.batch_size,
        progress=progress,
    )


def kept_judge(config: SuiteConfig, label: str, tell: Tell) -> Judge:
    """A judge of a configuration, its answers kept on disk, each order by itself, if it can tell what decides them.

    Args:
        config: Of the suite.
        label: Of the judge.
        tell: Takes a line about a judge that cannot.

    Returns:
        The judge.

    Raises:
        JudgeError: It cannot be built.
    """
    judge, path = build_judge(config.judges[label].spec), config.output_dir / JUDGE_ANSWERS
    try:
        if isinstance(judge, Symmetrized):
            return Symmetrized(Cached(judge.judge, path))
        return Cached(judge, path)
    except JudgeError as error:
        tell(f"note: answers of judge {label} are not kept, since {error}")
        return judge
