"""Check a release tag before anything is built: `python .ci/release.py layermatch-v0.2.0`.

Prints `package=...` and `folder=...` for the workflow. Refuses a tag whose version is not the one in pyproject.toml or has no
section in CHANGELOG.md, and a method whose common-utils version is not published yet.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "scarce-common-utils": "common-utils",
    "layermatch": "layermatch",
    "imwa": "imwa",
    "randommask": "randommask",
}


def published(name: str) -> set[str]:
    """Versions of a distribution on the index that pip is set up for; none where it is unknown there."""
    command = [sys.executable, "-m", "pip", "index", "versions", name]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    line = next((line for line in answer.stdout.splitlines() if line.startswith("Available versions:")), "")
    if answer.returncode != 0 and "No matching distribution" not in answer.stderr:
        sys.exit(f"The index cannot be asked for {name}:\n{answer.stderr}")
    return {version.strip() for version in line.removeprefix("Available versions:").split(",") if version.strip()}


def project(package: str) -> dict:
    """The project table of a package."""
    return tomllib.loads((ROOT / "packages" / FOLDERS[package] / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]


def refusal(tag: str, index: set[str] | None = None) -> str | None:
    """Why the tag cannot be released, or None.

    Args:
        tag: the tag's name.
        index: versions of scarce-common-utils on the public index; None asks the index.
    """
    match = re.fullmatch(r"([a-z-]+)-v(\d+\.\d+\.\d+)", tag)
    if match is None or match[1] not in FOLDERS:
        return f"The tag {tag!r} is not <package>-vX.Y.Z with one of {', '.join(FOLDERS)}."
    package, version = match.groups()
    declared = project(package)["version"]
    if declared != version:
        return f"The tag says {version}, pyproject.toml of {package} says {declared}."
    changelog = (ROOT / "packages" / FOLDERS[package] / "CHANGELOG.md").read_text(encoding="utf-8")
    if f"## {version}" not in changelog:
        return f"CHANGELOG.md of {package} has no section '## {version}'."
    if package != "scarce-common-utils":
        needed = project("scarce-common-utils")["version"]
        if needed not in (published("scarce-common-utils") if index is None else index):
            return f"{package} is tested with scarce-common-utils {needed}, which is not published. Release that first."
    return None


def main() -> None:
    """Print what the workflow needs, or leave with the reason."""
    reason = refusal(sys.argv[1])
    if reason is not None:
        sys.exit(reason)
    package = sys.argv[1].rsplit("-v", 1)[0]
    print(f"package={package}\nfolder={FOLDERS[package]}")


if __name__ == "__main__":
    main()
