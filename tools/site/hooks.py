"""What MkDocs is told beyond `mkdocs.yml`: pages from elsewhere in the repository, links to them, the API reference."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import links
import notebooks
import reference
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]

# Pages that belong to the repository's root or to a folder of code; each is read on a Git host too.
REPOSITORY_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "examples/README.md": "examples/index.md",
    "examples/accelerate/README.md": "examples/accelerate.md",
}


def on_config(config: Any) -> Any:
    """Fill the navigation's entry of the API reference."""
    for entry in config.nav:
        if "Reference" in entry:
            entry["Reference"] = reference.navigation(ROOT / "src")
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add every page that is not in `docs/`, and the script that draws the diagrams."""
    for source, uri in REPOSITORY_PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / source).read_text(encoding="utf-8")))
    for make in (notebooks.pages, notebooks.notebooks):
        for uri, content in make(ROOT / "examples"):
            files.append(File.generated(config, uri, content=content))
    for uri, content in reference.pages(ROOT / "src"):
        files.append(File.generated(config, uri, content=content))
    files.append(File.generated(config, "assets/mermaid.js", abs_src_path=str(_mermaid())))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Turn links to files of the repository into links to their place in the site."""
    uri = page.file.src_uri
    if uri == "index.md":
        page.meta["hide"] = ["navigation"]  # it would list itself
    if uri.startswith("reference/"):
        page.meta["search"] = {"boost": 0.3}  # pages for people come first
    sources = {uri: source for source, uri in REPOSITORY_PAGES.items()} | notebooks.sources(ROOT / "examples")
    source = sources.get(uri, f"docs/{uri}")
    places = REPOSITORY_PAGES | {source: uri for uri, source in notebooks.sources(ROOT / "examples").items()}
    where = links.Places(ROOT, places, {"examples": "examples/index.md", "docs/methods": "methods/README.md"})
    text, copied = links.in_the_site(markdown, source, uri, where)
    for path in copied:
        place = links.place_of_source(path)
        if files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    return text


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Leave the diagrams' script out of pages without diagrams: it is as large as all the rest."""
    if 'class="mermaid"' in output:
        return output
    return re.sub(r'<script src="[^"]*assets/mermaid\.js"></script>', "", output)


def _mermaid() -> Path:
    """Mermaid as one script for browsers, from the package that brings it."""
    found = importlib.util.find_spec("mermaidx")
    script = Path(str(found.origin)).parent / "assets" / "mermaid.js" if found is not None else None
    if script is None or not script.is_file():
        raise PluginError("Mermaid's script was not found in the package mermaidx; install magnetar[docs]")
    return script
