"""Tables of Markdown that can also be read as they are."""

import re
from collections.abc import Sequence

from prettytable import PrettyTable, TableStyle

__all__ = ['escape_markdown', 'markdown_table']


def escape_markdown(text: str) -> str:
    """Keep a text from becoming markup or another cell; underscores within words are harmless."""
    return re.sub(r'([\\|`*<])', r'\\\1', ' '.join(text.split()))


def markdown_table(rows: Sequence[Sequence[str]], left: Sequence[int] = (0, ), markup: bool = False) -> str:
    """Write a table.

    Args:
        rows (Sequence[Sequence[str]]): Cells; the first row is the head, no two cells of which are alike.
        left (Sequence[int]): Columns of words, aligned to the left; others, of numbers, to the right. Defaults to the first.
        markup (bool): Whether cells are Markdown themselves, rather than plain text. Defaults to False.

    Returns:
        str: Markdown.
    """
    escape = (lambda cell: ' '.join(cell.split()).replace('|', '\\|')) if markup else escape_markdown
    head, *body = [[escape(cell) for cell in row] for row in rows]
    table = PrettyTable(head)
    table.set_style(TableStyle.MARKDOWN)
    table.align = 'r'
    for column in left:
        table.align[head[column]] = 'l'
    table.add_rows(body)
    return table.get_string()
