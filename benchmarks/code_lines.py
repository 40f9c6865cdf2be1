"""How long the packages are: lines of code, without blank lines, comments and docstrings.

    python benchmarks/code_lines.py              this work tree, one line per package
    python benchmarks/code_lines.py COMMIT       next to an earlier commit, with the difference

A line counts if a token of the program starts or ends on it. Tests, benchmarks, recipes and configs are left out.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "mt3core",
    "mt3decode",
    "mt3music",
    "mt3render",
    "mt3serve",
    "mt3data",
    "mt3page",
    "mt3eval",
    "mt3torch",
    "mt3jax",
    "convert",
    "mt3app",
)
_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def main() -> None:
    parser = argparse.ArgumentParser(description="Count lines of code.")
    parser.add_argument("commit", nargs="?", help="to compare with")
    options = parser.parse_args()
    now = count(files_of_work_tree())
    before = count(files_of_commit(options.commit)) if options.commit else Counter()
    for package in sorted(PACKAGES, key=lambda name: -now[name]):
        print(f"{package:10}{now[package]:8,}{f'{before[package]:10,}' if options.commit else ''}")
    change = f"{before.total():10,}  {now.total() - before.total():+,}" if options.commit else ""
    print(f"{'all':10}{now.total():8,}{change}")


def count(files: dict[str, str]) -> Counter[str]:
    """Lines of code by package."""
    lines: Counter[str] = Counter()
    for path, text in files.items():
        lines[path.split("/")[0]] += code_lines(text)
    return lines


def code_lines(text: str) -> int:
    """Lines of one file that contain code."""
    docstrings = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            docstrings |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def files_of_work_tree() -> dict[str, str]:
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}


def files_of_commit(commit: str) -> dict[str, str]:
    names = git("ls-tree", "-r", "--name-only", commit).splitlines()
    chosen = [name for name in names if name.endswith(".py") and name.split("/")[0] in PACKAGES]
    return {name: git("show", f"{commit}:{name}") for name in chosen}


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
