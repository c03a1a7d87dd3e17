#!/usr/bin/env python
"""Build the documentation to HTML, and check what it refers to.

    python docs/build.py [--out DIR]

The pages are the Markdown files of the project folder and of docs/, and the README.md of each method in configs/. It fails
on links, images and headings that are not there, and on files, configs and ``mmmlo`` names that a page or a metafile
mentions and the project does not have. Links to other sites are not looked at.
"""

import argparse
import html
import os
import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

FILE = re.compile(r'(?<![\w/.-])(?:configs|docs|mmmlo|requirements|tests|tools)/[\w./-]+\.(?:md|py|sh|txt|yml)\b')
NAME = re.compile(r'(?<![\w/.-])mmmlo((?:\.\w+)+)')
TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ max-width: 60rem; margin: 1rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif }}
nav {{ border-bottom: 1px solid #bbb; padding-bottom: .5rem }} nav a {{ margin-right: 1rem }}
pre {{ background: #f4f4f4; padding: .75rem; overflow-x: auto }} code {{ font-size: .9rem }} img {{ max-width: 100% }}
table {{ border-collapse: collapse }} td, th {{ border: 1px solid #bbb; padding: .2rem .5rem; text-align: left }}
</style></head><body><nav>{nav}</nav>
{body}</body></html>
"""


class Page:
    """A Markdown file, parsed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding='utf-8')
        self.parser = MarkdownIt('commonmark', {'html': True}).enable('table')
        self.tokens = self.parser.parse(self.text)
        self.title, self.anchors = path.stem, set()
        seen: Counter = Counter()
        for heading, inline in zip(self.tokens, self.tokens[1:]):
            if heading.type == 'heading_open':
                text = ''.join(child.content for child in inline.children or [])
                slug = re.sub(r'[^\w\- ]', '', text.lower()).strip().replace(' ', '-')  # as GitHub makes them
                anchor = f'{slug}-{seen[slug]}' if seen[slug] else slug
                seen[slug] += 1
                heading.attrSet('id', anchor)
                if not self.anchors:
                    self.title = text
                self.anchors.add(anchor)

    def links(self) -> list[tuple[Token, str, int]]:
        """Tokens of links and images, the attribute that holds the target, and the line."""
        keys = {'link_open': 'href', 'image': 'src'}
        return [(child, keys[child.type], token.map[0] + 1) for token in self.tokens if token.type == 'inline'
                for child in token.children or [] if child.type in keys]

    def target(self, link: str) -> tuple[Path, str] | None:
        """The file and the anchor that a link names; None for another site."""
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            return None
        file = self.path.parent / unquote(parts.path) if parts.path else self.path
        return Path(os.path.normpath(file)), unquote(parts.fragment)


def find_pages(root: Path) -> dict[Path, Page]:
    """Parse all pages of a project folder."""
    paths = [*root.glob('*.md'), *root.glob('docs/**/*.md'), *root.glob('configs/*/README.md')]
    return {path: Page(path) for path in sorted(paths)}


def find_problems(root: Path, pages: dict[Path, Page]) -> list[str]:
    """Look for what the pages refer to and the project does not have; one line of text for each."""
    problems = []
    for page in pages.values():
        for token, key, line in page.links():
            target = page.target(str(token.attrs[key]))
            if target is None:
                continue
            file, anchor = target
            where = f'{page.path.relative_to(root)}:{line}: {token.attrs[key]}'
            if not file.is_relative_to(root) or not file.is_file():
                problems.append(f'{where}: there is no such file in the project')
            elif anchor and file in pages and anchor not in pages[file].anchors:
                problems.append(f'{where}: {file.relative_to(root)} has no heading #{anchor}')

    sources = [*(root / 'mmmlo').rglob('*.py')]
    defined = {name for source in sources
               for name in re.findall(r'^\s*(?:class|def) (\w+)', source.read_text(encoding='utf-8'), re.MULTILINE)}
    modules = {'.'.join(source.relative_to(root).with_suffix('').parts).removesuffix('.__init__') for source in sources}
    for path in [*pages, *sorted(root.glob('configs/*/metafile.yml'))]:
        for line, text in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
            where = f'{path.relative_to(root)}:{line}'
            problems += [f'{where}: there is no {file}' for file in FILE.findall(text) if not (root / file).is_file()]
            for name in NAME.findall(text):
                *package, last = name[1:].split('.')
                if f'mmmlo{name}' not in modules and not (last in defined and '.'.join(['mmmlo', *package]) in modules):
                    problems.append(f'{where}: the source has no mmmlo{name}')
    return problems


def write(root: Path, pages: dict[Path, Page], out: Path) -> None:
    """Write the pages as HTML, and the files that they link to, at the same relative places under ``out``."""
    for page in pages.values():
        for token, key, _ in page.links():
            target = page.target(str(token.attrs[key]))
            if target is None:
                continue
            file, anchor = target
            if file not in pages:
                copy = out / file.relative_to(root)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
            href = os.path.relpath(file.with_suffix('.html') if file in pages else file, page.path.parent)
            token.attrSet(key, f'{href}#{anchor}' if anchor else href)
        nav = ''.join(
            f'<a href="{os.path.relpath(other.path.with_suffix(".html"), page.path.parent)}">{html.escape(other.title)}</a>'
            for other in pages.values() if other.path.parent == root / 'docs' or other.path.name == 'README.md')
        body = page.parser.renderer.render(page.tokens, page.parser.options, {})
        file = out / page.path.relative_to(root).with_suffix('.html')
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(TEMPLATE.format(title=html.escape(page.title), nav=nav, body=body), encoding='utf-8')


def main() -> int:
    """Check, then build."""
    root = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description='Build the documentation and check its links')
    parser.add_argument('--out', type=Path, default=root / 'site', help='folder to write; default: site')
    args = parser.parse_args()
    pages = find_pages(root)
    if problems := find_problems(root, pages):
        print('\n'.join(problems), file=sys.stderr)
        return 1
    write(root, pages, args.out.resolve())
    print(f'{len(pages)} pages; start at {args.out / "docs" / "index.html"}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
