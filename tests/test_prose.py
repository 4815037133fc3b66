"""The prose of the code and the documents is plain: things are not people."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from ops.tools.embedded.paths import ROOT

# Words for people, and stand-ins for a noun. A sentence about software seldom needs one (Starlette: 0.04 in 100).
AVOIDED = frozenset(
    ["who", "whom", "whose", "whoever", "whatever", "what", "nobody", "anybody", "somebody", "everybody"]
)
MOST = 0.5  # of them in 100 words
CODE = ("api", "config", "ops", "products")


def prose_of(source: str) -> Iterator[str]:
    """The docstrings and the comments of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def words_of(file: Path) -> list[str]:
    text = file.read_text()
    if file.suffix == ".md":
        prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    else:
        prose = " ".join(prose_of(text))
    return re.findall(r"[A-Za-z']+", prose.lower())


def test_things_are_not_people() -> None:
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    files += [file for package in CODE for file in (ROOT / package).rglob("*.py")]
    found = {file: words_of(file) for file in files}
    avoided = {file: [word for word in words if word in AVOIDED] for file, words in found.items()}
    worst = sorted(avoided, key=lambda file: -len(avoided[file]))[:10]
    rate = 100 * sum(map(len, avoided.values())) / sum(map(len, found.values()))
    assert rate <= MOST, [f"{file.relative_to(ROOT)}: {len(avoided[file])}" for file in worst]
