"""What pyproject.toml allows, what .ci/constraints.txt pins, and what is installed.

.ci/newest asks the questions at the end, the first of them in an environment that has packaging and tomli only.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import tomli
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
CONSTRAINTS = ROOT / ".ci" / "constraints.txt"
# The package itself, what a virtual environment begins with, and what .ci/newest installs for its own use.
NOT_COMPARED = {"mixpanel-assets", "pip", "setuptools", "uv"}


def pyproject() -> dict[str, Any]:
    return tomli.loads((ROOT / "pyproject.toml").read_text())


def requirements() -> list[Requirement]:
    """What pyproject.toml names, the test extra included."""
    project = pyproject()["project"]
    return [Requirement(text) for text in [*project["dependencies"], *project["optional-dependencies"]["test"]]]


def build_requirements() -> list[Requirement]:
    """What builds the package. pip installs it apart, where no constraint holds."""
    return [Requirement(text) for text in pyproject()["build-system"]["requires"]]


def pins(path: Path = CONSTRAINTS, environment: Mapping[str, str] | None = None) -> dict[str, Version]:
    """The version of each package, by its normalized name, where these markers hold: here, unless given.

    Raises:
        ValueError: a line is neither a comment nor a pin, or two pins of a package hold.
    """
    found: dict[str, Version] = {}
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            continue
        pin = Requirement(line)
        name, operators = canonicalize_name(pin.name), [specifier.operator for specifier in pin.specifier]
        if operators != ["=="]:
            raise ValueError(f"not a pin: {line}")
        if pin.marker is None or pin.marker.evaluate(dict(environment or {})):
            if name in found:
                raise ValueError(f"a second pin that holds: {line}")
            [found[name]] = (Version(specifier.version) for specifier in pin.specifier)
    return found


def needs(requirement: Requirement) -> list[Requirement]:
    """What a package needs in this environment, as installed, with the extras that are asked for."""
    return [
        need
        for need in map(Requirement, metadata.requires(requirement.name) or [])
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in {"", *requirement.extras})
    ]


def without_upper_end(requirement: Requirement) -> Requirement:
    opened = Requirement(str(requirement))
    opened.specifier = SpecifierSet(
        ",".join(str(specifier) for specifier in requirement.specifier if not specifier.operator.startswith("<"))
    )
    return opened


def differences(path: Path = CONSTRAINTS) -> Iterator[str]:
    """A line for each package that is installed in another version than its pin's, or has none."""
    pinned, ranges = pins(path), {canonicalize_name(known.name): known.specifier for known in requirements()}
    installed = {canonicalize_name(package.name): Version(package.version) for package in metadata.distributions()}
    for name in sorted(installed.keys() - NOT_COMPARED):
        if installed[name] != pinned.get(name):
            range_ = "" if installed[name] in ranges.get(name, SpecifierSet()) else f", beyond {ranges[name]}"
            yield f"{name} {pinned.get(name, 'without a pin')} -> {installed[name]}{range_}"


QUESTIONS: dict[str, Callable[..., Iterable[object]]] = {
    "without-upper-ends": lambda: map(without_upper_end, requirements()),
    "differences": differences,
}

if __name__ == "__main__":
    for answer in QUESTIONS[sys.argv[1]](*map(Path, sys.argv[2:])):
        print(answer)
