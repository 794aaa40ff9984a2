"""Datasets as they are found: in memory, in a file, in a folder, on the Hub, or embedded; columns untouched."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import cast

from datasets import (
    Dataset,
    DatasetDict,
    IterableDataset,
    IterableDatasetDict,
    ReadInstruction,
    are_progress_bars_disabled,
    concatenate_datasets,
    disable_progress_bars,
    enable_progress_bars,
    load_dataset,
    load_from_disk,
)
from datasets.exceptions import DatasetNotFoundError, DatasetsError

from magnetar.data.demo import DEMO_DATASET, DEMO_SPLITS, demo_prompts
from magnetar.errors import DataError, unknown_name

__all__ = ["local_source", "read_source", "source_name"]

_BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}
_COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")


def source_name(source: str | os.PathLike[str] | Dataset | DatasetDict) -> str:
    """Name of a source for messages."""
    return repr(os.fspath(source)) if isinstance(source, str | os.PathLike) else f"the given {type(source).__name__}"


def read_source(
    source: str | os.PathLike[str] | Dataset | DatasetDict,
    split: str | None = None,
    *,
    config: str | None = None,
    folder: str | None = None,
) -> Dataset:
    """Read one split of a dataset, columns untouched.

    Args:
        source: As for `magnetar.data.prompts.load_prompts`.
        split: Name of a split, also with a slice (``"train[:10%]"``); None for the only one, or ``"train"``.
        config: Configuration of a dataset on the Hub that has several.
        folder: Folder inside the source whose files alone are read, such as "harmless-base" of Anthropic/hh-rlhf.

    Returns:
        The rows of that split.

    Raises:
        DataError: The source is missing, unreachable or unreadable, or has no such split.
    """
    if isinstance(source, Dataset):
        if split is not None:
            raise DataError(f"split={split!r} was given with a Dataset, which has no splits; leave it out")
        return source
    if isinstance(source, DatasetDict):
        return _select_split(source, split, "the given DatasetDict")
    if isinstance(source, IterableDataset | IterableDatasetDict):
        raise DataError(
            f"a streaming {type(source).__name__} has no length to split over rounds; load the dataset with "
            "streaming=False"
        )
    if not isinstance(source, str | os.PathLike):
        raise DataError(f"a dataset is a name, a path or a datasets.Dataset, not {type(source).__name__}")
    name = os.fspath(source)
    if name == DEMO_DATASET:
        return _select_split(DatasetDict({s: demo_prompts(s) for s in DEMO_SPLITS}), split, repr(name))  # type: ignore[arg-type]
    path = local_source(name)
    if path is None:
        return _read_hub(name, split, config, folder)
    if folder is not None:
        name, path = f"{name}/{folder}", path / folder
        if not path.is_dir():
            raise DataError(f"no folder {name!r}; {_nearest(path)}")
    with _readable(name):
        found = _read_folder(path) if path.is_dir() else _read_file(path)
    return _select_split(found, split, repr(name))


def local_source(name: str) -> Path | None:
    """The file or folder that a name stands for; None for a dataset on the Hub.

    Raises:
        DataError: It can only mean a path, and nothing is there.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    if _looks_local(name):
        raise DataError(f"no file or folder {name!r}; {_nearest(path)}")
    return None


def _read_file(path: Path) -> DatasetDict:
    """Read one data file as the split ``train``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    builder = _BUILDERS.get(suffixes[-1]) if suffixes else None
    if builder is None:
        raise DataError(
            f"cannot tell the format of {str(path)!r} from its name, expected one of {', '.join(sorted(_BUILDERS))} "
            f"(also with {', '.join(_COMPRESSIONS)}); rename or convert the file"
        )
    if path.stat().st_size == 0:
        raise DataError(f"the file {str(path)!r} is empty, expected at least one row")
    found = cast(DatasetDict, load_dataset(builder, data_files=str(path)))
    if builder == "text":  # one prompt a line; blank lines only separate
        found = found.filter(lambda row: bool(row["text"].strip())).rename_column("text", "prompt")
    return found


def _read_folder(path: Path) -> DatasetDict:
    """Read a folder written by ``save_to_disk``, or one that holds data files."""
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        saved = load_from_disk(str(path))
        return saved if isinstance(saved, DatasetDict) else DatasetDict({"train": saved})
    inside = sorted(p.name for p in path.iterdir())
    if not inside:
        raise DataError(f"the folder {str(path)!r} is empty, expected data files or what save_to_disk wrote")
    return cast(DatasetDict, load_dataset(str(path)))


def _read_hub(name: str, split: str | None, config: str | None, folder: str | None) -> Dataset:
    """Read a dataset of the Hugging Face Hub, from the local cache when it was fetched before."""
    try:
        found = load_dataset(name, config, data_dir=folder, split=split)
    except ConnectionError as error:
        raise DataError(
            f"dataset {name!r} is not a file or folder here and the Hugging Face Hub cannot be reached to look for it "
            f"there; check the path or the network connection, or use {DEMO_DATASET!r} for the embedded prompts"
        ) from error
    except DatasetNotFoundError as error:
        raise DataError(
            f"dataset {name!r}: neither a file or folder here nor on the Hugging Face Hub ({error}); check the "
            f"spelling, log in with `hf auth login` if it is gated, or use {DEMO_DATASET!r} for the embedded prompts"
        ) from error
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise DataError(f"cannot read dataset {name!r} of the Hub: {error}") from error
    return _select_split(found, None, repr(name)) if isinstance(found, DatasetDict) else cast(Dataset, found)


def _select_split(found: DatasetDict, split: str | None, name: str) -> Dataset:
    """Pick a split by name or slice; by default the only one, else ``train``."""
    names = [str(key) for key in found]
    if split is None:
        if len(names) == 1:
            return found[names[0]]
        if "train" in names:
            return found["train"]
        raise DataError(f"{name} has the splits {', '.join(names)} and none is called 'train'; name one with split=")
    if split in found:
        return found[split]
    try:
        parts = ReadInstruction.from_spec(split).to_absolute({key: len(found[key]) for key in names})
    except (AssertionError, ValueError) as error:
        raise DataError(f"{name}: {unknown_name('split', split, names)}") from error
    return concatenate_datasets([found[part.splitname].select(range(part.from_, part.to)) for part in parts])


def _looks_local(name: str) -> bool:
    """Whether a name that does not exist here can only have meant a path, not ``owner/name`` on the Hub."""
    path = Path(name)
    suffixes = {suffix.lower() for suffix in path.suffixes}
    return (
        name.startswith((".", "~", os.sep))
        or name.count("/") > 1
        or bool(suffixes & {*_BUILDERS, *_COMPRESSIONS})
        or ("/" in name and path.parent.is_dir())
    )


def _nearest(path: Path) -> str:
    """Say which existing name in the same folder is nearest to a missing one."""
    if not path.parent.is_dir():
        return f"the folder {str(path.parent)!r} does not exist either; check the path"
    nearest = get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1, cutoff=0.5)
    return f"did you mean {str(path.parent / nearest[0])!r}?" if nearest else "check the path"


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Read without progress bars, and turn what cannot be parsed into a DataError with the innermost cause."""
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    except DataError:
        raise
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise DataError(f"cannot read {name!r}: {cause}; check that its content fits its format") from error
    finally:
        if shown:
            enable_progress_bars()
