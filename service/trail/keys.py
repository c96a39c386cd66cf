"""The keys of a trail: one signs checkpoints (Ed25519, RFC 8032), one makes the digests of inputs (HMAC, RFC 2104).

Both are files of mode 0600 in the trail's folder, made at the first start. Whoever has the signing key can sign another
history, so it belongs on the service's machine only; its public half goes to the auditor. Whoever has the HMAC key can
find out by trial which input a digest belongs to.
"""

import base64
import contextlib
import logging
import os
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from service.errors import InvalidInputError, StartError

log = logging.getLogger(__name__)

SIGNING_KEY, PUBLIC_KEY, HMAC_KEY = "signing-key.pem", "public-key.pem", "hmac.key"
HMAC_BYTES = 32


@dataclass(frozen=True)
class PublicKey:
    """What checks signatures."""

    key: Ed25519PublicKey

    @cached_property
    def id(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of its 32 bytes: a name, not a secret."""
        return sha256(self.key.public_bytes_raw()).hexdigest()[:16]

    @cached_property
    def text(self) -> str:
        """Its 32 bytes in base64."""
        return base64.b64encode(self.key.public_bytes_raw()).decode()

    @property
    def pem(self) -> str:
        """As OpenSSL reads it (RFC 8410)."""
        return self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the holder of the private half signed this message."""
        try:
            self.key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    @classmethod
    def of_text(cls, text: str) -> "PublicKey":
        """From 32 bytes in base64; raises InvalidInputError."""
        try:
            return cls(Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True)))
        except ValueError as error:
            raise InvalidInputError(f"public key: expected 32 bytes in base64, got {text[:60]!r}") from error

    @classmethod
    def of_pem(cls, content: bytes) -> "PublicKey":
        """From a PEM file's content; raises InvalidInputError."""
        try:
            key = load_pem_public_key(content)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InvalidInputError(
                "public key: expected a PEM file of an Ed25519 key, got one that is none"
            ) from error
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidInputError(f"public key: expected Ed25519, got {type(key).__name__}")
        return cls(key)


@dataclass(frozen=True)
class Keys:
    """The keys of one trail."""

    signing: Ed25519PrivateKey = field(repr=False)
    hmac: bytes = field(repr=False)

    @cached_property
    def public(self) -> PublicKey:
        """The half that others may have."""
        return PublicKey(self.signing.public_key())

    def sign(self, message: bytes) -> bytes:
        """Sign a message, 64 bytes."""
        return self.signing.sign(message)


def load_or_make(folder: Path) -> Keys:
    """Read the keys of a folder; what is not there is made, once, whichever process comes first.

    Raises:
        StartError: a key cannot be read or written, or is none.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        pem = _read_or_make(folder / SIGNING_KEY, _new_signing_key)
        secret = _read_or_make(folder / HMAC_KEY, lambda: secrets.token_hex(HMAC_BYTES).encode() + b"\n")
    except OSError as error:
        raise StartError(f"trail: expected keys in {folder}, or a folder to make them in: {error.strerror}") from error
    try:
        signing = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StartError(f"{folder / SIGNING_KEY}: expected a PEM file of an Ed25519 key without password") from error
    if not isinstance(signing, Ed25519PrivateKey):
        raise StartError(f"{folder / SIGNING_KEY}: expected an Ed25519 key, got {type(signing).__name__}")
    for path in (folder / SIGNING_KEY, folder / HMAC_KEY):
        if os.name != "nt" and path.stat().st_mode & 0o077:
            log.warning("%s can be read by others than its owner: expected mode 0600", path)
    keys = Keys(signing, _secret(folder / HMAC_KEY, secret))
    public = folder / PUBLIC_KEY
    try:
        if _read_or_make(public, keys.public.pem.encode, 0o644) != keys.public.pem.encode():
            raise StartError(
                f"{public}: expected the public half of {folder / SIGNING_KEY}, got another: remove it, to have it "
                "made anew, and give the new one to whoever has the old one"
            )
    except OSError as error:
        raise StartError(f"{public}: expected a file to read or to make, got: {error.strerror}") from error
    return keys


def read_hmac_key(path: Path) -> bytes:
    """The key of the digests of inputs; raises InvalidInputError."""
    try:
        return _secret(path, path.read_bytes())
    except (OSError, StartError) as error:
        raise InvalidInputError(str(error)) from error


def _secret(path: Path, content: bytes) -> bytes:
    try:
        secret = bytes.fromhex(content.decode())
    except ValueError:
        secret = b""
    if len(secret) < HMAC_BYTES:
        raise StartError(f"{path}: expected {HMAC_BYTES} bytes or more as hexadecimal digits")
    return secret


def _new_signing_key() -> bytes:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read_or_make(path: Path, make: Callable[[], bytes], mode: int = 0o600) -> bytes:
    if not path.exists():
        _write(path, make(), mode)
    return path.read_bytes()


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole; where another process was first, its file stays."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
