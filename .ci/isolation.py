"""What one package brings when installed alone: `python isolation.py MODULE README`, run inside its environment.

Checks that the module imports, that the README's Python blocks run, and that the installed distributions are exactly those
that the package declares, directly or through what it declares.
"""

import importlib
import re
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(name: str) -> set[str]:
    """Canonical names of a distribution and of all that it needs here, markers and extras respected."""
    found: set[str] = set()
    waiting = [(canonicalize_name(name), frozenset[str]())]
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
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found


def main() -> None:
    """Run the checks; leave with the first that fails."""
    module, readme = sys.argv[1], Path(sys.argv[2])
    imported = importlib.import_module(module)
    for name in getattr(imported, "__all__", []):
        getattr(imported, name)
    blocks = re.findall(r"^```python\n(.*?)^```", readme.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for number, block in enumerate(blocks, start=1):
        print(f"{readme.parent.name}: README block {number} of {len(blocks)}", flush=True)
        exec(compile(block, f"{readme.name}, block {number}", "exec"), {"__name__": "__main__"})
    name = "scarce-common-utils" if module == "scarce_common_utils" else module
    declared = closure(name)
    installed = {canonicalize_name(distribution.metadata["Name"]) for distribution in metadata.distributions()}
    extra = installed - declared - {"pip", "setuptools", "wheel", "packaging"}
    if extra:
        sys.exit(f"Installing {name} alone brought what it does not declare: {', '.join(sorted(extra))}.")
    missing = {distribution for distribution in declared if distribution not in installed}
    if missing:
        sys.exit(f"{name} declares what is not installed: {', '.join(sorted(missing))}.")
    print(f"{name}: {len(declared)} distributions, all declared; {len(blocks)} README blocks ran.")


if __name__ == "__main__":
    main()
