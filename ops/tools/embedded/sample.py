"""`make remove-sample`: take the sample resource out of a checkout, to make room for resources of the owner."""

import re
import shutil
from pathlib import Path

from ops.tools.embedded.console import Failure
from ops.tools.embedded.paths import ROOT

SAMPLE = "products"
FOLDERS = (
    SAMPLE,
    f"tests/{SAMPLE}",
    "ops/tools/lab/contenders",  # they serve the sample's rows
)
# By file, the patterns of all mentions of the sample, and the text that replaces each.
EDITS = {
    "config/settings.py": (
        (r',\s*"products\.apps\.ProductsConfig"', ""),
        (r"(?:# (?!---).*\n)*RATES_\w+ = env\..*\)\n", ""),  # with the comment above it
        (r"(UPSTREAM_URLS.* = \[[^\]]*?)(?:,\s*RATES_URL\b|\bRATES_URL\b,?\s*)", r"\1"),
    ),
    "compose.yaml": (
        (r" *RATES_\w+:.*\n", ""),
        (r" *# [^\n]*\n  rates:\n(?:    .*\n)+\n", ""),
    ),
    "config/urls.py": (
        (r"from products\.api import router as products\n", ""),
        (r'api\.add_router\(\s*"[^"\n]*",\s*products\b[^)]*\)\n', ""),
        (r'description="Products, [^"]*"', 'description="The resources of this service."'),
    ),
}
# A use of the sample in other code: an import, or a string such as "products.Category" in a relation, a migration or
# apps.get_model. The word alone is no use of the sample: it may be a path, a field or the name of a list.
PARTS = "api|apps|commands|lab|management|migrations|models|queries|quotes|schemas"
USE = re.compile(
    rf"""^\ *(?:from|import)\ {SAMPLE}\b
    | ["']{SAMPLE}(?:\.|["'],\s*["']) (?:(?i:category|product)["'] | (?:{PARTS})\b | \d{{4}}_ | __)
    | \bapp_(?:label|config)\W+{SAMPLE}\b""",
    re.MULTILINE | re.VERBOSE,
)
# A name of the sample that the edits have left in an edited file, outside of comments and strings.
LEFTOVER = re.compile(rf"""^[^#"\n]*(?:"[^"\n]*"[^#"\n]*)*\b(?:{SAMPLE}|rates|RATES_\w+)\b""", re.MULTILINE)
CUT = "\0"  # stands for a removed line end until the files are written
LEFT = """README.md and docs/ still describe it: they are yours to write. Databases keep its tables: `make clean`
deletes that of `make up`."""


def remove() -> int:
    """`remove-sample`: take the sample out, and print the changes; a second run has nothing to do.

    Raises Failure, and changes nothing, if code beyond FOLDERS and EDITS uses the sample.
    """
    edited = {}  # the text of each file in EDITS, without the sample
    users = []  # the places, as file:line, that still use the sample
    for name, edits in EDITS.items():
        text = (ROOT / name).read_text()
        for pattern, replacement in edits:
            text = _cut(pattern, replacement, text)
        edited[name] = text
        users += [_place(name, found) for found in LEFTOVER.finditer(text)]
    own = [*(ROOT / name for name in (*FOLDERS, "tests/test_remove_sample.py")), Path(__file__)]
    for path in sorted(ROOT.glob("[!.]*/**/*.py")):
        if not any(path.is_relative_to(each) for each in own):
            name = str(path.relative_to(ROOT))
            users += [_place(name, found) for found in USE.finditer(edited.get(name) or path.read_text())]
    if users:
        raise Failure(f"{SAMPLE} cannot be removed, for it is used in {', '.join(dict.fromkeys(users))}")
    done = []
    for name in FOLDERS:
        if (ROOT / name).is_dir():
            shutil.rmtree(ROOT / name)
            done.append(f"deleted {name}/")
    for name, text in edited.items():
        without = text.replace(CUT, "")
        if without != (ROOT / name).read_text():
            (ROOT / name).write_text(without)
            done.append(f"edited {name}")
    print("\n".join([*done, LEFT] if done else ["There is no sample to remove."]))
    return 0


def _cut(pattern: str, replacement: str, text: str) -> str:
    """Return `text` with the matches of `pattern` replaced, and with a CUT for each line end in a match.

    The CUTs let _place count the lines of the original file.
    """

    def instead(found: re.Match[str]) -> str:
        return found.expand(replacement) + CUT * found[0].count("\n")

    return re.sub(pattern, instead, text)


def _place(name: str, found: re.Match[str]) -> str:
    """Return file:line for a match, with the line number in the original file."""
    before = found.string[: found.end()]
    return f"{name}:{before.count(chr(10)) + before.count(CUT) + 1}"
