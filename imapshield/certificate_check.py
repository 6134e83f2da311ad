"""What is wrong with a certificate and its chain, as clients see them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from OpenSSL import crypto

from imapshield.certificates import EXPIRY_DAYS, CertificateSource, DirectoryFiles
from imapshield.check_findings import ERROR, OK, WARNING, Finding
from imapshield.tls import Certificate, certificate_time, unmatched

CLOCK_SKEW = timedelta(minutes=1)
"""A certificate that was issued just now is no error, even if the clock of the authority is a little ahead."""


def check_source(source: CertificateSource) -> Iterator[Finding]:
    """Yield what is to be said about the certificates of one option. That their keys match was checked before."""
    files = source.files
    for each in source.certificates:
        yield from _dates(each, is_automatic=files.is_automatic)
        yield from _chain(each, is_directory=isinstance(files, DirectoryFiles))
    if isinstance(files, DirectoryFiles):
        for text in unmatched(files.directory, files.paths()):
            yield WARNING, f"{files.option}: {text}"


def _dates(certificate: Certificate, *, is_automatic: bool) -> Iterator[Finding]:
    names = b", ".join(certificate.names).decode("ascii", "replace") or "no host name"
    now = datetime.now(UTC)
    if certificate.starts > now + CLOCK_SKEW:
        text = f"valid only from {certificate.starts:%Y-%m-%d}; check the clock of this machine"
        yield ERROR, f"{certificate.option}: {text}"
    days = (certificate.expires - now).total_seconds() / 86400
    severity = OK if days > EXPIRY_DAYS or (is_automatic and days > 0) else WARNING
    severity = severity if days > 0 else ERROR
    advice = "" if severity == OK else "; renew it"
    until = f"{certificate.expires:%Y-%m-%d}"
    yield severity, f"{certificate.option}: for {names}, valid until {until}{advice}"


def _chain(certificate: Certificate, *, is_directory: bool) -> Iterator[Finding]:
    """Look at what clients get: each certificate must have issued the one before, and all must be valid now."""
    option, (leaf, *issuers) = certificate.option, certificate.chain
    if not issuers:
        if leaf.get_issuer() == leaf.get_subject():
            yield WARNING, f"{option}: is signed by itself; clients ask whether to trust it"
            return
        place = (
            "put that of its issuer into the directory"
            if is_directory
            else "name the file with the chain"
        )
        yield (
            WARNING,
            f"{option}: has no chain, and many clients refuse it; {place}, such as fullchain.pem",
        )
        return
    now = datetime.now(UTC)
    for number, (issued, issuer) in enumerate(zip(certificate.chain, issuers, strict=False), 2):
        subject = _name(issuer)
        if issued.get_issuer() != issuer.get_subject():
            text = f"certificate {number} of its chain ({subject}) has not issued the one before"
            yield WARNING, f"{option}: {text}; put the chain in order"
            return
        if not _has_signed(issuer, issued):
            text = f"certificate {number} of its chain ({subject}) has another key than the issuer"
            yield ERROR, f"{option}: {text}; use the chain that came with the certificate"
            return
        starts = certificate_time(issuer.get_notBefore(), datetime.min)
        expires = certificate_time(issuer.get_notAfter(), datetime.max)
        if not starts - CLOCK_SKEW <= now <= expires:
            text = f"certificate {number} of its chain ({subject}) is valid from {starts:%Y-%m-%d} until"
            yield ERROR, f"{option}: {text} {expires:%Y-%m-%d}; use the present chain of the issuer"
            return
    yield OK, f"{option}: sent with a chain of {len(issuers)}"


def _has_signed(issuer: crypto.X509, issued: crypto.X509) -> bool:
    try:
        issued.to_cryptography().verify_directly_issued_by(issuer.to_cryptography())
    except Exception:  # each kind of key has exceptions of its own
        return False
    return True


def _name(certificate: crypto.X509) -> str:
    """Return the name of an issuer as text without control characters, which a file may contain."""
    parts = [value for _, value in certificate.get_subject().get_components()]
    text = ", ".join(part.decode("utf-8", "replace") for part in parts)
    return "".join(character if character.isprintable() else "?" for character in text)
