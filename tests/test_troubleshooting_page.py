"""docs/troubleshooting.rst explains every line of the levels warn, error and critical."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from imapshield.observe import log_observer

CHECKOUT = Path(__file__).parent.parent
METHODS = {"warn", "error", "failure", "critical"}
FUNCTIONS = {"log_warning", "_log_warning", "log_once", "_log_problems"}
"""What a store calls with a line for the operator, besides the methods of a logger."""
PASSED_ON = 8
"""Letters of fixed text below which a line only passes on the text of another call, such as ``{root}: {text}``."""


def squeezed(text: str) -> str:
    """Return `text` without line breaks and indentation."""
    return " ".join(text.split())


@cache
def fixed_texts() -> frozenset[str]:
    """Return the longest fixed part of each line."""
    return frozenset(
        max(squeezed(line).split("\0"), key=len).strip(" ,;:.") for line in Source().lines()
    )


def letters(text: str) -> int:
    return len(re.sub(r"\W", "", text))


def literal(node: ast.Constant | ast.JoinedStr) -> str:
    """Return the text of a string, or of an f-string, with NUL for what is not fixed."""
    if isinstance(node, ast.Constant):
        return re.sub(r"\{[^{}]*\}", "\0", str(node.value))
    parts = [v.value if isinstance(v, ast.Constant) else "\0" for v in node.values]
    return "".join(map(str, parts))


class Source:
    """The modules of the package, to find what text an expression can have."""

    def __init__(self) -> None:
        files = sorted(CHECKOUT.joinpath("imapshield").rglob("*.py"))
        self.trees = [ast.parse(file.read_text()) for file in files]
        self.functions = {
            node.name: node
            for tree in self.trees
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
        }

    def lines(self) -> Iterator[str]:
        """Return the text of each call that logs, with NUL for what is not fixed."""
        for tree in self.trees:
            for scope in ast.walk(tree):
                if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    for node in ast.walk(scope):
                        if isinstance(node, ast.Call) and node.args and self._logs(node.func):
                            # of log_once(account, path, text) the last argument, of others the first
                            yield from self._texts(node.args[2 * (len(node.args) == 3)], scope)

    @staticmethod
    def _logs(function: ast.expr) -> bool:
        if isinstance(function, ast.Name):
            return function.id in FUNCTIONS
        if not isinstance(function, ast.Attribute):
            return False
        owner = ast.unparse(function.value)
        return function.attr in FUNCTIONS or (function.attr in METHODS and owner.endswith("log"))

    def _texts(self, node: ast.expr, scope: ast.AST) -> Iterator[str]:
        """Return the texts that an expression can have."""
        if isinstance(node, (ast.Constant, ast.JoinedStr)):
            yield literal(node)
        elif isinstance(node, ast.BinOp):
            for left in self._texts(node.left, scope):
                for right in self._texts(node.right, scope):
                    yield f"{left}\0{right}"
        elif isinstance(node, ast.Name):
            for each in ast.walk(scope):
                if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == node.id:
                    yield from self._texts(each.value, scope)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield from self._returned(node.func.id)

    def _returned(self, name: str) -> Iterator[str]:
        """Return the texts that a function of the package can return."""
        function = self.functions.get(name)
        for each in ast.walk(function) if function else ():
            if function and isinstance(each, ast.Return) and each.value is not None:
                yield from self._texts(each.value, function)


def explained() -> str:
    page = CHECKOUT.joinpath("docs", "troubleshooting.rst").read_text()
    return squeezed(page.partition("By log line\n")[2])


class TroubleshootingPageTests(SynchronousTestCase):
    def test_page_explains_every_warning(self) -> None:
        """The fixed text of each line that can be logged with a level above info is on the page."""
        page = explained()
        long = {text for text in fixed_texts() if letters(text) >= PASSED_ON}
        self.assertGreater(len(long), 60)
        self.assertEqual(sorted(text for text in long if text not in page), [])

    def test_lines_with_little_fixed_text_are_known(self) -> None:
        """Few lines only pass on another text."""
        short = {text for text in fixed_texts() if letters(text) < PASSED_ON}
        self.assertEqual(sorted(short), ["", "reload", "status"])
        for text in ("``reload: …``", "``status: …``"):
            self.assertIn(text, explained())

    def test_page_explains_every_event(self) -> None:
        """The words with which a line about an event begins are on the page, if its level is above info."""
        page = explained()
        for event, (level, text) in log_observer._FORMATS.items():
            if level > LogLevel.info:
                begin = re.split(r" \w+=", text)[0].split("{")[0].strip()
                self.assertIn(f"``{begin}", page, event)
