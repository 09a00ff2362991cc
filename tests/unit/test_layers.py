"""The layer rule: a module imports only modules of the same or a lower layer, and a library has one home.

A new module goes into the table below, into the layer that says what it does.
"""

import ast
import configparser
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LAYERS = {
    # vocabulary
    0: "errors models names unit resources facts credentials",
    # reading
    1: "bmc_address bmc_settings describe load validate schema reading",
    # deciding
    2: "plan qemu reconcile forward render render_unit ruleset",
    # doing
    3: "adapter atomic bus chardev events firewall forwards host image journal network pace passage qmp run sysctl "
    "systemd udp_relay unit_log units varlink volume",
    # serving
    4: "__init__ __main__ adapters api api_bmc api_handler api_v2 apply baseboard bmc console firewall_watch fleet "
    "guest nodes relay service status storage wanted",
}
LAYER_OF = {module: layer for layer, modules in LAYERS.items() for module in modules.split()}

HOMES = {
    "yaml": "load",
    "pydbus": "bus systemd",
    "gi": "bus systemd",
    "pyroute2": "network",
    "tornado": "__main__ api api_handler api_v2 bmc console guest relay service",
    "sdnotify": "__main__ service",
    "cryptography": "bmc baseboard",
}
"""Libraries, and the modules (or packages) of placematd that may import them."""

FOR_THE_CLI = {module for module, layer in LAYER_OF.items() if layer <= 2} | {"host", "run", "image", "volume"}
"""What cli/ may use: checking and planning need neither root nor a daemon. The image cache belongs to no daemon, and
the volumes of a cluster that is down have none to ask: root uses these two on the files, under their locks."""

SOURCES = {path: path.relative_to(ROOT / "placematd") for path in sorted((ROOT / "placematd").rglob("*.py"))}
CLI = sorted((ROOT / "cli").rglob("*.py"))


def imports(path: Path, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The modules that a file imports, each as the parts of its name; `package` is that of the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            yield from ((*module, alias.name) for alias in node.names)


def module_of(path: Path) -> str:
    """The module or package right below placematd that a file belongs to."""
    return SOURCES[path].parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[tuple[str, ...]]:
    return list(imports(path, ("placematd", *SOURCES[path].parts[:-1])))


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_point_down(path: Path) -> None:
    own = module_of(path)
    assert own in LAYER_OF, f"{own} is in no layer: add it to LAYERS in {Path(__file__).name}"
    used = {name[1] for name in imports_of(path) if name[0] == "placematd" and len(name) > 1 and name[1] in LAYER_OF}
    upward = {f"{module} (layer {LAYER_OF[module]})" for module in used if LAYER_OF[module] > LAYER_OF[own]}
    assert not upward, f"{own} (layer {LAYER_OF[own]}) imports {upward}"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_a_library_has_one_home(path: Path) -> None:
    libraries = {name[0] for name in imports_of(path)} - sys.stdlib_module_names - {"placematd"}
    homeless = {library for library in libraries if module_of(path) not in HOMES.get(library, "").split()}
    assert not homeless, f"{SOURCES[path]} imports {homeless}"


@pytest.mark.parametrize("path", CLI, ids=str)
def test_the_cli_uses_the_lower_layers_and_the_api(path: Path) -> None:
    package = ("placemat_cli", *path.relative_to(ROOT / "cli").parts[:-1])
    used = {name[1] for name in imports(path, package) if name[0] == "placematd" and len(name) > 1}
    assert used & set(LAYER_OF) <= FOR_THE_CLI


@pytest.mark.parametrize("path", CLI, ids=str)
def test_the_cli_imports_itself_relatively(path: Path) -> None:
    tree = ast.parse(path.read_text())
    absolute = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
    assert not [module for module in absolute if module.split(".")[0] in {"cli", "placemat_cli"}]


def test_a_wheel_has_every_package() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    folders = {"placematd": ROOT / "placematd", "placemat_cli": ROOT / "cli"}
    packages = {
        ".".join((name, *path.parent.relative_to(folder).parts))
        for name, folder in folders.items()
        for path in folder.rglob("__init__.py")
    }
    assert set(setup["options"]["packages"].split()) == packages


def test_the_table_names_modules_once_and_the_rule_sees_a_violation(tmp_path: Path) -> None:
    modules = [module for names in LAYERS.values() for module in names.split()]
    assert len(modules) == len(set(modules))
    (tmp_path / "x.py").write_text("from . import api\nfrom ..load import load\nimport tornado.web\n")
    found = list(imports(tmp_path / "x.py", ("placematd", "network")))
    assert found == [("placematd", "network", "api"), ("placematd", "load", "load"), ("tornado", "web")]


def test_no_two_test_files_have_one_name() -> None:
    """pytest imports them by their base name."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
