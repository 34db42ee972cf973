"""The architecture: who may import whom, and how large a module and a function may be."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rawstream

PACKAGE = Path(rawstream.__file__).parent

# Each module, and those of ours that it imports: no more, and no fewer. Imports only go up this list.
LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "config": set(),
    "sse": {"errors"},
    "messages": {"errors"},
    "access": {"errors", "messages"},
    "strict": {"errors", "messages"},
    "wire": {"errors", "messages", "strict"},
    "formats": {"errors", "sse"},
    "pump": {"errors"},
    "encoding": set(),
    "answers": {"encoding", "errors", "formats", "messages"},
    "deadlines": set(),
    "observe": {"errors", "messages"},
    "metrics": {"messages", "observe"},
    "tap": {"observe"},
    "watch": {"errors"},
    "transport": {"config", "deadlines", "errors", "watch"},
    "exchange": {"deadlines", "encoding", "errors", "formats", "messages", "observe", "transport", "wire"},
    "patience": {"config", "deadlines", "errors", "messages", "pump", "transport"},
    "service": {"access", "config", "deadlines", "errors", "messages", "observe"},
    "connection": {
        "answers", "encoding", "errors", "exchange", "formats", "messages", "observe", "patience", "pump", "service",
        "transport", "wire",
    },
    "routing": {"errors", "messages"},
    "sockets": {"errors"},
    "admission": {"config", "observe"},
    "listening": {"config", "sockets"},
    "server": {
        "access", "admission", "config", "connection", "deadlines", "errors", "listening", "messages", "observe",
        "service", "sockets", "tap", "transport",
    },
    "__init__": {"config", "errors", "messages", "routing", "server", "sse"},
    "workers": {"server", "sockets"},
    "demo": {"__init__", "errors", "metrics"},
    "options": {"__init__", "access", "errors"},
    "cli": {"__init__", "demo", "errors", "messages", "observe", "options", "sockets", "workers"},
    "__main__": {"cli"},
}  # fmt: skip

SANS_IO = [
    "errors", "config", "sse", "messages", "access", "strict", "wire", "formats", "pump", "encoding", "answers",
]  # fmt: skip
THIRD_PARTY = {"wire": {"h11"}, "cli": {"uvloop"}, "metrics": {"prometheus_client"}}

MODULE_LINES = {"pump": 149} | {name: 330 for name in LAYERS if name != "pump"}
FUNCTION_LINES = 55  # the docstring does not count


def tree(name: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{name}.py").read_text())


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def import_statements(node: ast.AST, for_types: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import below `node`, in functions too; those that only a type checker follows if `for_types`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif for_types or not is_for_types(child):
            yield from import_statements(child, for_types)


def imported(name: str, for_types: bool = True) -> Iterator[str]:
    """The full names of what a module imports; ours begin with "rawstream."."""
    for statement in import_statements(tree(name), for_types):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
            continue
        assert statement.level <= 1, "the package has no packages inside"
        origin = ".".join(filter(None, ["rawstream" if statement.level else "", statement.module]))
        for alias in statement.names:
            yield f"{origin}.{alias.name}"


def ours(name: str) -> set[str]:
    found = set()
    for full in imported(name):
        package, _, rest = full.partition(".")
        if package == "rawstream":
            module = rest.partition(".")[0]
            found.add(module if (PACKAGE / f"{module}.py").exists() else "__init__")
    return found


def functions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for child in ast.walk(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """From the first decorator to the end, less the docstring."""
    first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    assert function.end_lineno is not None
    lines = function.end_lineno - first + 1
    docstring = function.body[0]
    if ast.get_docstring(function) is not None and docstring.end_lineno is not None:
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


def test_the_table_names_every_module() -> None:
    assert {path.stem for path in PACKAGE.rglob("*.py")} == LAYERS.keys()


@pytest.mark.parametrize("name", LAYERS)
def test_a_module_imports_what_the_table_says(name: str) -> None:
    assert ours(name) == LAYERS[name]


@pytest.mark.parametrize("name", LAYERS)
def test_imports_only_go_up(name: str) -> None:
    order = [*LAYERS]
    assert LAYERS[name] <= {*order[: order.index(name)]}


@pytest.mark.parametrize("name", LAYERS)
def test_everything_else_is_the_standard_library(name: str) -> None:
    """Only `wire` knows h11, and only the command line chooses another loop."""
    others = {full.partition(".")[0] for full in imported(name)} - {"rawstream"} - sys.stdlib_module_names
    assert others == THIRD_PARTY.get(name, set())


@pytest.mark.parametrize("name", SANS_IO)
def test_what_is_sans_io_knows_neither_asyncio_nor_sockets(name: str) -> None:
    """`messages` names an asyncio.Event in an annotation, which only a type checker follows."""
    roots = {full.partition(".")[0] for full in imported(name, for_types=False)}
    assert not roots & {"asyncio", "socket", "select", "selectors", "ssl", "threading", "concurrent", "subprocess"}


def test_what_only_a_type_checker_follows_is_asyncio_in_messages() -> None:
    for_types = {name: {*imported(name)} - {*imported(name, for_types=False)} for name in LAYERS}
    assert {name: found for name, found in for_types.items() if found} == {"messages": {"asyncio"}}


@pytest.mark.parametrize("name", LAYERS)
def test_nothing_of_ours_is_imported_with_its_underscore_or_as_a_whole(name: str) -> None:
    for full in imported(name):
        if full.startswith("rawstream."):
            part = full.rpartition(".")[2]
            assert part == "__version__" or not part.startswith("_")
            assert part != "*"


def test_the_demo_is_written_with_public_names() -> None:
    found = {full for full in imported("demo") if full.startswith("rawstream")}
    assert found
    assert {full.removeprefix("rawstream.") for full in found} <= {*rawstream.__all__, "metrics.metrics"}


@pytest.mark.parametrize("name", LAYERS)
def test_a_module_opens_with_its_rules(name: str) -> None:
    assert ast.get_docstring(tree(name))


@pytest.mark.parametrize("name", LAYERS)
def test_a_module_is_small(name: str) -> None:
    assert len((PACKAGE / f"{name}.py").read_text().splitlines()) <= MODULE_LINES[name]


@pytest.mark.parametrize("name", LAYERS)
def test_a_function_is_small(name: str) -> None:
    sizes = {function.name: lines_of(function) for function in functions(tree(name))}
    assert {function: size for function, size in sizes.items() if size > FUNCTION_LINES} == {}


# -- the walk itself ---------------------------------------------------------------------------------------------------


def test_the_walk_sees_imports_wherever_they_are() -> None:
    """In a function, under a condition, in a `try`."""
    assert "rawstream.demo.router" in {*imported("cli")}
    assert "uvloop" in {*imported("cli")}
    assert "asyncio" in {*imported("messages")} - {*imported("messages", for_types=False)}


def test_the_size_of_a_function_counts_all_but_its_docstring() -> None:
    function = next(
        functions(ast.parse('@one\n@two\nasync def f(\n    a,\n):\n    """Doc\n\n    string."""\n    return a\n'))
    )
    assert lines_of(function) == 6
