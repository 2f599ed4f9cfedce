"""Who may join a cluster with TLS: contexts for both ends of a link, and what a failed handshake means.

TLS 1.3 only, certificates on both sides, each from the cluster's own authority. The name in a certificate need
not match the address: machines at home change theirs, and whoever has a certificate of the cluster is one of its
nodes. A certificate that says what it is for must name that: ``serverAuth`` to accept, ``clientAuth`` to dial.
"""

from __future__ import annotations

import errno
import ssl
from dataclasses import dataclass
from pathlib import Path

from dllama_proto.exit_codes import ExitCode
from dllama_proto.input_files import check_regular
from dllama_worker.errors import UsageError

__all__ = ["NotTls", "TlsContexts", "TlsFiles", "load_tls", "tls_failure"]

#: What to do where a certificate is not accepted, by OpenSSL's number of the reason (``X509_V_ERR_…``).
_OF_ANOTHER = "it is not from the authority in --tls-ca: give all nodes certificates of one authority"
_ADVICE = {
    7: _OF_ANOTHER,
    9: "is the clock of either machine wrong?",
    10: "make a new one with dllama-worker certificates, or set the clock of the machine",
    18: _OF_ANOTHER,
    19: _OF_ANOTHER,
    20: _OF_ANOTHER,
    21: _OF_ANOTHER,
    26: "it needs the usages serverAuth and clientAuth, as dllama-worker certificates makes them",
}

_SPEAKS_NONE = "does not speak TLS: start it with --tls-cert, --tls-key and --tls-ca, or this node without"

#: What OpenSSL calls bytes that are no TLS.
_NO_TLS = (
    "HTTP_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
    "UNKNOWN_PROTOCOL",
    "WRONG_VERSION_NUMBER",
)


class NotTls(OSError):
    """What connects does not begin a handshake of TLS."""

    exit_code = ExitCode.PEER

    def __init__(self) -> None:
        super().__init__(errno.EPROTO, _SPEAKS_NONE)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: this node's certificate and its key, and the certificate of the cluster's authority."""

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True, slots=True)
class TlsContexts:
    """How this node accepts and how it dials."""

    accepting: ssl.SSLContext
    dialling: ssl.SSLContext


def load_tls(files: TlsFiles) -> TlsContexts:
    """Read the files, and try them on each other. Raises UsageError where no node could join with them."""
    contexts = TlsContexts(
        _context(ssl.PROTOCOL_TLS_SERVER, files), _context(ssl.PROTOCOL_TLS_CLIENT, files)
    )
    # Without session tickets, whatever comes after the handshake is the other node's.
    contexts.accepting.num_tickets = 0
    try:
        _try_out(contexts)
    except ssl.SSLError as error:
        raise UsageError(
            f"--tls-cert {files.certificate}: no node would accept it: {tls_failure(error).strerror}"
        ) from error
    return contexts


def tls_failure(error: ssl.SSLError) -> OSError:
    """Return the same error with a person's words: what the other end did, and what to do."""
    return OSError(errno.EPROTO, _words(error))


def _words(error: ssl.SSLError) -> str:
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = _ADVICE.get(error.verify_code)
        text = f"its certificate is not accepted: {error.verify_message}"
        return f"{text}; {advice}" if advice else text
    if isinstance(error, ssl.SSLEOFError):
        return "closed the connection during the TLS handshake; is it without --tls-cert?"
    if reason in _NO_TLS:
        return _SPEAKS_NONE
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "shows no certificate: start it with --tls-cert, --tls-key and --tls-ca"
    if reason in ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_SHARED_CIPHER"):
        return "does not speak TLS 1.3, which every link of this cluster needs"
    if "ALERT" in reason:
        said = reason.partition("ALERT_")[2].replace("_", " ").lower()
        return f"refuses this node's certificate ({said}): its own log says why"
    return f"broke TLS: {reason.replace('_', ' ').lower() or error}"


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        check_regular(files.authority)
        context.load_verify_locations(cafile=files.authority)
    except OSError as error:
        raise UsageError(f"--tls-ca {files.authority}: {_file_problem(error, 'certificate')}") from error
    try:
        for path in (files.certificate, files.key):
            check_regular(path)
        context.load_cert_chain(files.certificate, files.key, password=b"")  # nobody is asked for one
    except OSError as error:
        raise UsageError(
            f"--tls-cert {files.certificate}, --tls-key {files.key}: "
            f"{_file_problem(error, 'certificate and its key')}"
        ) from error
    return context


def _file_problem(error: OSError, expected: str) -> str:
    if not isinstance(error, ssl.SSLError):
        return f"cannot be read: {error.strerror or error}"
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is of another certificate"
    return f"expected a PEM file with a {expected} (a key without a password), got something else"


def _try_out(contexts: TlsContexts) -> None:
    """Shake hands with oneself, in memory. Raises SSLError."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        contexts.dialling.wrap_bio(back, there),
        contexts.accepting.wrap_bio(there, back, server_side=True),
    )
    for _ in range(2):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
