"""Pages of docs/results: text that people write, and blocks of tables that programs write.

A block stands between ``<!-- NAME: written by a program -->`` and ``<!-- end of NAME -->``. Only blocks are rewritten.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from slicecast.errors import ConfigError

BLOCK, END = "<!-- {}: written by a program -->", "<!-- end of {} -->"


def write_blocks(page: Path, blocks: Mapping[str, str]) -> Path:
    """Write blocks into a page, and append those that it lacks; the page appears whole or not at all. Return `page`.

    Raises:
        ConfigError: a block in the page has no end.
    """
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    for name, content in blocks.items():
        text = _with_block(text, name, content)
    page.parent.mkdir(parents=True, exist_ok=True)
    part = page.with_name(f".{page.name}.part")
    part.write_text(text, encoding="utf-8")
    return part.replace(page)


def _with_block(text: str, name: str, content: str) -> str:
    start, end = BLOCK.format(name), END.format(name)
    block = f"{start}\n\n{content.strip()}\n\n{end}"
    if start not in text:
        return f"{text.rstrip()}\n\n{block}\n".lstrip()
    before, _, rest = text.partition(start)
    _, found, after = rest.partition(end)
    if not found:
        raise ConfigError(f"The page has no {end!r} after {start!r}. Put it back.")
    return before + block + after


def markdown(rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> str:
    """Write rows as a Markdown table; cells are taken as they are, without padding, so that few lines change."""
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    padded = frame.fillna("").to_markdown(index=False, disable_numparse=True)
    return re.sub(r"\|:-+", "| --- ", re.sub(r" +\|", " |", padded))


def bullets(lines: Iterable[str]) -> str:
    """Write a list."""
    return "\n".join(f"* {line}" for line in lines)


def source_line(source: Mapping[str, Any]) -> str:
    """Say in one line where numbers come from; `source` is from `provenance`."""
    machine = source["machine"]
    return (
        f"Measured on {source['date']} at commit `{source['commit']}` by `{source['command']}`: {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, on {machine['device']}, load average "
        f"{machine['load'][0]}; torch {machine['torch']}; {source['model']['name']} {source['model']['sha256'][:12]}."
    )


def circumstances_table(source: Mapping[str, Any]) -> str:
    """Write under what circumstances the numbers came about; `source` is from `provenance`."""
    machine, model = source["machine"], source["model"]
    cpu = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, on {machine['device']}"
    values = {
        "model": f"{model['name']}, input {model['image_size']} px",
        "SHA-256 of its weights": f"`{model['sha256']}`",
        "commit": f"`{source['commit']}`" + (" (and changes)" if str(source["commit"]).endswith("+") else ""),
        "command": f"`{source['command']}`",
        "date": source["date"],
        "machine": f"{cpu}; load average {machine['load'][0]}",
        "software": f"{machine['system']}, Python {machine['python']}, torch {machine['torch']}",
    }
    return markdown({"what": what, "value": value} for what, value in values.items())
