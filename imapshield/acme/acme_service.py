"""`AcmeService`: what the server does for ``--acme``, and nothing without the option."""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from importlib.util import find_spec
from typing import Any

from imapshield.acme.acme_files import AcmeFiles, Issued
from imapshield.acme.challenge_port import ChallengePort
from imapshield.acme.renewal import Renewal, run_in_daemon_thread
from imapshield.certificates import Certificates, PairFiles
from imapshield.config import ConfigError, Settings
from imapshield.extras import install_command
from imapshield.state_file import default_path


def acme_files(settings: Settings, environ: Mapping[str, str], first_run_folder: str) -> AcmeFiles:
    """Return the files of ``--acme``.

    Raises:
        ConfigError: a package is missing.
    """
    if find_spec("acme") is None or find_spec("josepy") is None:
        raise ConfigError(f"--acme needs packages: {install_command('acme')}")
    folder = settings.acme_state or default_path(environ, first_run_folder, "acme")
    return AcmeFiles(os.path.abspath(folder), settings.acme_server)


def acme_pair(settings: Settings, files: AcmeFiles) -> PairFiles:
    """Return the files of the certificate, as `Certificates` needs them."""
    return PairFiles(
        files.certificate,
        option=f"--acme {','.join(settings.acme)}",
        is_automatic=True,
        advice=f"move {files.certificate} away, so that the server obtains another one",
    )


class AcmeService:
    """Obtains and renews the certificate of one server.

    Args:
        settings: the configuration.
        certificates: those of the server. If the configuration has ``--acme``, their main one is that from now on.
        reactor: the reactor.
        environ: the environment.
        first_run_folder: has the state by default.
        acting: returns a context in which the process has the rights of the server's user.
        obtains: whether the process obtains it; otherwise another process does.

    Raises:
        ConfigError: an option cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        certificates: Certificates,
        reactor: Any,
        environ: Mapping[str, str],
        first_run_folder: str,
        acting: Callable[[], AbstractContextManager[None]],
        *,
        obtains: bool = True,
    ) -> None:
        self._port: ChallengePort | None = None
        self._renewal: Renewal | None = None
        if not settings.acme:
            return
        files = acme_files(settings, environ, first_run_folder)
        with acting():
            if obtains:
                files.prepare()
            source = certificates.main = certificates.add(acme_pair(settings, files))
        if not obtains:
            return
        # Imported here, because the packages take a moment, and memory that servers without --acme do not need. Not at
        # the renewal: an upgrade may have replaced them by then.
        from imapshield.acme import acme_client

        self._port = port = ChallengePort(settings.acme_http, reactor)
        self._renewal = Renewal(
            settings.acme,
            files,
            port,
            partial(_obtain, settings, files, port, acme_client),
            source,
            certificates,
            reactor,
            partial(run_in_daemon_thread, reactor),
        )

    def open(self) -> None:
        """Listen, while the process may still be root.

        Raises:
            CannotServe: that is not possible.
        """
        if self._port is not None:
            self._port.open()

    def start(self) -> None:
        """Begin, as the user of the server."""
        if self._renewal is not None:
            self._renewal.start()

    async def retry(self) -> list[str]:
        """Do not wait for longer after a failure."""
        return [] if self._renewal is None else await self._renewal.retry()

    async def close(self) -> None:
        """End."""
        if self._renewal is not None and self._port is not None:
            self._renewal.stop()
            await self._port.close()


def _obtain(settings: Settings, files: AcmeFiles, port: ChallengePort, client: Any) -> Issued:
    """Obtain a certificate with `acme_client`, and write it. Runs in a thread."""
    key = files.key(client.new_key)
    issued: Issued = client.obtain(
        settings.acme, files.server, settings.acme_email, key, port.publish
    )
    files.save(issued.pem)
    return issued
