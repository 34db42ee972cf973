"""What a user may import, and that all of it is typed and documented."""

import ast
import asyncio
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import rawstream
from rawstream.channels.log import Store

PACKAGE = Path(rawstream.__file__).parent
MODULES = sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))

PUBLIC = [
    "Backoff",
    "Channel",
    "ClientLimits",
    "ClientTimeouts",
    "Event",
    "Every",
    "Hub",
    "Limits",
    "Request",
    "Response",
    "Router",
    "Run",
    "Server",
    "Stream",
    "Timeouts",
    "errors",
    "events",
    "fetch",
    "serve",
]

# What asyncio calls: its own documentation says when.
CALLBACKS = {
    name
    for kind in (asyncio.Protocol, asyncio.Transport)
    for name, _ in inspect.getmembers(kind, inspect.isfunction)
    if not name.startswith("_")
}

# The contract says what they do, for each store.
STORE = {name for name in vars(Store) if not name.startswith("_")}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def is_stub(node: Definition) -> bool:
    """A Protocol's method on one line, `...` for its body: a comment stands there instead."""
    body = node.body[-1]
    return isinstance(body, ast.Expr) and isinstance(body.value, ast.Constant) and body.value.value is ...


def public_definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Public functions and classes, and the public methods of those, wherever in the module they stand."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if not child.name.startswith("_"):
                yield prefix + child.name, child
                if isinstance(child, ast.ClassDef):
                    yield from public_definitions(child, f"{child.name}.")
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from public_definitions(child, prefix)


def inherits_docstring(module: str, name: str) -> bool:
    """A method whose meaning a base class of ours has told."""
    owner, _, method = name.rpartition(".")
    if not owner:
        return False
    bases = getattr(importlib.import_module(f"rawstream.{module}"), owner).__mro__[1:]
    return any(
        getattr(base.__dict__.get(method), "__doc__", None) for base in bases if base.__module__.startswith("rawstream")
    )


def undocumented(module: str) -> list[str]:
    return [
        name
        for name, node in public_definitions(
            ast.parse(PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text())
        )
        if ast.get_docstring(node) is None
        and not any(isinstance(by, ast.Attribute) and by.attr == "setter" for by in node.decorator_list)
        and not (".".join(name.split(".")[1:]) in STORE and name.split(".")[0].endswith("Store"))
        and not is_stub(node)
        and node.name not in CALLBACKS
        and not inherits_docstring(module, name)
    ]


def test_these_names_are_public_and_no_others() -> None:
    assert rawstream.__all__ == PUBLIC


def test_a_star_import_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from rawstream import *", names)
    assert sorted(names.keys() - {"__builtins__"}) == PUBLIC


def test_every_other_name_of_the_package_is_a_module_of_it() -> None:
    others = {name for name in vars(rawstream) if not name.startswith("_")} - {*PUBLIC}
    assert {name for name in others if not inspect.ismodule(getattr(rawstream, name))} == set()


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_documented(name: str) -> None:
    """By hand: what a dataclass writes for itself is its signature."""
    found = getattr(rawstream, name)
    assert found.__doc__
    assert not found.__doc__.startswith(f"{name}(")


@pytest.mark.parametrize("name", [name for name in PUBLIC if inspect.isclass(getattr(rawstream, name))])
def test_the_public_methods_and_properties_of_a_public_class_are_documented(name: str) -> None:
    found = getattr(rawstream, name)
    fields = getattr(found, "__dataclass_fields__", {})
    for member, value in inspect.getmembers(found):
        if not member.startswith("_") and member not in fields:
            assert inspect.getdoc(value), f"{name}.{member}"


@pytest.mark.parametrize("module", MODULES)
def test_every_public_function_class_and_method_is_documented(module: str) -> None:
    assert undocumented(module) == []


def test_every_error_is_documented_in_the_tree() -> None:
    for name, error in inspect.getmembers(rawstream.errors, inspect.isclass):
        if issubclass(error, rawstream.errors.RawstreamError):
            assert error.__doc__
            assert name in (rawstream.errors.__doc__ or "") or name == "RawstreamError"


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").read_bytes() == b""


def test_the_package_has_a_version() -> None:
    assert [part.isdigit() for part in rawstream.__version__.split(".")] == [True] * 3


def test_the_program_in_the_docstring_is_one() -> None:
    assert rawstream.__doc__ is not None
    program = rawstream.__doc__[rawstream.__doc__.index("import asyncio") :]
    compile(program, "the docstring of rawstream", "exec")
