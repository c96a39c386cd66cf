"""The keys of a trail: made once, kept from others' eyes, read again, and refused by name where they are none."""

import base64
import hashlib
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from service.errors import InvalidInputError, StartError
from service.trail.keys import Keys, PublicKey, load_or_make, read_hmac_key

ROOT = Path(__file__).parents[2]
SIGNING, PUBLIC, HMAC = "signing-key.pem", "public-key.pem", "hmac.key"
MESSAGE = b"what was said"
UNKNOWN_KIND = """-----BEGIN {0}-----
{1}
-----END {0}-----
"""


def pem_of(key: Ed25519PrivateKey, password: bytes | None = None) -> bytes:
    """A private key as PKCS #8, with or without a password."""
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def of_unknown_kind(*, private: bool) -> bytes:
    """A PEM file of a key of an algorithm that nobody knows (an object identifier of no meaning), well formed."""
    algorithm = bytes.fromhex("3006" + "0604" + "2a030405")  # SEQUENCE { OBJECT IDENTIFIER 1.2.3.4.5 }
    content = b"\x02\x01\x00" + algorithm + b"\x04\x22\x04\x20" + bytes(32) if private else algorithm + b"\x03\x21\x00"
    content = content if private else content + bytes(32)
    der = b"\x30" + bytes([len(content)]) + content
    kind = "PRIVATE KEY" if private else "PUBLIC KEY"
    return UNKNOWN_KIND.format(kind, base64.b64encode(der).decode()).encode()


def modes(folder: Path) -> dict[str, int]:
    """Who may read what."""
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


def test_keys_are_made_once_and_are_the_owners_alone(tmp_path: Path) -> None:
    """In a folder that is made too; the public half is for everybody. Nothing else is left lying."""
    folder = tmp_path / "a" / "trail"
    keys = load_or_make(folder)
    assert {SIGNING: 0o600, HMAC: 0o600, PUBLIC: 0o644} == modes(folder)
    assert 0o700 == folder.stat().st_mode & 0o777
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    again = load_or_make(folder)
    assert (keys.public.text, keys.hmac) == (again.public.text, again.hmac)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_trail_has_keys_of_its_own(tmp_path: Path) -> None:
    """They are random."""
    first, second = load_or_make(tmp_path / "first"), load_or_make(tmp_path / "second")
    assert first.public.id != second.public.id
    assert first.hmac != second.hmac
    assert (32, 32) == (len(first.hmac), len(second.hmac))


def test_keys_that_were_brought_along_are_used(tmp_path: Path) -> None:
    """A signing key from elsewhere, and a longer HMAC key in capitals; what is missing is made to go with them."""
    signing = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    (tmp_path / SIGNING).write_bytes(pem_of(signing))
    (tmp_path / HMAC).write_text(bytes(range(48)).hex().upper())
    keys = load_or_make(tmp_path)
    assert bytes(range(48)) == keys.hmac
    assert signing.public_key().public_bytes_raw() == base64.b64decode(keys.public.text)
    loaded = load_pem_public_key((tmp_path / PUBLIC).read_bytes())
    assert signing.public_key() == loaded


@pytest.mark.parametrize("content", [None, b"", b"rubbish"])
def test_a_public_key_that_does_not_go_with_the_signing_key_stops_the_start(
    tmp_path: Path, content: bytes | None
) -> None:
    """Auditors take that file: it must not name a key that signs no more, nor any other thing (None: another key)."""
    load_or_make(tmp_path)
    if content is None:
        (tmp_path / SIGNING).write_bytes(pem_of(Ed25519PrivateKey.generate()))
    else:
        (tmp_path / PUBLIC).write_bytes(content)
    with pytest.raises(StartError, match="expected the public half of") as caught:
        load_or_make(tmp_path)
    assert str(tmp_path / PUBLIC) in str(caught.value)
    (tmp_path / PUBLIC).unlink()
    assert load_or_make(tmp_path).public.pem == (tmp_path / PUBLIC).read_text()


def test_several_processes_at_once_have_the_same_keys(tmp_path: Path) -> None:
    """Eight processes that find no key all end up with those of one of them, several times over."""
    script = """
import json, sys, time
from pathlib import Path
from service.trail.keys import load_or_make
sys.stdout.write("ready\\n"); sys.stdout.flush()
found = []
for line in sys.stdin:
    keys = load_or_make(Path(line.strip()))
    found.append([keys.public.text, keys.hmac.hex()])
print(json.dumps(found))
"""
    folders = [tmp_path / str(number) for number in range(20)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
    lines = "".join(f"{folder}\n" for folder in folders)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(lines)
        process.stdin.flush()
        process.stdin.close()
    found = []
    for process in processes:
        assert process.stdout is not None
        found.append(json.loads(process.stdout.read()))
        process.stdout.close()
        assert 0 == process.wait(60)
    assert [found[0]] * 8 == found
    for folder, (text, secret) in zip(folders, found[0], strict=True):
        keys = load_or_make(folder)
        assert (text, secret) == (keys.public.text, keys.hmac.hex())
        assert {SIGNING: 0o600, HMAC: 0o600, PUBLIC: 0o644} == modes(folder)


BAD_SIGNING_KEYS = {
    "empty": b"",
    "rubbish": b"no key\n",
    "bytes": bytes(range(256)),
    "cut off": pem_of(Ed25519PrivateKey.generate())[:60],
    "with a password": pem_of(Ed25519PrivateKey.generate(), b"password"),
    "of a curve": generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    "a public one": Ed25519PrivateKey.generate()
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "of an unknown kind": of_unknown_kind(private=True),
}


@pytest.mark.parametrize("kind", BAD_SIGNING_KEYS)
def test_a_signing_key_that_is_none_stops_the_start(tmp_path: Path, kind: str) -> None:
    """By the name of its file; it is not replaced, and no message holds what is in it."""
    (tmp_path / SIGNING).write_bytes(BAD_SIGNING_KEYS[kind])
    with pytest.raises(StartError, match="Ed25519") as caught:
        load_or_make(tmp_path)
    assert str(tmp_path / SIGNING) in str(caught.value)
    assert BAD_SIGNING_KEYS[kind] == (tmp_path / SIGNING).read_bytes()


@pytest.mark.parametrize("content", [b"", b"secret", b"\xff\xfe", b"ab" * 31, b"ab" * 31 + b"a"])
def test_an_hmac_key_that_is_none_stops_the_start(tmp_path: Path, content: bytes) -> None:
    """By the name of its file, and without what is in it: fewer than 32 bytes, or no hexadecimal digits."""
    (tmp_path / HMAC).write_bytes(content)
    with pytest.raises(StartError, match="expected 32 bytes or more as hexadecimal digits") as caught:
        load_or_make(tmp_path)
    assert str(tmp_path / HMAC) in str(caught.value)
    assert "secret" not in str(caught.value)
    with pytest.raises(InvalidInputError, match="hexadecimal digits"):
        read_hmac_key(tmp_path / HMAC)


@pytest.mark.parametrize("name", [SIGNING, HMAC, PUBLIC])
def test_a_folder_in_place_of_a_key_stops_the_start(tmp_path: Path, name: str) -> None:
    """With the trail's folder in the message."""
    (tmp_path / name).mkdir()
    with pytest.raises(StartError, match="expected") as caught:
        load_or_make(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_trail_where_no_folder_can_be_stops_the_start(tmp_path: Path) -> None:
    """There is a file in its place, or above it."""
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "trail"):
        with pytest.raises(StartError, match="expected keys in") as caught:
            load_or_make(folder)
        assert str(folder) in str(caught.value)


def test_the_hmac_key_is_read_alone(tmp_path: Path) -> None:
    """By whoever checks digests; a file that is not there is an error of the caller's."""
    keys = load_or_make(tmp_path)
    assert keys.hmac == read_hmac_key(tmp_path / HMAC)
    with pytest.raises(InvalidInputError, match=r"none\.key"):
        read_hmac_key(tmp_path / "none.key")


# Signatures


def test_others_can_check_a_signature(tmp_path: Path) -> None:
    """The library by itself, from the PEM file alone; and OpenSSL's command line."""
    keys = load_or_make(tmp_path)
    signature = keys.sign(MESSAGE)
    public = load_pem_public_key((tmp_path / PUBLIC).read_bytes())
    assert isinstance(public, Ed25519PublicKey)
    public.verify(signature, MESSAGE)
    with pytest.raises(InvalidSignature):
        public.verify(signature, MESSAGE + b"!")
    (tmp_path / "message").write_bytes(MESSAGE)
    (tmp_path / "signature").write_bytes(signature)
    arguments = ["-verify", "-pubin", "-inkey", PUBLIC, "-rawin", "-in", "message", "-sigfile", "signature"]
    good = subprocess.run(["openssl", "pkeyutl", *arguments], cwd=tmp_path, capture_output=True, check=False)
    assert 0 == good.returncode, good.stderr
    (tmp_path / "message").write_bytes(MESSAGE + b"!")
    bad = subprocess.run(["openssl", "pkeyutl", *arguments], cwd=tmp_path, capture_output=True, check=False)
    assert 0 != bad.returncode


def test_a_signature_holds_for_one_message_and_one_key(tmp_path: Path) -> None:
    """Anything else is no signature, whatever its length."""
    keys, other = load_or_make(tmp_path / "a"), load_or_make(tmp_path / "b")
    signature = keys.sign(MESSAGE)
    assert 64 == len(signature)
    assert keys.public.verifies(signature, MESSAGE)
    flipped = bytes([signature[0] ^ 1]) + signature[1:]
    for wrong in (flipped, signature[:-1], signature + b"\x00", b"", bytes(64), other.sign(MESSAGE)):
        assert not keys.public.verifies(wrong, MESSAGE)
    assert not keys.public.verifies(signature, MESSAGE + b" ")
    assert not other.public.verifies(signature, MESSAGE)


def test_the_public_key_as_text(tmp_path: Path) -> None:
    """Base64 of 32 bytes and PEM lead back to the same key, whose id is the beginning of its SHA-256."""
    public = load_or_make(tmp_path).public
    raw = base64.b64decode(public.text)
    assert 32 == len(raw)
    assert hashlib.sha256(raw).hexdigest()[:16] == public.id
    assert public.pem == (tmp_path / PUBLIC).read_text()
    for other in (PublicKey.of_text(public.text), PublicKey.of_pem(public.pem.encode())):
        assert (public.id, public.text, public.pem) == (other.id, other.text, other.pem)


@pytest.mark.parametrize(
    "text", ["", "AAAA", "no base64!", "ü" * 44, base64.b64encode(bytes(33)).decode(), "A" * 10**6]
)
def test_a_text_that_is_no_public_key_is_refused(text: str) -> None:
    """By an error that does not repeat all of it."""
    with pytest.raises(InvalidInputError, match="expected 32 bytes in base64") as caught:
        PublicKey.of_text(text)
    assert len(str(caught.value)) < 200


BAD_PUBLIC_KEYS = {
    "empty": b"",
    "rubbish": b"no key\n",
    "a private one": pem_of(Ed25519PrivateKey.generate()),
    "of a curve": generate_private_key(SECP256R1())
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "of an unknown kind": of_unknown_kind(private=False),
}


@pytest.mark.parametrize("kind", BAD_PUBLIC_KEYS)
def test_a_file_that_is_no_public_key_is_refused(kind: str) -> None:
    """A PEM file of anything else included."""
    with pytest.raises(InvalidInputError, match="Ed25519"):
        PublicKey.of_pem(BAD_PUBLIC_KEYS[kind])


def test_keys_do_not_show_themselves(tmp_path: Path) -> None:
    """Whatever logs or shows the object does not tell the secret."""
    keys = load_or_make(tmp_path)
    shown = f"{keys!r} {keys}"
    assert keys.hmac.hex() not in shown
    assert repr(keys.hmac) not in shown
    assert isinstance(keys, Keys)


def test_a_key_that_others_can_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is used all the same: an orchestrator may mount it so."""
    load_or_make(tmp_path)
    (tmp_path / SIGNING).chmod(0o644)
    with caplog.at_level(logging.WARNING):
        load_or_make(tmp_path)
    assert [f"{tmp_path / SIGNING} can be read by others than its owner: expected mode 0600"] == [
        record.getMessage() for record in caplog.records
    ]
