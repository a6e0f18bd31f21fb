"""What one package brings when installed alone; run inside its environment.

`python isolation.py readme MODULE README.md`: the module imports, its public names load, the README's Python blocks run.
`python isolation.py distributions NAME`: the installed distributions are exactly those that the package declares, directly or
through what it declares (needs `packaging`, installed after the first check so that it hides nothing).
"""

import importlib
import re
import sys
from importlib import metadata
from pathlib import Path

# What an environment holds of itself, and what this script needs.
TOOLS = {"pip", "setuptools", "wheel", "packaging"}


def canonical(name: str) -> str:
    """A distribution's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(name: str) -> set[str]:
    """Canonical names of a distribution and of all that it needs here, markers and extras respected."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    waiting = [(canonical(name), frozenset[str]())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        item = waiting.pop()
        if item in seen:
            continue
        seen.add(item)
        distribution, extras = item
        found.add(distribution)
        for line in metadata.requires(distribution) or []:
            requirement = Requirement(line)
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)
            ):
                waiting.append((canonical(requirement.name), frozenset(requirement.extras)))
    return found


def run_readme(module: str, readme: Path) -> None:
    """Import the module, load each public name, and run the README's Python blocks."""
    imported = importlib.import_module(module)
    for name in getattr(imported, "__all__", []):
        getattr(imported, name)
    blocks = re.findall(r"^```python\n(.*?)^```", readme.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for number, block in enumerate(blocks, start=1):
        print(f"{readme.parent.name}: README block {number} of {len(blocks)}", flush=True)
        exec(compile(block, f"{readme.name}, block {number}", "exec"), {"__name__": "__main__"})


def compare(name: str) -> None:
    """Leave with a sentence where the installed distributions are not those that `name` declares."""
    declared = closure(name)
    installed = {canonical(distribution.metadata["Name"]) for distribution in metadata.distributions()}
    extra = installed - declared - TOOLS
    if extra:
        sys.exit(f"Installing {name} alone brought what it does not declare: {', '.join(sorted(extra))}.")
    missing = declared - installed
    if missing:
        sys.exit(f"{name} declares what is not installed: {', '.join(sorted(missing))}.")
    print(f"{name}: {len(declared)} distributions, all declared")


if __name__ == "__main__":
    if sys.argv[1] == "readme":
        run_readme(sys.argv[2], Path(sys.argv[3]))
    else:
        compare(sys.argv[2])
