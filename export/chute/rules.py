"""The rules of the public track that a look at the folder decides, each with what is allowed.

They are those of score-technologies/turbovision, scorevision/validator/audit/open_source/security.py (2026-08-22).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_REPO_BYTES: Final = 30 * 1024 * 1024
MAX_MINER_BYTES: Final = 1024 * 1024
SUFFIXES: Final = frozenset([".onnx", ".py", ".json", ".txt", ".md", ".yml", ".yaml", ".labels", ".csv"])
FORBIDDEN_IMPORTS: Final = frozenset(
    ["socket", "subprocess", "ctypes", "multiprocessing", "requests", "urllib", "http", "ftplib", "telnetlib",
     "paramiko"]
)  # fmt: skip
FORBIDDEN_CALLS: Final = frozenset(["eval", "exec", "__import__", "open"])
FORBIDDEN_OF_OS: Final = frozenset(["system", "popen", "remove", "unlink", "rmdir", "removedirs"])
ARGUMENTS: Final = frozenset(["batch_images", "offset", "n_keypoints"])
MINER: Final = "miner.py"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one rule. `kept` None: it could not be looked at, and `found` says why."""

    rule: str
    kept: bool | None
    found: str


Rule = tuple[str, Callable[[Path], str]]


class Broken(Exception):
    """A rule is broken; the message says by what, and what to do."""


def look(folder: Path) -> Iterator[Verdict]:
    """The verdict of every rule of this module on a folder."""
    for rule, check in RULES:
        try:
            yield Verdict(rule, True, check(folder))
        except Broken as broken:
            yield Verdict(rule, False, str(broken))


def files_of(folder: Path) -> list[Path]:
    """What counts: all files but Python's caches."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() or path.is_symlink())
    return [path for path in found if "__pycache__" not in path.parts and path.suffix.lower() != ".pyc"]


def size(folder: Path) -> str:
    total = sum(path.stat().st_size for path in files_of(folder) if path.exists())
    said = f"{total / 2**20:.1f} MiB"
    if total > MAX_REPO_BYTES:
        raise Broken(f"{said}; a smaller network, or FP16 weights")
    return said


def suffixes(folder: Path) -> str:
    wrong = [path.name for path in files_of(folder) if path.suffix and path.suffix.lower() not in SUFFIXES]
    if wrong:
        raise Broken(f"{', '.join(wrong[:5])}; take it away, whatever it is")
    return f"{len(files_of(folder))} files"


def model(folder: Path) -> str:
    found = [path.name for path in files_of(folder) if path.suffix.lower() == ".onnx"]
    if not found:
        raise Broken("none; `touchline package` writes one")
    return ", ".join(found)


def links(folder: Path) -> str:
    inside = folder.resolve()
    wrong = [path.name for path in files_of(folder) if not path.resolve().is_relative_to(inside)]
    if wrong:
        raise Broken(f"{wrong[0]} leads out of the folder; put the file itself there")
    return "none leads out"


def miner_size(folder: Path) -> str:
    path = folder / MINER
    if not path.is_file():
        raise Broken("there is none; `touchline package` writes one")
    said = f"{path.stat().st_size / 1024:.0f} KiB"
    if path.stat().st_size > MAX_MINER_BYTES:
        raise Broken(f"{said}; data belongs into a file of its own")
    return said


def imports(folder: Path) -> str:
    names = sorted({name.partition(".")[0] for _, name in imported(tree_of(folder))})
    wrong = [name for name in names if name in FORBIDDEN_IMPORTS]
    if wrong:
        raise Broken(f"{', '.join(wrong)}; none of these may be named in an import")
    return ", ".join(names) or "none"


def own_code(folder: Path) -> str:
    beside = {path.stem for path in folder.glob("*.py")} | {path.name for path in folder.iterdir() if path.is_dir()}
    wrong = [name for level, name in imported(tree_of(folder)) if level or name.partition(".")[0] in beside - {"miner"}]
    if wrong:
        raise Broken(f"{wrong[0] or '.'} is imported from the folder, which a chute blocks; move it into miner.py")
    return "all in miner.py"


def calls(folder: Path) -> str:
    wrong = []
    for node in ast.walk(tree_of(folder)):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in FORBIDDEN_CALLS:
                wrong.append(f"{name} in line {node.lineno}")
            case ast.Call(func=ast.Attribute(value=ast.Name(id="os"), attr=name)) if name in FORBIDDEN_OF_OS:
                wrong.append(f"os.{name} in line {node.lineno}")
    if wrong:
        raise Broken(f"{', '.join(wrong)}; do without (Path.read_text reads a file)")
    return "none"


def interface(folder: Path) -> str:
    classes = [node for node in tree_of(folder).body if isinstance(node, ast.ClassDef) and node.name == "Miner"]
    functions = {node.name: node for each in classes for node in each.body if isinstance(node, ast.FunctionDef)}
    if not classes:
        raise Broken("there is no class Miner; a chute looks for it")
    for name, wanted in (("__init__", frozenset(["path_hf_repo"])), ("predict_batch", ARGUMENTS)):
        taken = functions[name].args if name in functions else None
        missing = wanted - {each.arg for each in (*taken.args, *taken.kwonlyargs)} if taken else wanted
        if missing:
            raise Broken(f"Miner.{name} does not take {', '.join(sorted(missing))}; write it with these arguments")
    return "Miner(path_hf_repo).predict_batch(batch_images, offset, n_keypoints)"


def tree_of(folder: Path) -> ast.Module:
    """The syntax tree of miner.py. Raises Broken where there is none."""
    try:
        return ast.parse((folder / MINER).read_text(encoding="utf-8"))
    except OSError as error:
        raise Broken("there is no miner.py; `touchline package` writes one") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Broken(f"miner.py is no Python ({error}); correct it") from error


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Level (0: absolute) and dotted name of every import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


RULES: Final[tuple[Rule, ...]] = (
    ("size at most 30 MiB", size),
    ("only .onnx .py .json .txt .md .yml .yaml .labels .csv", suffixes),
    ("at least one .onnx", model),
    ("no link leads out", links),
    ("miner.py at most 1 MiB", miner_size),
    ("no forbidden import", imports),
    ("own code in miner.py alone", own_code),
    ("no forbidden call", calls),
    ("class Miner as the chute calls it", interface),
)
