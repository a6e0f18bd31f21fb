"""Sessions: `nox -s tests` passes the tests, `nox -s quickstart` runs the three main jobs; `nox -l` lists the others.

Every session installs the built wheels by file, with the siblings they need in the same call, so that nothing is looked up
by a name that may belong to somebody else, and a dependency missing from a wheel is found.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["tests"]

ROOT = Path(__file__).parent
DIST = ROOT / "dist"
CONSTRAINTS = ROOT / ".ci" / "constraints.txt"
METHODS = ("layermatch", "imwa", "randommask")
PACKAGES = {"common-utils": "scarce_common_utils", **{method: method for method in METHODS}}  # folder -> module
EXTRAS = {
    "common-utils": "images,figures,models,vision,hf",
    "layermatch": "vision,hf,lightning,tensorboard",
    "imwa": "vision,hf,lightning,transformers",
    "randommask": "parquet,hf",
}
TEST_TOOLS = ("pytest", "pytest-timeout", "hypothesis")
RECIPES_NEED = ("torchmetrics", "faster-coco-eval")  # average precision in the detection recipe
# No hub is asked, and small tensors are slower on several threads than on one.
TEST_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
# What tests and examples show a package to work with, and the package itself does not need.
TESTS_NEED = {"layermatch": ("timm", "transformers"), "imwa": ("accelerate",)}


@nox.session
def build(session: nox.Session) -> None:
    """Build the four wheels into dist/."""
    session.install("-c", str(CONSTRAINTS), "hatchling")
    for folder in PACKAGES:
        shutil.rmtree(DIST / folder, ignore_errors=True)  # one wheel only, whatever version stood there
        with session.chdir(ROOT / "packages" / folder):
            session.run("python", "-m", "hatchling", "build", "-t", "wheel", "-d", str(DIST / folder), silent=True)


@nox.session(requires=["build"])
def quickstart(session: nox.Session) -> None:
    """Run the three main jobs on built-in real data and print one table; at most 10 minutes on 2 cores."""
    install(session, *METHODS)
    session.run("python", str(ROOT / "benchmarks" / "quickstart.py"))


@nox.session(requires=["build"])
@nox.parametrize("package", list(PACKAGES), ids=list(PACKAGES))
def tests(session: nox.Session, package: str) -> None:
    """Run the tests of each package in an environment of its own, over its wheel."""
    install(session, package, extras=EXTRAS[package], tools=(*TEST_TOOLS, *TESTS_NEED.get(package, ())))
    assert_installed(session, package)
    with session.chdir(ROOT / "packages" / package):
        session.run("python", "-m", "pytest", "-q", "-m", "not gpu", *session.posargs, env=TEST_ENVIRONMENT)


@nox.session(requires=["build"], reuse_venv=False)
@nox.parametrize("package", list(PACKAGES), ids=list(PACKAGES))
def isolation(session: nox.Session, package: str) -> None:
    """Install one package alone, without extras: it imports, its README's code runs, it brings what it declares and no more."""
    install(session, package)
    temporary = Path(session.create_tmp()).resolve()
    with session.chdir(temporary):
        assert_installed(session, package)
        checks = str(ROOT / ".ci" / "isolation.py")
        session.run("python", checks, "readme", PACKAGES[package], str(ROOT / "packages" / package / "README.md"))
        session.install("-c", str(CONSTRAINTS), "packaging")
        session.run("python", checks, "distributions", distribution(package))


@nox.session(requires=["build"])
def lint(session: nox.Session) -> None:
    """Check style, format and the import contracts."""
    session.install("-c", str(CONSTRAINTS), "ruff", "import-linter")
    session.install("--no-deps", force_flag(session), *[str(wheel(folder)) for folder in PACKAGES])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-cache")
    session.run("python", str(ROOT / ".ci" / "planted_import.py"))


@nox.session(requires=["build"])
def typecheck(session: nox.Session) -> None:
    """Check types with pyright over the sources."""
    install(
        session,
        *METHODS,
        extras="vision,hf,lightning,parquet",
        tools=("pyright[nodejs]", "nox", *TEST_TOOLS, *RECIPES_NEED),
    )
    session.run("pyright", "--pythonpath", str(Path(session.bin) / "python"))


@nox.session(requires=["build"], venv_backend="uv")
@nox.parametrize("package", list(PACKAGES), ids=list(PACKAGES))
def minimums(session: nox.Session, package: str) -> None:
    """Run the tests with the lowest versions that each package declares."""
    unset_slow(session)
    # Only direct requirements are lowered, so what the wheels declare is said again here, directly.
    declared = [line for folder in with_sibling(package) for line in declared_requirements(folder)]
    wheels = [requirement(folder, "") for folder in with_sibling(package)]
    session.install("--resolution", "lowest-direct", *wheels, *declared, *TEST_FLOORS)
    with session.chdir(ROOT / "packages" / package):
        session.run("python", "-m", "pytest", "-q", "-m", "not gpu", *session.posargs, env=TEST_ENVIRONMENT)


@nox.session(requires=["build"], venv_backend="none")
def cross(session: nox.Session) -> None:
    """Run the tests on each Python that is here: 3.11 to 3.14; those absent are named and passed over."""
    for version in ("3.11", "3.12", "3.13", "3.14"):
        python = find_python(version)
        if python is None:
            session.log(
                f"Python {version} is not on this machine: passed over. Install it, or run in CI, which has it."
            )
            continue
        for package in PACKAGES:
            cross_one(session, python, version, package)


@nox.session(requires=["build"])
def gpu(session: nox.Session) -> None:
    """Run the GPU tests of every package and the three smoke reproductions on a CUDA device; skipped where there is none."""
    install(session, *METHODS, extras="vision,hf", tools=TEST_TOOLS)
    probe = subprocess.run(
        [str(Path(session.bin) / "python"), "-c", "import torch; print(torch.cuda.is_available())"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    if probe.stdout.strip() != "True":
        session.skip("torch finds no CUDA device on this machine.")
    for package in PACKAGES:
        with session.chdir(ROOT / "packages" / package):
            # 5: a package without GPU tests has collected none
            session.run("python", "-m", "pytest", "-q", "-m", "gpu", *session.posargs, success_codes=[0, 5])
    for method in METHODS:
        run_benchmark(session, "reproduce", method, "--scale", "smoke", "--out", f"runs/reproduce/{method}-gpu")


@nox.session(requires=["build"])
def reproduce_layermatch(session: nox.Session) -> None:
    """Reproduce LayerMatch: `-- --scale smoke|cpu|cpu-full|paper [--data FOLDER] [--jobs 2] [--commit]`."""
    install(session, *METHODS, extras="vision,hf")
    run_benchmark(session, "reproduce", "layermatch", *session.posargs)


@nox.session(requires=["build"])
def reproduce_imwa(session: nox.Session) -> None:
    """Reproduce IMWA: `-- --scale smoke|cpu|cpu-full|paper [--data FOLDER] ...`; `--recipe communication|detection|semi-supervised`."""
    recipe, words = recipe_of(session.posargs)
    install(session, *METHODS, extras="vision,hf", tools=RECIPES_NEED if recipe == "detection" else ())
    if recipe is None:
        run_benchmark(session, "reproduce", "imwa", *words)
    else:
        run_benchmark(session, "reproduce.imwa.recipes", recipe, *words)


@nox.session(requires=["build"])
def reproduce_randommask(session: nox.Session) -> None:
    """Reproduce RandomMask: `-- --scale smoke|cpu|cpu-full|paper [--data FOLDER] [--jobs 2] [--commit]`."""
    install(session, *METHODS, extras="vision,hf")
    run_benchmark(session, "reproduce", "randommask", *session.posargs)


@nox.session(requires=["build"])
def tests_benchmarks(session: nox.Session) -> None:
    """Pass the tests of the reproductions' runner and recipes."""
    install(session, *METHODS, extras="vision,hf", tools=(*TEST_TOOLS, *RECIPES_NEED))
    with session.chdir(ROOT / "benchmarks"):
        env = {**TEST_ENVIRONMENT, "PYTHONPATH": str(ROOT / "benchmarks")}
        session.run("python", "-m", "pytest", "-q", "tests", *session.posargs, env=env)


@nox.session(requires=["build"])
def bench(session: nox.Session) -> None:
    """Measure speed and memory as ratios against named peers and print the rows; `-- --json FILE` writes them too."""
    install(session, *METHODS, extras="vision,hf")
    run_benchmark(session, "speed", *session.posargs)


@nox.session(requires=["build"])
def faults(session: nox.Session) -> None:
    """Kill, signal, cut and refuse real runs, and compare them bit for bit: `-- --size small|large --rows 1 --packages imwa --from 200`."""
    install(session, *METHODS, extras="vision,hf")
    session.run(
        "python", "-m", "faults", *session.posargs, env={**TEST_ENVIRONMENT, "PYTHONPATH": str(ROOT / "benchmarks")}
    )


@nox.session(requires=["build"])
def badges(session: nox.Session) -> None:
    """Draw the badges from bench rows and records: `-- --rows rows.json --records FOLDER`; the last set lies in benchmarks/badges."""
    install(session, "common-utils")
    session.run("python", str(ROOT / "benchmarks" / "badges.py"), *session.posargs)


# What lowest-direct must not lower: the tools of the tests, at versions that know today's Python.
TEST_FLOORS = ("pytest>=9.0", "pytest-timeout>=2.4", "hypothesis>=6.140")


def wheel(folder: str) -> Path:
    """The one wheel that `build` made of a package."""
    return next((DIST / folder).glob("*.whl"))


def distribution(folder: str) -> str:
    """Name of a package's distribution."""
    return "scarce-common-utils" if folder == "common-utils" else folder


def requirement(folder: str, extras: str) -> str:
    """`name[extras] @ file:...`: the wheel itself as a requirement, never a name to look up."""
    return f"{distribution(folder)}{f'[{extras}]' if extras else ''} @ {wheel(folder).as_uri()}"


def declared_requirements(folder: str) -> list[str]:
    """What a package's pyproject.toml asks for, with the extras that its tests use, the sibling apart."""
    project = nox.project.load_toml(ROOT / "packages" / folder / "pyproject.toml")["project"]
    extras = (line for extra in EXTRAS[folder].split(",") if extra for line in project["optional-dependencies"][extra])
    return [line for line in (*project["dependencies"], *extras) if not line.startswith("scarce-")]


def with_sibling(*folders: str) -> list[str]:
    """The packages and common-utils, which each of them needs, once each."""
    return list(dict.fromkeys(["common-utils", *folders]))


def install(session: nox.Session, *folders: str, extras: str = "", tools: tuple[str, ...] = ()) -> None:
    """Install wheels, their dependencies within the constraints, and tools, in one call."""
    unset_slow(session)
    chosen = with_sibling(*folders)
    known = {
        folder: ",".join(sorted(set(extras.split(",")) & set(EXTRAS[folder].split(",")) - {""})) for folder in chosen
    }
    wanted = [requirement(folder, known[folder] if folder in folders else "") for folder in chosen]
    session.install("-c", str(CONSTRAINTS), *wanted, *tools)
    # The same version with new content would count as installed, and old code would be tested.
    session.install("--no-deps", force_flag(session), *[str(wheel(folder)) for folder in chosen])


def unset_slow(session: nox.Session) -> None:
    """Let Python write bytecode: without it each `import torch` costs twice as much."""
    session.env["PYTHONDONTWRITEBYTECODE"] = ""


def force_flag(session: nox.Session) -> str:
    """The flag by which uv, or pip, installs again what seems installed."""
    return "--reinstall" if session.venv_backend == "uv" else "--force-reinstall"


def assert_installed(session: nox.Session, package: str) -> None:
    """Fail where the module comes from anywhere but the environment, such as the source tree."""
    module = PACKAGES[package]
    session.run(
        "python", "-I", "-c", f"import {module}; assert 'site-packages' in {module}.__file__, {module}.__file__"
    )


def run_benchmark(session: nox.Session, *words: str) -> None:
    """`python -m <module> ...` with benchmarks/ on the path; relative paths are those of the caller."""
    session.run("python", "-m", *words, env={"PYTHONPATH": str(ROOT / "benchmarks")})


def recipe_of(words: list[str]) -> tuple[str | None, list[str]]:
    """The name behind `--recipe`, None where there is none, and the other words."""
    for place, word in enumerate(words):
        if word == "--recipe" and place + 1 < len(words):
            return words[place + 1], [*words[:place], *words[place + 2 :]]
        if word.startswith("--recipe="):
            return word.partition("=")[2], [*words[:place], *words[place + 1 :]]
    return None, list(words)


def find_python(version: str) -> str | None:
    """A Python of that version that really runs (a version manager's shim may not), or None."""
    names = [
        f"python{version}",
        *sorted(str(path) for path in Path.home().glob(f".pyenv/versions/{version}.*/bin/python")),
    ]
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        names.insert(0, sys.executable)
    for name in names:
        found = shutil.which(name)
        if found is not None:
            probe = subprocess.run(
                [found, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True, check=False
            )
            if probe.returncode == 0:
                return probe.stdout.strip()
    return None


def cross_one(session: nox.Session, python: str, version: str, package: str) -> None:
    """Tests of one package on one Python, in an environment made by uv."""
    environment = Path(session.create_tmp()).resolve() / f"{package}-{version}"
    bin_folder = environment / ("Scripts" if os.name == "nt" else "bin")
    interpreter = str(bin_folder / "python")
    uv = shutil.which("uv") or session.error("cross needs uv: python -m pip install uv")
    session.run(str(uv), "venv", "--quiet", "--clear", "--python", python, str(environment), external=True)
    wanted = [requirement(folder, EXTRAS[package] if folder == package else "") for folder in with_sibling(package)]
    session.run(
        str(uv),
        "pip",
        "install",
        "--quiet",
        "--python",
        interpreter,
        "-c",
        str(CONSTRAINTS),
        *wanted,
        *TEST_TOOLS,
        external=True,
    )
    with session.chdir(ROOT / "packages" / package):
        env = {**TEST_ENVIRONMENT, "PYTHONDONTWRITEBYTECODE": ""}
        session.run(interpreter, "-m", "pytest", "-q", "-m", "not gpu", *session.posargs, env=env, external=True)
