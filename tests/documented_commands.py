"""Finds the commands in the documentation: in shell blocks, and in the text between double backquotes.

Each literal block of a page is a Python program, TOML, one of `OTHER_BLOCKS`, or a shell block. A shell block consists of
programs in `PROGRAMS_RUN` and `PROGRAMS_NOT_RUN`.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

PROGRAMS_RUN = {
    "imapshield", "twistd", "python3", "python",
    "basename", "cat", "cd", "chgrp", "chmod", "chown", "cp", "curl", "cut", "date", "deploy-hook",
    "dirname", "echo", "export", "find", "grep", "head", "install", "ls",
    "mkdir", "mv", "openssl", "printf", "rm", "rsync", "sed", "sort", "sqlite3", "sudo", "tail", "tar", "tee", "test", "touch", "[",
}  # fmt: skip
"""Programs that the system test of the documented commands runs. Its sudo runs its command as the same user."""

PROGRAMS_NOT_RUN = {
    "adduser": "changes the users of this machine",
    "apt": "installs programs on this machine",
    "apt-get": "installs programs on this machine",
    "certbot": "needs the internet and a name in the DNS",
    "doveadm": "needs a running Dovecot; test_migration runs it",
    "git": "needs the internet",
    "id": "asks for the user of the server",
    "imapsync": "needs another server",
    "journalctl": "needs systemd",
    "ln": "is for an installation in /opt",
    "mutt": "needs a terminal; test_neomutt runs it",
    "pip": "takes minutes; test_readme and test_wheel run it",
    "postconf": "changes the mail server of this machine",
    "postfix": "needs a configured Postfix",
    "postmap": "needs Postfix; test_household runs it",
    "sendmail": "needs a configured Postfix",
    "socat": "is not installed; the commands of imapshield use the same socket",
    "ssh": "needs another machine",
    "systemctl": "needs systemd",
    "systemd-sysusers": "changes the users of this machine; test_systemd runs it",
    "systemd-tmpfiles": "changes this machine; test_systemd runs it",
    "testsaslauthd": "needs a running saslauthd; test_household runs it",
    "useradd": "changes the users of this machine",
    "venv": "takes minutes; test_readme and test_wheel run it",
}
"""Programs in the documentation that no test runs as it is there, with the reason."""

OTHER_BLOCKS = {
    "acme: no certificate": "a line of the log",
    "--backend tcp": "a line of the log",
    "# /etc/dovecot/local.conf": "configuration of Dovecot, which the tests of front mode use",
    "worker 1     pid": "lines of `imapshield status`",
    "location /.well-known": "configuration of nginx",
    "/metrics     figures": "paths of the metrics endpoint",
    "/var/log/imapshield.log {": "configuration of logrotate; parsed by test_reload",
    "          commands   ": "a drawing",
    "logins ───": "a drawing",
    "#!/bin/sh": "a hook of certbot",
    "START=yes": "configuration of saslauthd",
    "alice@example.org    alice": "tables of Postfix",
    "compatibility_level": "configuration of Postfix",
    "clients ──▶": "a drawing",
    "global\n": "configuration of HAProxy; checked by test_planning",
    "imapshield: 31 files": "what `imapshield move` prints",
    "imap           ": "records of a DNS zone",
    "listen imap": "configuration of HAProxy; checked by test_planning",
    "login peer=": "lines of the log",
    "observed for": "what `imapshield advise` prints",
    "pwcheck_method:": "configuration of Cyrus SASL",
    "rule_files:": "configuration of Prometheus",
    "postmaster@": "a table of Postfix",
    "set folder": "configuration of mutt",
    "status connections=": "a line of the log",
    "submissions inet": "configuration of Postfix",
    "stream {": "configuration of nginx",
    "…/imapshield.sqlite": "lines of the log",
    '{"time": ': "a line of the log as JSON",
}
"""How literal blocks begin that are neither commands nor programs, with what they are."""

_KEYWORDS = {"do", "done", "then", "else", "fi", "if", "while", "!", "(", ")", "{", "}"}
_SEPARATORS = re.compile(r"[;&|()]+")


@dataclass(frozen=True)
class Block:
    """A literal block.

    Attributes:
        page: the path of the page.
        line: the number of its first line.
        text: the text without its indent.
        file: the absolute path of the file that it is the content of; empty if it is none.
    """

    page: str
    line: int
    text: str
    file: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Return the paths of README.rst and of the pages in docs/, relative to the repository."""
    return ["README.rst", *sorted(glob.glob("docs/*.rst", root_dir=REPOSITORY))]


def read(page: str) -> str:
    with open(os.path.join(REPOSITORY, page), encoding="utf-8") as file:
        return file.read()


def literal_blocks(page: str) -> Iterator[Block]:
    """Yield the literal blocks of a page."""
    lines = read(page).split("\n")
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        is_code = re.match(r" *\.\. (code|code-block|sourcecode|parsed-literal)::", line)
        if not (is_code or line.endswith("::")) or (line.lstrip().startswith("..") and not is_code):
            continue
        start, indent = number, len(line) - len(line.lstrip())
        while number < len(lines) and (
            not lines[number].strip() or len(lines[number]) - len(lines[number].lstrip()) > indent
        ):
            number += 1
        text = textwrap.dedent("\n".join(lines[start:number])).strip("\n")
        # A list item continues with less indent than its block, and options of a directive come before it.
        text = re.sub(r"^(:.*\n)+\n*", "", text)
        block = re.split(r"\n\n+(?=\S)", text)[0] if text.startswith(" ") else text
        file = re.match(r" *``(/[^`]*[^/`])``[^`]*::$", line)
        yield Block(page, start + 2, textwrap.dedent(block), file[1] if file else "")


def kind(block: Block) -> str:
    """Return what a block is: ``python``, ``toml``, ``other``, ``shell`` or ``unknown``."""
    if re.search(r"^(from \S+ )?import \S", block.text, re.MULTILINE):
        return "python"
    if any(block.text.startswith(each) for each in OTHER_BLOCKS):
        return "other"
    try:
        if tomllib.loads(block.text):
            return "toml"
    except tomllib.TOMLDecodeError:
        pass
    words = [words[0] for words in commands(block.text)[:1]]
    known = PROGRAMS_RUN | PROGRAMS_NOT_RUN.keys()
    return "shell" if words and program(words) in known else "unknown"


def shell_blocks() -> list[Block]:
    """Return the shell blocks of all pages."""
    return [block for page in pages() for block in literal_blocks(page) if kind(block) == "shell"]


def script(text: str) -> str:
    """Return a block as a script: without prompts and the output below them, and without the notes of a synopsis."""
    lines = text.split("\n")
    if lines[0].startswith("$ "):
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return "\n".join(re.sub(r"^((?:imapshield|twistd) .*?) {3,}.*", r"\1", line) for line in lines)


def commands(text: str) -> list[list[str]]:
    """Return the words of each simple command of a block."""
    found: list[list[str]] = []
    for line in _without_substitutions(script(text).replace("\\\n", " ")).split("\n"):
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()<>")
        lexer.whitespace_split = True
        found.append([])
        for word in lexer:
            if set(word) <= {"<", ">", "&"} and word.strip("&"):
                next(lexer, None)  # the file of a redirection
            elif _SEPARATORS.fullmatch(word) or (word in _KEYWORDS and not found[-1]):
                found.append([])
            elif found[-1] or not re.match(r"\w+=", word):
                found[-1].append(word)
    return [words for words in found if words and words[0] not in ("for", "continue")]


def _without_substitutions(text: str) -> str:
    """Return a script in which each ``$(…)`` is a word, and what it runs is a line of its own."""
    lines = []
    while match := re.search(r"\$\(([^()]*)\)", text):
        lines.append(match[1])
        text = text[: match.start()] + "X" + text[match.end() :]
    return "\n".join([text, *lines])


def program(words: list[str]) -> str:
    """Return the name of the program of a command."""
    name = os.path.basename(words[0])
    if name.startswith("python") and words[1:3] == ["-m", "venv"]:
        return "venv"
    return "deploy-hook" if "renewal-hooks" in words[0] else name


def documented(text: str) -> Iterator[list[str]]:
    """Yield the commands ``imapshield …`` and ``twistd … imapshield …`` of a block, with and without optional parts."""
    for words in commands(text):
        if program(words) in ("imapshield", "twistd"):
            line = shlex.join(words)
            yield (
                shlex.split(re.sub(r"'?\[[^]]*\]'?", "", " ".join(words))) if "[" in line else words
            )
            if "[" in line:
                yield " ".join(words).replace("[", "").replace("]", "").split()


def inline_commands(page: str) -> Iterator[list[str]]:
    """Yield the words of each ``imapshield …`` between double backquotes, which may be incomplete."""
    text = " ".join(read(page).split())
    for literal in re.findall(r"``((?:imapshield|twistd) [^`]*)``", text):
        lexer = shlex.shlex(literal, posix=True)
        lexer.whitespace_split = True
        yield list(lexer)
