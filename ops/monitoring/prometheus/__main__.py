"""`python -m ops.monitoring.prometheus`: promtool on the configuration and the rules, and the rules' unit tests."""

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
DEADLINE = 120  # seconds for each command; together they take 4


def check() -> int:
    """Run promtool. Return 0 if it finds no fault, or if it is not installed, since the gate needs Python alone."""
    promtool = shutil.which("promtool")
    if not promtool:
        print("promtool is not here: rules not checked (Debian: apt-get install prometheus)")
        return 0
    commands = (
        ("check", "config", "--lint-fatal", "prometheus.yml"),
        ("test", "rules", *sorted(str(path.relative_to(HERE)) for path in HERE.glob("tests/*.yml"))),
    )
    runs = [
        subprocess.run([promtool, *command], cwd=HERE, timeout=DEADLINE, check=False) for command in commands
    ]
    return int(any(run.returncode for run in runs))


if __name__ == "__main__":
    sys.exit(check())
