"""Links between files of the repository, said anew for the site."""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Places", "in_the_site", "place_of_source"]

# What is code comes first, so that a link in it is left as it is.
PATTERN = re.compile(
    r"(?P<code>^(?P<fence>```+|~~~+).*?^(?P=fence)|(?P<ticks>`+)(?!`).*?(?P=ticks))"
    r"|(?P<head>!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()(?P<target>[^)\s]+)(?P<tail>[^)]*\))",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Places:
    """Where files of the repository are in the site.

    Attributes:
        root: The repository.
        pages: Place in the site of each page from outside `docs/`.
        folders: Page that a link to a folder leads to.
    """

    root: Path
    pages: Mapping[str, str]
    folders: Mapping[str, str]


def place_of_source(path: str) -> str:
    """Where a file that is no page is copied to."""
    return f"source/{path}"


def in_the_site(markdown: str, source: str, uri: str, places: Places) -> tuple[str, list[str]]:
    """A page whose links lead to places in the site.

    Args:
        markdown: The page.
        source: Its path in the repository, from which its links start.
        uri: Its place in the site.
        places: Where everything else is.

    Returns:
        The page, and the files that have to be copied for it. A link to nothing is left for MkDocs to complain of.
    """
    copied: list[str] = []

    def said_anew(match: re.Match[str]) -> str:
        target = match["target"]
        if match["code"] or re.match(r"[a-z]+:|#|/", target):
            return match[0]
        path, hash_sign, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        place = places.folders.get(path) or places.pages.get(path)
        if place is None and path.startswith("docs/"):
            place = path.removeprefix("docs/")
        elif place is None and (places.root / path).is_file():
            copied.append(path)
            place = place_of_source(path)
        if place is None and (places.root / path).is_dir():
            return match["head"].removesuffix("](")[1:]  # a folder has no page: its name stays
        if place is None:
            return match[0]
        there = posixpath.relpath(place, posixpath.dirname(uri) or ".")
        return f"{match['head']}{there}{hash_sign}{anchor}{match['tail']}"

    return PATTERN.sub(said_anew, markdown), copied
