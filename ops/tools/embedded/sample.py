"""`make remove-sample`: a checkout without the resource that it came with, ready for those of its owner."""

import re
import shutil
from pathlib import Path

from ops.tools.embedded.console import Failure
from ops.tools.embedded.paths import ROOT

SAMPLE = "products"
FOLDERS = (
    SAMPLE,
    f"tests/{SAMPLE}",
    "ops/tools/lab/contenders",
)  # the last are peers that serve the sample's rows
# Mentions of the sample in other files, and the text in place of each.
EDITS = {
    "config/settings.py": (
        (r',\s*"products\.apps\.ProductsConfig"', ""),
        (r"# --- Other services .*\n(?:(?!# ---).*\n)*", ""),
    ),
    "compose.yaml": (
        (r" *RATES_\w+:.*\n", ""),
        (r" *# [^\n]*\n  rates:\n(?:    .*\n)+\n", ""),
    ),
    "config/urls.py": (
        (r"from products\.api import router as products\n", ""),
        (r'api\.add_router\("", products\)\n', ""),
        (r'description="Products, [^"]*"', 'description="The resources of this service."'),
    ),
}
USE = re.compile(rf'^ *(?:from|import) {SAMPLE}\b|"{SAMPLE}\.apps\.', re.MULTILINE)
LEFT = """README.md and docs/ still describe it: they are yours to write. Databases keep its tables: `make clean`
deletes that of `make up`."""


def remove() -> int:
    """`remove-sample`: take the sample out, and print the changes; a second run has nothing to do.

    Raises Failure, and changes nothing, if other code than the above uses the sample.
    """
    edited = {}  # the text of each file without the sample
    for name, edits in EDITS.items():
        text = (ROOT / name).read_text()
        for pattern, replacement in edits:
            text = re.sub(pattern, replacement, text)
        edited[name] = text
    own = [ROOT / folder for folder in FOLDERS] + [Path(__file__)]
    users = []  # where else it is imported or named, as file:line
    for path in sorted(ROOT.glob("[!.]*/**/*.py")):
        if not any(path.is_relative_to(each) for each in own):
            name = str(path.relative_to(ROOT))
            text = edited.get(name) or path.read_text()
            users += [f"{name}:{text.count(chr(10), 0, found.start()) + 1}" for found in USE.finditer(text)]
    if users:
        raise Failure(f"{SAMPLE} cannot be removed, for it is used in {', '.join(users)}")
    done = []
    for name in FOLDERS:
        if (ROOT / name).is_dir():
            shutil.rmtree(ROOT / name)
            done.append(f"deleted {name}/")
    for name, text in edited.items():
        if text != (ROOT / name).read_text():
            (ROOT / name).write_text(text)
            done.append(f"edited {name}")
    print("\n".join([*done, LEFT] if done else ["There is no sample to remove."]))
    return 0
