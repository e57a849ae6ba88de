"""What README's commands install has been tested, and no range reaches beyond that."""

import itertools
import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from mixpanel_assets_tests.dependencies import (
    ROOT,
    build_requirements,
    differences,
    needs,
    pins,
    pyproject,
    requirements,
    without_upper_end,
)

pytestmark = pytest.mark.unit

PYTHONS = SpecifierSet(pyproject()["project"]["requires-python"])
MINORS = [f"3.{minor}" for minor in range(50) if f"3.{minor}" in PYTHONS]
SYSTEMS = {"Linux": "linux", "Darwin": "darwin", "Windows": "win32"}


@pytest.mark.parametrize("requirement", [*requirements(), *build_requirements()], ids=str)
def test_every_range_has_two_ends(requirement: Requirement) -> None:
    assert {specifier.operator for specifier in requirement.specifier} >= {">=", "<"}


@pytest.mark.parametrize(("python", "system"), list(itertools.product(MINORS, SYSTEMS)))
def test_each_dependency_is_pinned_within_its_range(python: str, system: str) -> None:
    names = {"python_version": python, "python_full_version": f"{python}.0"}
    pinned = pins(environment={**names, "platform_system": system, "sys_platform": SYSTEMS[system]})
    for requirement in requirements():
        version = pinned.get(canonicalize_name(requirement.name))
        assert version in requirement.specifier if version else False, f"{requirement}: pinned is {version}"


def test_what_the_pinned_versions_need_is_pinned() -> None:
    """Another version than the pin's is passed over: it may need what the pinned one does not."""
    pinned = pins()
    todo, seen, unpinned = requirements(), set(), set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name not in pinned:
            unpinned.add(name)
        elif str(requirement) not in seen and pinned[name] == Version(metadata.version(name)):
            seen.add(str(requirement))
            todo += needs(requirement)
    assert not unpinned


def test_readmes_two_commands_install_what_is_pinned() -> None:
    commands = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert [" -c .ci/constraints.txt " in command for command in commands] == [True, True]


@pytest.mark.parametrize(
    "lines",
    ["duckdb>=2", "--index-url https://packages.example", "duckdb @ file:///duckdb.whl", "duckdb==2.0\nduckdb==2.1"],
)
def test_lines_that_are_no_pins_are_refused(lines: str, tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text(f"# a comment\n{lines}\n")
    with pytest.raises(ValueError, match=r"pin|name"):
        pins(tmp_path / "constraints.txt")


def test_the_newest_is_sought_beyond_upper_ends_only() -> None:
    opened = without_upper_end(Requirement("duckdb[all]>=1.4,!=1.5.1,<2.1; python_version >= '3.11'"))
    assert opened == Requirement("duckdb[all]>=1.4,!=1.5.1; python_version >= '3.11'")


def test_what_differs_from_the_pins_is_named(tmp_path: Path) -> None:
    installed = metadata.version("duckdb")
    (tmp_path / "constraints.txt").write_text(f"duckdb==0.1\npytest=={metadata.version('pytest')}\n")
    lines = list(differences(tmp_path / "constraints.txt"))
    assert f"duckdb 0.1 -> {installed}" in lines
    assert f"requests without a pin -> {metadata.version('requests')}" in lines
    assert not [line for line in lines if line.startswith("pytest ")]
