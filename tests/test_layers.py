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
    "fields": set(),
    "messages": {"errors", "fields"},
    "access": {"errors", "fields", "messages"},
    "strict": {"errors", "fields"},
    "framing": {"fields"},
    "wire": {"errors", "fields", "framing", "messages", "strict"},
    "recall": {"errors", "framing", "messages", "wire"},
    "formats": {"errors", "sse"},
    "driving": set(),
    "sink": {"framing"},
    "pump": {"driving", "errors", "sink"},
    "encoding": set(),
    "answers": {"encoding", "errors", "fields", "formats", "messages"},
    "deadlines": set(),
    "observe": {"errors", "messages"},
    "metrics": {"messages", "observe"},
    "tap": {"observe"},
    "watch": {"errors"},
    "sockets": {"errors"},
    "inbox": set(),
    "turns": set(),
    "backlog": {"deadlines"},
    "transport": {"backlog", "config", "deadlines", "errors", "inbox", "sockets", "turns", "watch"},
    "exchange": {
        "deadlines", "encoding", "errors", "fields", "formats", "framing", "inbox", "messages", "observe", "pump",
        "sink", "transport", "wire",
    },
    "patience": {"config", "deadlines", "driving", "errors", "messages", "pump", "transport"},
    "service": {"access", "config", "deadlines", "errors", "messages", "observe"},
    "cycle": {
        "answers", "encoding", "errors", "exchange", "formats", "messages", "observe", "patience", "pump", "service",
        "transport", "watch", "wire",
    },
    "connection": {"answers", "cycle", "errors", "framing", "messages", "observe", "recall", "service", "transport"},
    "routing": {"errors", "messages"},
    "admission": {"config", "observe"},
    "handshake": {"config"},
    "listening": {"sockets"},
    "server": {
        "access", "admission", "config", "connection", "deadlines", "errors", "handshake", "listening", "messages",
        "observe", "service", "sockets", "tap", "transport",
    },
    "terminal": set(),
    "asking": set(),
    "ending": set(),
    "channels.log": {"errors"},
    "channels.memory": {"channels.log", "errors"},
    "channels.database": {"errors"},
    "channels.sqlite": {"channels.database", "channels.log", "errors"},
    "channels.redis_commands": {"errors"},
    "channels.redis_follower": {"channels.log", "channels.redis_commands", "errors"},
    "channels.redis": {"channels.log", "channels.redis_commands", "channels.redis_follower", "errors"},
    "channels.tail": {"channels.log", "framing", "sse"},
    "channels.cursor": {"channels.log", "errors"},
    "channels.feed": {"channels.cursor", "channels.log", "channels.tail", "errors", "formats", "sink"},
    "channels.reader": {"channels.cursor", "channels.log", "errors", "sse"},
    "channels.subscription": {"channels.cursor", "channels.feed", "errors", "formats", "messages"},
    "channels.slices": set(),
    "channels.channel": {
        "channels.cursor", "channels.log", "channels.reader", "channels.subscription", "channels.tail", "errors",
        "formats", "sse",
    },
    "channels.runs": {
        "answers", "channels.channel", "channels.log", "channels.subscription", "channels.tail", "driving",
        "errors", "pump", "sink", "sse",
    },
    "channels.hub": {
        "turns",
        "channels.channel", "channels.log", "channels.memory", "channels.redis", "channels.runs", "channels.slices",
        "channels.sqlite", "driving", "errors",
    },
    "channels.__init__": {"channels.channel", "channels.hub", "channels.log", "channels.runs"},
    "incoming": {"errors", "fields", "framing", "messages", "wire"},
    "inflate": {"errors"},
    "items": {"errors", "formats", "sse"},
    "json_array": {"errors", "items"},
    "outgoing": {"errors", "fields", "wire"},
    "dial": {"config", "deadlines", "errors", "inbox", "outgoing", "transport"},
    "fetched": {"dial", "errors", "fields", "incoming", "inflate", "items", "json_array", "messages", "sse"},
    "fetching": {"dial", "errors", "fetched", "incoming", "messages", "outgoing", "wire"},
    "reconnecting": {"errors", "fetched", "fetching", "formats", "sse"},
    "client": {"errors", "fetched", "fetching", "fields", "outgoing", "reconnecting", "wire"},
    "__init__": {"channels.__init__", "client", "config", "errors", "messages", "routing", "server", "sse"},
    "workers": {"server", "sockets"},
    "channels.http": {
        "channels.hub", "channels.runs", "channels.subscription", "errors", "messages", "routing",
    },
    "probe.ways": set(),
    "probe.arrivals": {"errors", "fields", "inflate"},
    "probe.findings": {"probe.arrivals", "probe.ways"},
    "probe.bursts": {"probe.arrivals"},
    "probe.verdict": {"probe.arrivals", "probe.findings", "terminal"},
    "probe.inference": {"fetched", "probe.arrivals", "probe.bursts", "probe.findings", "terminal"},
    "probe.culprits": {"fields", "probe.findings", "terminal"},
    "probe.conclusion": {"probe.arrivals", "probe.culprits", "probe.findings", "terminal"},
    "probe.picture": {"probe.arrivals", "probe.findings"},
    "probe.svg": {"probe.arrivals", "probe.findings", "terminal"},
    "probe.report": {
        "probe.arrivals", "probe.conclusion", "probe.culprits", "probe.findings", "probe.picture", "terminal",
    },
    "probe.measure": {"asking", "client", "errors", "incoming", "probe.arrivals", "probe.ways"},
    "probe.hunt": {
        "probe.arrivals", "probe.bursts", "probe.findings", "probe.inference", "probe.measure", "probe.verdict",
        "probe.ways",
    },
    "probe.endpoint": {"errors", "formats", "messages", "sse"},
    "probe.command": {
        "asking", "probe.conclusion", "probe.hunt", "probe.measure", "probe.report", "probe.svg", "terminal",
    },
    "probe.__init__": {"probe.command", "probe.endpoint"},
    "demo": {"__init__", "channels.http", "errors", "metrics", "probe.__init__"},
    "get.views": {"errors", "items", "json_array", "sse", "terminal"},
    "get.output": {"terminal"},
    "get.screen": {"errors", "fetched", "get.views", "incoming", "inflate", "sse", "terminal"},
    "get.__init__": {"asking", "client", "ending", "errors", "get.output", "get.screen", "terminal"},
    "options": {"__init__", "access", "channels.http", "config", "errors", "get.__init__", "probe.__init__"},
    "cli": {
        "__init__", "access", "channels.hub", "demo", "ending", "errors", "messages", "observe", "options", "sockets",
        "workers",
    },
    "__main__": {"cli"},
}  # fmt: skip

SANS_IO = [
    "errors", "config", "sse", "fields", "messages", "access", "inbox", "strict", "wire", "formats", "pump",
    "encoding", "answers", "incoming", "inflate", "items", "json_array", "outgoing",
    "probe.findings", "probe.arrivals", "probe.bursts", "probe.verdict", "probe.inference", "probe.culprits",
    "probe.conclusion", "probe.picture", "probe.svg", "probe.report", "probe.ways",
]  # fmt: skip
THIRD_PARTY = {
    "channels.redis_commands": {"redis"},
    "channels.redis_follower": {"redis"},
    "wire": {"h11"},
    "cli": {"uvloop"},
    "metrics": {"prometheus_client"},
}

MODULE_LINES = {"pump": 149} | {name: 330 for name in LAYERS if name != "pump"}
FUNCTION_LINES = 55  # the docstring does not count


def path_of(name: str) -> Path:
    return PACKAGE.joinpath(*name.split(".")).with_suffix(".py")


def tree(name: str) -> ast.Module:
    return ast.parse(path_of(name).read_text())


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
        assert statement.level <= 1, "what is above is named in full"
        package = ".".join(["rawstream", *name.split(".")[:-1]])
        origin = ".".join(filter(None, [package if statement.level else "", statement.module]))
        for alias in statement.names:
            yield f"{origin}.{alias.name}"


def ours(name: str) -> set[str]:
    """Which of our modules it imports when it runs."""
    found = set()
    for full in imported(name, for_types=False):
        package, *parts = full.split(".")
        if package == "rawstream":
            inside = parts[0] if (PACKAGE / parts[0]).is_dir() else ""
            module = ".".join(filter(None, [inside, parts[1] if inside and len(parts) > 1 else parts[0]]))
            found.add(module if path_of(module).exists() else ".".join(filter(None, [inside, "__init__"])))
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
    paths = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    assert {".".join(path.parts) for path in paths} == LAYERS.keys()


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


def test_what_only_a_type_checker_follows_is_little() -> None:
    """A channel has readers and a hub, and they know it: the modules stand in the order in which they are made."""
    for_types = {name: {*imported(name)} - {*imported(name, for_types=False)} for name in LAYERS}
    channel, hub = {"rawstream.channels.channel.Channel"}, {"rawstream.channels.hub.Hub"}
    assert {name: found for name, found in for_types.items() if found} == {
        "messages": {"asyncio"},
        "channels.feed": channel,
        "channels.reader": channel,
        "channels.subscription": channel,
        "channels.channel": hub,
        "channels.runs": hub,
    }


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
    assert {full.removeprefix("rawstream.") for full in found} <= {
        *rawstream.__all__, "metrics.metrics", "channels.http.add_channels", "channels.http.add_jobs", "probe.handler",
    }  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_a_module_opens_with_its_rules(name: str) -> None:
    assert ast.get_docstring(tree(name))


@pytest.mark.parametrize("name", LAYERS)
def test_a_module_is_small(name: str) -> None:
    assert len(path_of(name).read_text().splitlines()) <= MODULE_LINES[name]


@pytest.mark.parametrize("name", LAYERS)
def test_a_function_is_small(name: str) -> None:
    sizes = {function.name: lines_of(function) for function in functions(tree(name))}
    assert {function: size for function, size in sizes.items() if size > FUNCTION_LINES} == {}


# -- the walk itself ---------------------------------------------------------------------------------------------------


def test_the_walk_sees_imports_wherever_they_are() -> None:
    """In a function, under a condition, in a `try`."""
    assert "rawstream.demo.build" in {*imported("cli")}
    assert "uvloop" in {*imported("cli")}
    assert "asyncio" in {*imported("messages")} - {*imported("messages", for_types=False)}


def test_the_size_of_a_function_counts_all_but_its_docstring() -> None:
    function = next(
        functions(ast.parse('@one\n@two\nasync def f(\n    a,\n):\n    """Doc\n\n    string."""\n    return a\n'))
    )
    assert lines_of(function) == 6
