"""Imports inside of `ss` go one way: no circle of packages or modules, not even by an import inside of a function."""

import ast
from collections.abc import Iterator

import pytest
from conftest import ROOT

Graph = dict[str, set[str]]
CHECKED = (
    "ss.audit",
    "ss.compression",
    "ss.data",
    "ss.export",
    "ss.leaderboard",
    "ss.learning_curve",
    "ss.measure",
    "ss.release",
    "ss.runtime",
)  # where nothing may be in a circle; ("ss",): everywhere
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in (ROOT / "ss").rglob("*.py")
}


def imported(node: ast.AST, lazy: bool) -> Iterator[str]:
    """The names that a module imports; lazy: also inside of functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif lazy or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imported(child, lazy)


def import_graph(of_packages: bool, lazy: bool) -> Graph:
    """By module, or by package (a module right in `ss` is one), the others that it imports."""
    graph: Graph = {}
    for module, path in MODULES.items():
        for name in imported(ast.parse(path.read_text()), lazy):
            target = name if name in MODULES else name.rpartition(".")[0]
            ends = [".".join(end.split(".")[:2]) if of_packages else end for end in (module, target)]
            if target in MODULES and "ss" not in ends and ends[0] != ends[1]:
                graph.setdefault(ends[0], set()).add(ends[1])
    return graph


def reachable(graph: Graph, start: str) -> set[str]:
    """What can be reached from a node."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def circles(graph: Graph) -> set[frozenset[str]]:
    """The groups of nodes that can all reach each other."""
    reach = {node: reachable(graph, node) for node in graph}
    return {frozenset(other for other in reach[node] if node in reach.get(other, ())) for node in graph if node in reach[node]}


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}}) == {frozenset("bc")}
    assert "ss.checkpoint" in import_graph(of_packages=False, lazy=False)["ss.measure.bench"]
    assert "ss.export" in import_graph(of_packages=False, lazy=True)["ss.measure.bench"]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("of_packages", [False, True])
def test_imports_go_one_way(of_packages: bool, lazy: bool) -> None:
    found = [sorted(circle) for circle in circles(import_graph(of_packages, lazy))]
    assert [circle for circle in found if any(node.startswith(CHECKED) for node in circle)] == []


if __name__ == "__main__":
    for lazy in (False, True):
        for of_packages in (False, True):
            kind = f"{'packages' if of_packages else 'modules'}, {'also' if lazy else 'not'} inside of functions"
            for circle in sorted(map(sorted, circles(import_graph(of_packages, lazy)))):
                print(f"{kind}: {', '.join(circle)}")
