"""`python -m ops.monitoring.grafana`: write the dashboards."""

import json
from pathlib import Path

from ops.monitoring.grafana.boards import BOARDS
from ops.project import NAME

HERE = Path(__file__).parent / "dashboards"


def files() -> dict[str, str]:
    """Return the text of each dashboard's file by the file's name."""
    return {
        board.uid.removeprefix(f"{NAME}-") + ".json": json.dumps(board.json(), indent=2, ensure_ascii=False)
        + "\n"
        for board in BOARDS
    }


if __name__ == "__main__":
    for path in HERE.glob("*.json"):
        path.unlink()
    for name, text in files().items():
        (HERE / name).write_text(text)
