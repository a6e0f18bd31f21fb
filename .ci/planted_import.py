"""See the import contracts fail: plant a wrong import in a copy of the sources and expect lint-imports to refuse it.

Each plant is one line in one file, against one contract; a contract that lets its plant pass checks nothing.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLANTS = (
    ("layermatch/src/layermatch/grad_relu.py", "import imwa", "methods are independent of each other"),
    ("common-utils/src/scarce_common_utils/streams.py", "import randommask", "common-utils imports no method"),
    ("imwa/src/imwa/averaging.py", "import imwa.commands", "imwa: nothing imports upward"),
    ("randommask/src/randommask/masking.py", "import transformers", "cores import torch, numpy and the streams alone"),
)


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts over the sources below `root`."""
    paths = os.pathsep.join(str(path) for path in sorted((root / "packages").glob("*/src")))
    command = [shutil.which("lint-imports") or "lint-imports", "--no-cache", "--config", str(root / "pyproject.toml")]
    return subprocess.run(
        command, cwd=root, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )


def main() -> None:
    """Plant each wrong import in turn; leave with the first that is not refused."""
    for file, line, contract in PLANTS:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            shutil.copy(ROOT / "pyproject.toml", root)
            shutil.copytree(
                ROOT / "packages", root / "packages", ignore=shutil.ignore_patterns("tests", "examples", "*.gz")
            )
            planted = root / "packages" / file
            planted.write_text(planted.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
            result = lint_imports(root)
            if result.returncode == 0 or f"{contract} BROKEN" not in result.stdout:
                sys.exit(
                    f"`{line}` in {file} should break the contract {contract!r}, and did not:\n{result.stdout}{result.stderr}"
                )
            print(f"refused as it should be: `{line}` in {file} ({contract})")


if __name__ == "__main__":
    main()
