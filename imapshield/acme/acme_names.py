"""The names and addresses that ``--acme`` and its companions accept. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

DEFAULT_SERVER = "https://acme-v02.api.letsencrypt.org/directory"
"""The directory of Let's Encrypt."""

DEFAULT_HTTP = "80"
"""The port at which an authority asks, on all addresses (RFC 8555 section 8.3)."""

MAX_NAMES = 100
"""Names of one certificate; Let's Encrypt permits no more."""

_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)", re.ASCII)


def host_names(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the names of ``--acme`` as a certificate has them: in lower case, international ones as A-labels.

    Raises:
        ValueError: one is not the name of a host. The text says what to write.
    """
    names = [part.strip() for text in texts for part in text.split(",")]
    if len(names) > MAX_NAMES:
        raise ValueError(f"at most {MAX_NAMES} names; this is {len(names)}")
    return tuple(dict.fromkeys(map(_host_name, names)))


def _host_name(text: str) -> str:
    if "*" in text:
        raise ValueError(f"{text}: no wildcards; write each name, such as mail.example.org")
    try:
        name = text.encode("idna").decode("ascii").lower()
    except UnicodeError:
        name = ""
    labels = name.split(".")
    if not all(_LABEL.fullmatch(label) for label in labels) or len(name) > 253:
        raise ValueError(f"{text}: not the name of a host; write for example mail.example.org")
    if labels[-1].isdecimal():
        raise ValueError(f"{text}: is an address; write the name that clients use")
    return name


def server_url(text: str) -> str:
    """Return the URL of ``--acme-server``.

    Raises:
        ValueError: it is not a URL with https, which RFC 8555 section 6.1 requires.
    """
    try:
        parts = urlsplit(text)
        valid = parts.scheme == "https" and bool(parts.hostname) and (parts.port or 443) > 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"must be the https URL of a directory, such as {DEFAULT_SERVER}")
    return text


def server_folder(url: str) -> str:
    """Return the name of the directory for the account and the certificate of one authority."""
    return re.sub(r"[^a-z0-9.-]+", "_", url.removeprefix("https://").lower()).strip("_.")


def email_address(text: str) -> str:
    """Return the address of ``--acme-email``.

    Raises:
        ValueError: it is not one.
    """
    if not re.fullmatch(r"[^\s@,?&]+@[^\s@,?&]+\.[^\s@,?&]+", text):
        raise ValueError("must be an e-mail address, such as postmaster@example.org")
    return text


def acme_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ``--acme`` and its companions.

    Args:
        options: the options by their long names.

    Raises:
        ValueError: they are wrong. The text is one line for the operator.
    """
    given: dict[str, Any] = {}
    for name, read in (
        ("acme", host_names),
        ("acme-email", email_address),
        ("acme-http", str),
        ("acme-server", server_url),
        ("acme-state", str),
    ):
        if name in options:
            try:
                given[name.replace("-", "_")] = read(options[name])
            except ValueError as error:
                shown = "" if name == "acme" else f" {options[name]}"
                raise ValueError(f"--{name}{shown}: {error}") from None
    if given and "acme" not in given:
        option = next(iter(given)).replace("_", "-")
        raise ValueError(f"--{option} needs --acme: add --acme mail.example.org")
    return given
