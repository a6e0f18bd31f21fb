"""What loading the package loads, in a fresh process."""

import subprocess
import sys

HEAVY = ("transformers", "datasets", "accelerate", "torchvision", "sklearn", "matplotlib")


def test_no_module_loads_anything_heavy():
    code = (
        "import pkgutil, importlib, sys, scarce_common_utils\n"
        "for module in pkgutil.iter_modules(scarce_common_utils.__path__):\n"
        "    importlib.import_module(f'scarce_common_utils.{module.name}')\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
