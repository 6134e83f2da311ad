"""The certificates of a running server: they are read again when their files change, and the log says when they expire.

Rules
-----
* Files are read in a thread, every `RELOAD_SECONDS` and on request, never because a client connects.
* A handshake uses the certificates that were read last. Connections that exist keep theirs.
* Files that cannot be used, such as a new key beside an old certificate, change nothing. The log has one line about
  them, if they stay so for longer than a program needs to write both.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, ClassVar

from OpenSSL import SSL
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from zope.interface import implementer

from imapshield.config import ConfigError
from imapshield.credentials import credential_path
from imapshield.tls import (
    Certificate,
    SavedCertificate,
    expiry,
    load_directory,
    load_file,
    no_certificate,
    no_protocol,
    pem_files,
    restored,
    saved,
)

RELOAD_SECONDS = 1.0
"""Seconds after which the files of certificates are checked again. A check is a few system calls in a thread."""

EXPIRY_DAYS = 14
"""Days before the end of a certificate from which on the log warns. certbot renews 30 days before."""

WARN_SECONDS = 86400.0
"""Seconds between two warnings."""

SETTLED_SECONDS = 0.1
"""A file that has changed less than this before it was checked may change again without a new time."""

_log = Logger(namespace="imapshield")


@dataclass(frozen=True, slots=True)
class PairFiles:
    """The files of one certificate, as for `tls.load_file`.

    `option` is what messages name instead of ``--certificate``, and `advice` what to do if files cannot be used. If it
    `is_automatic`, the server itself obtains the certificate, which need not be there yet, and is renewed without a
    warning.
    """

    certificate: str
    key: str | None = None
    chain: str | None = None
    option: str = ""
    is_automatic: bool = False
    advice: str = ""

    def paths(self) -> list[str]:
        """Return the files."""
        return [path for path in (self.certificate, self.key, self.chain) if path]

    def load(self, _: Sequence[str]) -> list[Certificate]:
        """Return the certificate; none if it may be absent, and is."""
        if self.is_automatic and not os.path.exists(self.certificate):
            return []
        return [load_file(self.certificate, self.key, self.chain, self.option, self.advice)]


def pair_files(certificate: str, key: str | None) -> PairFiles:
    """Return the files of ``--certificate`` and ``--key``, with absolute paths: twistd may change its directory.

    Raises:
        ConfigError: one is a credential that systemd has not passed.
    """
    certificate = os.path.abspath(credential_path(certificate, "--certificate"))
    return PairFiles(certificate, os.path.abspath(credential_path(key, "--key")) if key else None)


@dataclass(frozen=True, slots=True)
class DirectoryFiles:
    """All certificates of a directory and those below it, as in the ``live`` directory of certbot.

    They are in files ``*.pem``: private keys, their certificates, and the certificates that issued those, in any order
    and in any files.
    """

    directory: str
    is_automatic: ClassVar[bool] = False

    @property
    def option(self) -> str:
        """What messages name."""
        return f"--listen tls:{self.directory}"

    def paths(self) -> list[str]:
        """Return the files."""
        return sorted(pem_files(self.directory))

    def load(self, paths: Sequence[str]) -> list[Certificate]:
        """Return the certificates."""
        return load_directory(self.directory, list(paths))


@dataclass(frozen=True, slots=True)
class _Reading:
    """What `files` contain: a problem, or certificates. Neither if they are as before."""

    files: PairFiles | DirectoryFiles
    stamps: object = None
    problem: str = ""
    certificates: Sequence[Certificate] = ()


@implementer(IOpenSSLServerConnectionCreator)
class CertificateSource:
    """The certificates of one option. Each client gets the one for the name that it asks for (SNI).

    A client that asks for another name, or for none, gets the certificate of the first file in alphabetical order.
    While there is none, handshakes fail at once: a client that was offered no TLS might send its password without it.

    Args:
        files: where they are.
        earlier: those of another process, which are used if the files cannot be used now.

    Attributes:
        files: as above.
        certificates: those in use.

    Raises:
        ConfigError: they cannot be used, and there are no earlier ones.
    """

    def __init__(
        self, files: PairFiles | DirectoryFiles, earlier: Sequence[SavedCertificate] = ()
    ) -> None:
        self.files = files
        self._stamps: object = None
        self._failed: object = None
        self._reported: object = None
        try:
            paths = files.paths()
            stamps, found = _stamps(paths), files.load(paths)
        except ConfigError:
            if not earlier:
                raise
            stamps, found = None, [*map(restored, earlier)]
        self._stamps = stamps
        self._use(found)

    def take(self, other: "CertificateSource") -> None:
        """Use the certificates and the files of another source from now on.

        Not for the source of ``--acme``, whose renewal would judge the other certificate.
        """
        assert not self.files.is_automatic
        self.files, self._stamps, self._failed = other.files, other._stamps, None
        self._use(other.certificates)

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:  # noqa: ARG002
        """Return a connection with the default certificate, which is replaced when the client has named the server."""
        context = self.certificates[0].context if self.certificates else no_certificate()
        return SSL.Connection(context, None)

    def read(self) -> _Reading:
        """Read the files if they have changed. Runs in a thread, and raises nothing."""
        files, stamps = self.files, None
        try:
            paths = files.paths()
            stamps = _stamps(paths)
            if stamps is not None and stamps == self._stamps:
                return _Reading(files)
            return _Reading(files, stamps, certificates=files.load(paths))
        except ConfigError as error:
            return _Reading(files, stamps, str(error))
        except Exception as error:  # whatever OpenSSL says of a file that is being written
            return _Reading(files, stamps, f"{self._name}: cannot be used ({error})")

    def use(self, reading: _Reading, *, insist: bool) -> str:
        """Use what was read. Returns a problem that is to be reported; "" if there is none.

        Args:
            reading: what `read` has returned.
            insist: report a problem at once, and again. Otherwise one that stays is reported the second time.
        """
        if reading.files is not self.files:
            return ""
        failed = (reading.problem, reading.stamps) if reading.problem else None
        was_seen, self._failed = failed == self._failed, failed
        if reading.certificates:
            was_same = _digests(reading.certificates) == _digests(self.certificates)
            self._use(reading.certificates)
            self._stamps = reading.stamps
            if not was_same:
                _log.info(
                    "{what}: renewed, valid until {until}", what=self._name, until=self._until()
                )
        if failed is None:
            self._reported = None
        elif insist or (was_seen and failed != self._reported):
            self._reported = failed
            _log.warn("{problem}; the earlier certificate stays in use", problem=reading.problem)
            return reading.problem
        return ""

    @property
    def _name(self) -> str:
        return self.files.option or self.certificates[0].option

    def _until(self) -> str:
        return min(each.expires for each in self.certificates).strftime("%Y-%m-%d")

    def _use(self, certificates: Sequence[Certificate]) -> None:
        if len(certificates) > 1:
            for each in certificates:
                each.context.set_tlsext_servername_callback(self._select)
        for each in certificates:
            each.context.set_alpn_select_callback(no_protocol)
        self.certificates = certificates
        self._by_name = {name: each.context for each in certificates for name in each.names}

    def _select(self, connection: SSL.Connection) -> None:
        """Use the certificate for the name that the client asks for. OpenSSL calls this during the handshake."""
        name = (connection.get_servername() or b"").lower()
        wildcard = b"*." + name.partition(b".")[2]
        context = self._by_name.get(name) or self._by_name.get(wildcard)
        if context is not None:
            connection.set_context(context)


def _digests(certificates: Iterable[Certificate]) -> list[bytes]:
    return [each.digest for each in certificates]


def _stamps(paths: Iterable[str]) -> object:
    """Return what is different when a file has changed; None if a file may have changed just now."""
    now, stamps = datetime.now(UTC).timestamp(), []
    for path in paths:
        with suppress(OSError):
            status = os.stat(path)
            if abs(now - status.st_ctime) < SETTLED_SECONDS:
                return None
            times = status.st_mtime_ns, status.st_ctime_ns
            stamps.append((path, *times, status.st_size, status.st_ino, status.st_dev))
    return stamps


class Certificates:
    """The certificates of a server.

    Args:
        clock: an `IReactorTime`.
        run_in_thread: calls a function in a thread.
        now: returns the time of day.
        earlier: those of another process, as its `saved` returns them (`CertificateSource`).

    Attributes:
        main: those of ``--certificate``, or None.
    """

    def __init__(
        self,
        clock: Any,
        run_in_thread: Callable[[Callable[[], Any]], Deferred[Any]] = deferToThread,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        earlier: Mapping[str, Sequence[SavedCertificate]] = MappingProxyType({}),
    ) -> None:
        self._earlier = earlier
        self.main: CertificateSource | None = None
        self._sources: list[CertificateSource] = []
        self._clock, self._run_in_thread, self._now = clock, run_in_thread, now
        self._lock = DeferredLock()
        self._loop = LoopingCall(self._check)
        self._loop.clock = clock
        self._warned: dict[str, tuple[float, datetime]] = {}  # option → when, and of which end

    def add(self, files: PairFiles | DirectoryFiles) -> CertificateSource:
        """Return a new source, whose files are checked.

        Raises:
            ConfigError: its certificates cannot be used.
        """
        source = CertificateSource(files, self._earlier.get(repr(files), ()))
        self._sources.append(source)
        self.warn_of_expiry()
        return source

    @property
    def sources(self) -> Sequence[CertificateSource]:
        """All sources."""
        return tuple(self._sources)

    def saved(self) -> dict[str, list[SavedCertificate]]:
        """Return all certificates, by their files, for another process of this server."""
        return {repr(each.files): [*map(saved, each.certificates)] for each in self._sources}

    def set_main(self, source: CertificateSource) -> None:
        """Use another certificate for ``--certificate``, also on the endpoints that have the present one."""
        if self.main is None:
            self.main = source
            self._sources.append(source)
            self.start()
        else:
            self.main.take(source)
        self.warn_of_expiry()

    def start(self) -> None:
        """Check the files from now on."""
        if self._sources and not self._loop.running:
            self._loop.start(RELOAD_SECONDS, now=False)

    def unreadable(self) -> list[str]:
        """Return the files and directories that the effective user of the process cannot read.

        Those that the server writes itself are not among them.
        """
        found: set[str] = set()
        for source in self._sources:
            if source.files.is_automatic:
                continue
            try:
                found.update(source.files.paths())
            except ConfigError:
                assert isinstance(source.files, DirectoryFiles)
                found.add(source.files.directory)
        return sorted(path for path in found if not os.access(path, os.R_OK, effective_ids=True))

    def stop(self) -> None:
        """Check the files no longer."""
        if self._loop.running:
            self._loop.stop()

    def reload(self, *, insist: bool = True) -> Deferred[list[str]]:
        """Use renewed certificates. Fires with the problems; without `insist` only those that are new and stay."""
        return self._lock.run(lambda: Deferred.fromCoroutine(self._reload(self._sources, insist)))

    async def reload_one(self, source: CertificateSource) -> str:
        """Use the renewed certificate of one source. Returns its problem; "" if there is none."""
        reading = self._lock.run(lambda: Deferred.fromCoroutine(self._reload([source], True)))
        return "; ".join(await reading)

    async def _reload(self, sources: Iterable[CertificateSource], insist: bool) -> list[str]:
        problems = []
        for source in sources:
            problem = source.use(await self._run_in_thread(source.read), insist=insist)
            problems += [problem] if problem else []
        self.warn_of_expiry()
        return problems

    def _check(self) -> Deferred[Any]:
        reloading = self.reload(insist=False)
        return reloading.addErrback(lambda failure: _log.failure("certificates", failure))

    async def status(self) -> dict[str, Any] | None:
        """Return which certificate ends first and when, in seconds since 1970; and what is wrong. None without any."""
        found = [each for source in self._sources for each in source.certificates]
        if not found:
            return None
        first = min(found, key=lambda each: each.expires)
        problems = [problem for _, problem in self._expiring()]
        return {
            "option": first.option, "expires": first.expires.timestamp(), "problems": problems,
        }  # fmt: skip

    def warn_of_expiry(self) -> None:
        """Log which certificates have expired or will soon, each once a day."""
        seconds = self._clock.seconds()
        for each, problem in self._expiring():
            last = self._warned.get(each.option)
            if last and last[1] == each.expires and seconds < last[0] + WARN_SECONDS:
                continue
            self._warned[each.option] = seconds, each.expires
            _log.warn("{problem}", problem=problem)

    def _expiring(self) -> Iterator[tuple[Certificate, str]]:
        """Yield what has expired or will soon, and a line about it."""
        for source in self._sources:
            for each in source.certificates:
                days = (each.expires - self._now()).total_seconds() / 86400
                warn_days = float(EXPIRY_DAYS)
                if source.files.is_automatic:
                    # A third of the lifetime remains for the renewal; authorities have certificates for a week, too.
                    warn_days = min(warn_days, (each.expires - each.starts) / timedelta(days=5))
                if days <= warn_days:
                    problem = expiry(days, each.expires)
                    yield each, f"{each.option}: the certificate {problem}; renew it"
