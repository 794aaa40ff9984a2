"""What the stages share: the configuration, what others make, and where it lies."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from magnetar.cli.pipeline.config import PipelineConfig
from magnetar.cli.pipeline.contents import Contents
from magnetar.errors import ConfigError
from magnetar.pipeline.plan import Product
from magnetar.pipeline.references import Reference, parse_reference, references_in, unknown_reference

__all__ = ["Work"]

JUDGE_FORMS = ("reward", "cost", "pairwise", "general")


@dataclass
class Work:
    """The state of building and running a pipeline.

    Attributes:
        config: What is to be done.
        contents: Looks at what lies elsewhere.
        products: Reference, as text → what it stands for; filled stage by stage.
        groups: Reference, as text, that stands for several products (all seeds of a method) → those.
        folders: Step → folder.
        finished: References to products that are there, while the pipeline runs.
    """

    config: PipelineConfig
    contents: Contents
    products: dict[str, Product] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)

    def offer(self, reference: str, product: Product) -> None:
        """Say that a step makes something that others may name."""
        self.products[reference] = product

    def step_folder(self, name: str) -> Path:
        """Folder of a step, remembered."""
        self.folders[name] = self.config.output_dir / name
        return self.folders[name]

    def whole(self, step: str) -> Product:
        """All that a step makes."""
        return Product(step, "", "step")

    def used(self, value: Any, where: str) -> dict[Reference, Product]:
        """Products that settings refer to.

        Raises:
            ConfigError: A reference to something that no stage makes; the message names the nearest.
        """
        found: dict[Reference, Product] = {}
        for reference in references_in(value):
            for one in self._members(reference, where):
                found[one] = self.products[str(one)]
        return found

    def _members(self, reference: Reference, where: str) -> list[Reference]:
        name = str(reference)
        if name in self.products:
            return [reference]
        if name in self.groups:
            return [one for text in self.groups[name] if (one := parse_reference(text)) is not None]
        known = [text for text in (*self.groups, *self.products) if text.startswith(f"{reference.stage}:")]
        raise ConfigError(f"{where}: {unknown_reference(reference, known, reference.stage in self.config.stages)}")

    def seeds_of(self, value: str) -> list[str]:
        """A group of products as its members, anything else as itself."""
        reference = parse_reference(value)
        name = value if reference is None else str(reference)
        return list(self.groups.get(name, (name,)))

    def place(self, value: Any) -> Any:
        """A name of a model or dataset with references replaced by absolute paths."""
        reference = parse_reference(value)
        if reference is None:
            return value
        product = self.products[str(reference)]
        folder = self.folders[product.step].resolve()
        return str(folder / product.path if product.path else folder)

    def judge(self, value: Any) -> Any:
        """A judge's spec with references replaced: ``preference:cost`` becomes ``cost:FOLDER``."""
        if isinstance(value, Mapping):
            spec = dict(value)
            reference = parse_reference(spec.get("model"))
            if reference is not None:
                spec = {"kind": self.products[str(reference)].form, **spec, "model": self.place(str(reference))}
            if isinstance(spec.get("judges"), list):
                spec["judges"] = [self.judge(one) for one in spec["judges"]]
            elif isinstance(spec.get("judges"), Mapping):
                spec["judges"] = {name: self.judge(one) for name, one in spec["judges"].items()}
            return spec
        reference = parse_reference(value)
        return value if reference is None else f"{self.products[str(reference)].form}:{self.place(value)}"

    def judge_contents(self, value: Any, name: str) -> dict[str, str]:
        """Digests of what a judge is made from elsewhere; of a panel with references, of its other judges.

        Raises:
            JudgeError: A spec cannot be used.
        """
        if not references_in([value]):
            return {name: self.contents.judge(value)}
        members = value.get("judges") if isinstance(value, Mapping) else None
        if not isinstance(members, Mapping | list):
            return {}
        named = members.items() if isinstance(members, Mapping) else enumerate(members)
        found = {f"{name}, {member}": spec for member, spec in named if not references_in([spec])}
        return {member: self.contents.judge(spec) for member, spec in found.items()}

    def check_form(self, value: Any, forms: Iterable[str], where: str) -> None:
        """Refuse a reference to a product of another form, such as a dataset in the place of a judge.

        Raises:
            ConfigError: It is.
        """
        known = tuple(forms)
        for reference, product in self.used({"value": value}, where).items():
            if product.form not in known:
                expected = "a judge" if known == JUDGE_FORMS else " or ".join(known)
                raise ConfigError(f"{where} is {str(reference)!r}, which is {_a(product.form)}, expected {expected}")

    def settings_for(self, known: Iterable[str], own: Mapping[str, Any]) -> dict[str, Any]:
        """Settings for all stages that this one knows, and its own, which win."""
        fields = set(known)
        return {name: value for name, value in self.config.settings.items() if name in fields} | dict(own)


def _a(form: str) -> str:
    return f"a judge of kind {form!r}" if form in JUDGE_FORMS else f"a {form}" if form != "data" else "a dataset"
