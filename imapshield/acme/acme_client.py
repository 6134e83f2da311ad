"""Asks an authority for a certificate (RFC 8555, challenge HTTP-01). Everything here waits, so it runs in a thread."""

import datetime
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import requests
from acme import challenges, client, crypto_util, errors, messages
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy import jwa, jwk

from imapshield.acme.acme_files import AcmeError, Issued, one_line

MAX_SECONDS = 300
"""Seconds for an order. Let's Encrypt needs a few; others ask from many places, one after another."""

REQUEST_SECONDS = 30
"""Seconds without an answer after which a request has failed."""

_ADVICE = {
    "rateLimited": "wait until then; the limits are of the authority, and each attempt counts",
    "rejectedIdentifier": "the authority issues no certificate for this name; correct --acme",
    "externalAccountRequired": "it needs an account of its web site, which is not supported; use another --acme-server",
    "invalidContact": "correct --acme-email",
    "unsupportedContact": "correct --acme-email",
    "caa": "add the authority to the CAA record of the domain, or remove the record",
    "dns": "add an A or AAAA record for the name, or correct --acme",
    "accountDoesNotExist": "move account.pem away, so that a new account is made",
    "unauthorized": "port 80 of the name must reach this server, or a web server that passes /.well-known on",
    "connection": "port 80 of the name must reach this server: open it in the firewall, and look at --acme-http",
}
_ADVICE["incorrectResponse"] = _ADVICE["unauthorized"]


def new_key() -> bytes:
    """Return a new private key as PEM. All clients with TLS 1.2 can use this curve."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def obtain(
    names: Sequence[str],
    server: str,
    email: str | None,
    account_key: bytes,
    publish: Callable[[str, str], object],
    network: Any = None,
) -> Issued:
    """Return a new certificate, with a new key.

    Args:
        names: the names of the server.
        server: the URL of the directory of the authority.
        email: where the authority may write to.
        account_key: the private key of the account, as PEM.
        publish: called with a path and its content, which the authority will ask for at port 80 of a name.
        network: sends the requests; by default a `client.ClientNetwork`.

    Raises:
        AcmeError: there is none.
    """
    key = _account_key(account_key)
    try:
        network = network or client.ClientNetwork(
            key, alg=jwa.ES256, user_agent="imapshield", timeout=REQUEST_SECONDS
        )
        directory = client.ClientV2.get_directory(server, network)
        own = client.ClientV2(directory, network)
        _log_in(own, email)
        private_key = new_key()
        order = own.new_order(crypto_util.make_csr(private_key, list(names)))
        for authorization in order.authorizations:
            _answer(own, authorization, key, publish)
        # The library compares with a time without a zone.
        deadline = datetime.datetime.now() + datetime.timedelta(seconds=MAX_SECONDS)
        chain = own.poll_and_finalize(order, deadline).fullchain_pem
    except AcmeError:
        raise
    except requests.exceptions.InvalidJSONError as error:
        raise AcmeError(_no_authority(server, error)) from None
    except requests.RequestException as error:
        raise AcmeError(_unreachable(server, error)) from None
    except errors.ValidationError as error:
        raise AcmeError("; ".join(map(_refused, error.failed_authzrs))) from None
    except errors.IssuanceError as error:
        raise AcmeError(_problem(error.error)) from None
    except errors.TimeoutError:
        raise AcmeError(f"{_host(server)} has not decided within {MAX_SECONDS} s") from None
    except messages.Error as error:
        raise AcmeError(_problem(error)) from None
    except Exception as error:  # whatever the library says of answers that are not those of ACME
        raise AcmeError(_no_authority(server, error)) from None
    return Issued(private_key + chain.encode("ascii"), _terms(directory))


def _account_key(pem: bytes) -> jwk.JWK:
    try:
        key = serialization.load_pem_private_key(pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError
    except (ValueError, TypeError):
        raise AcmeError(
            "the account key is damaged; move account.pem away, so that a new one is made"
        ) from None
    return jwk.JWKEC(key=key)


def _log_in(own: Any, email: str | None) -> None:
    """Use the account of the key, which is made when the authority does not have it."""
    wanted = messages.NewRegistration.from_data(email=email, terms_of_service_agreed=True)
    try:
        own.new_account(wanted)
    except errors.ConflictError as conflict:
        account = messages.RegistrationResource(uri=conflict.location, body=messages.Registration())
        own.net.account = account
        if email is not None:
            own.net.post(
                account.uri,
                messages.UpdateRegistration(contact=wanted.contact),
                new_nonce_url=own.directory["newNonce"],
            )


def _answer(own: Any, authorization: Any, key: Any, publish: Callable[[str, str], object]) -> None:
    """Prove that this server has the name of an authorization."""
    body = authorization.body
    if body.status == messages.STATUS_VALID:  # proven for an earlier order
        return
    for challenge in body.challenges:
        if isinstance(challenge.chall, challenges.HTTP01):
            response, content = challenge.response_and_validation(key)
            publish(challenge.chall.path, content)
            own.answer_challenge(challenge, response)
            return
    raise AcmeError(
        f"{body.identifier.value}: the authority offers no challenge HTTP-01; use another --acme-server"
    )


def _host(server: str) -> str:
    return urlsplit(server).netloc


def _unreachable(server: str, error: Exception) -> str:
    # The last part of the text is the cause; before it, each library has added its own words.
    text = " ".join(str(error).split()).rsplit(": ", 1)[-1].rstrip("')\">")
    if isinstance(error, requests.exceptions.SSLError):
        return (
            f"{_host(server)}: its own certificate is not trusted; for an authority of your own set the environment"
            f" variable REQUESTS_CA_BUNDLE to the PEM file with its root ({text:.100})"
        )
    return f"cannot reach {_host(server)}; check the network, DNS and --acme-server ({text:.100})"


def _no_authority(server: str, error: Exception) -> str:
    reason = " ".join(f"{type(error).__name__} {error}".split())
    return f"{server} does not answer as an ACME server ({reason:.200}); look at --acme-server"


def _refused(authorization: Any) -> str:
    """Return why an authorization was refused."""
    name = f"{authorization.body.identifier.value:.253}"
    found = [each.error for each in authorization.body.challenges if each.error is not None]
    return f"{name}: {_problem(found[0]) if found else 'refused without a reason'}"


def _problem(error: Any) -> str:
    """Return what an authority says (RFC 7807), and what to do."""
    code = str(error.typ).rpartition(":")[2]
    parts = [error, *(error.subproblems or ())]
    text = "; ".join(str(each.detail or each.title or code) for each in parts)
    return f"{text:.400} ({code:.50}); {_ADVICE.get(code, 'see RFC 8555 section 6.7')}"


def _terms(directory: Any) -> str:
    terms = getattr(getattr(directory, "meta", None), "terms_of_service", None) or ""
    return f"{one_line(str(terms)):.400}"
