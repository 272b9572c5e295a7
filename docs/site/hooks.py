"""What mkdocs does beside its own: pages from the files at the top, and links out of docs/.

README, CONTRIBUTING, SECURITY and CHANGELOG are read where a forge looks for them, and are pages of
the site as well. A link to any other file of the repository becomes its name.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changes.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    for source, page in PAGES.items():
        text = _inside((ROOT / source).read_text(encoding="utf-8"), ".", page)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    here = page.file.src_uri
    return markdown if here in PAGES.values() else _inside(markdown, "docs/" + here, here)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """The theme's search dialog has no name for those who hear the page."""
    dialog = 'data-md-component="search" role="dialog"'
    return output.replace(dialog, f'{dialog} aria-label="Search"')


def _inside(markdown: str, source: str, page: str) -> str:
    """The links of a text whose file stands at `source`, as those of the site's `page`."""

    def link(match: re.Match[str]) -> str:
        mark, text, path, anchor = match.groups()
        base = posixpath.dirname(source)
        target = posixpath.normpath(posixpath.join(base, path))
        if target in PAGES:
            place = PAGES[target]
        elif target.startswith("docs/"):
            place = target.removeprefix("docs/")
        else:  # a file of the repository that is no page
            return text
        place = posixpath.relpath(place, posixpath.dirname(page) or ".")
        return f"{mark}[{text}]({place}{anchor or ''})"

    return LINK.sub(link, markdown)
