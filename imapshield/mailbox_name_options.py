"""Checks how mailbox names look to clients: ``--separator`` and ``--prefix``."""

SEPARATORS = "/.^_|:~-"
"""The characters that ``--separator`` permits: those that mean nothing else in mailbox names, patterns and URLs."""


def check_names(separator: str, prefix: str) -> None:
    """Check the values of ``--separator`` and ``--prefix``.

    Raises:
        ValueError: one is wrong. The text is one line for the operator.
    """
    if len(separator) != 1 or separator not in SEPARATORS:
        raise ValueError(f"--separator {separator}: must be one of {' '.join(SEPARATORS)}")
    if not prefix:
        return
    levels = prefix.split(separator)
    if levels.pop():
        raise ValueError(
            f"--prefix {prefix}: must end with the separator {separator}; change --prefix or"
            " --separator"
        )
    if not all(levels) or not prefix.isprintable() or set("*%") & set(prefix):
        raise ValueError(
            f"--prefix {prefix!r}: must not have empty levels, wildcards or control characters;"
            f" use for example INBOX{separator}"
        )
