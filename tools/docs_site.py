"""What the documentation site (mkdocs.yml) takes from elsewhere: its navigation and llms.txt."""

import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

_LINK: Final = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the navigation of docs/index.md, which names every page once."""
    index = (Path(config.docs_dir) / "index.md").read_text(encoding="utf-8")
    _, *sections = re.split(r"^## ", index, flags=re.MULTILINE)
    config.nav = ["index.md"]
    for section in sections:
        title = section.partition(":")[0]
        config.nav.append({title: [link for _, link in _LINK.findall(section)]})
    return config


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: object) -> str:
    """Show files of the repository that are no pages by their path, since nothing is there."""
    docs = Path(config.docs_dir)
    folder = (docs / page.file.src_uri).parent

    def shown(link: re.Match[str]) -> str:
        target = (folder / link[2].partition("#")[0]).resolve()
        if "://" in link[2] or target.is_relative_to(docs):
            return link[0]
        return f"`{target.relative_to(docs.parent)}`"

    return _LINK.sub(shown, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Write llms.txt (the map) and llms-full.txt (all pages but decisions), as llmstxt.org says."""
    docs, site = Path(config.docs_dir), Path(config.site_dir)
    title = f"# {config.site_name}\n\n> {config.site_description}\n"
    index = (docs / "index.md").read_text(encoding="utf-8")
    _, sections = index.split("\n## ", 1)
    links = _LINK.sub(lambda link: f"[{link[1]}]({link[2].replace('.md', '.html')})", sections)
    (site / "llms.txt").write_text(f"{title}\n## {links}", encoding="utf-8")
    pages = [link for _, link in _LINK.findall(index) if not link.startswith("decisions/")]
    texts = [(docs / page).read_text(encoding="utf-8") for page in pages]
    (site / "llms-full.txt").write_text("\n".join([title, *texts]), encoding="utf-8")
