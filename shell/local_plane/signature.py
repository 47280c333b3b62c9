"""Who calls: the checks that every call but registration passes, in the protocol's order. Refuses to know what is called.

Headers, then timestamp, then server, then signature. The signed text is the exact timestamp header, a colon, and the exact body.
"""

import base64
import binascii
import re
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from shell.local_plane.world import Answer, Server, ServerId, World, refused

WINDOW_MS = 60_000

_WHOLE_NUMBER = re.compile(r"\s*([+-]?[0-9]{1,19})")
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/]")
_SIGNATURE_BYTES = 64


def caller(world: World, headers: Mapping[str, str], body: bytes, now_ms: int) -> Server | Answer:
    """The server that signed this call, or the refusal. `body` is what the signature covers: empty for GET and for a claim."""
    server_id, stamp, signature = (headers.get(name, "") for name in ("x-server-id", "x-timestamp", "x-signature"))
    if not (server_id and stamp and signature):
        return refused(400, "Missing required headers: x-server-id, x-timestamp, x-signature")
    sent_ms = _milliseconds(stamp)
    if sent_ms is None or abs(now_ms - sent_ms) > WINDOW_MS:
        return refused(401, "Request timestamp expired or invalid")
    server = world.servers.get(ServerId(server_id))
    if server is None or not server.signing_key:
        return refused(404, "Server not found or not registered")
    if not _verifies(server.signing_key, signature, stamp.encode() + b":" + body):
        return refused(401, "Invalid signature")
    return server


def _milliseconds(stamp: str) -> int | None:
    """The leading whole number, as JavaScript's `parseInt` reads it: a fraction is dropped, not refused."""
    match = _WHOLE_NUMBER.match(stamp)
    return int(match[1]) if match else None


def _verifies(key: str, signature: str, message: bytes) -> bool:
    try:
        public = Ed25519PublicKey.from_public_bytes(_bytes(key))
        raw = _bytes(signature)
        if len(raw) != _SIGNATURE_BYTES:
            return False
        public.verify(raw, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _bytes(text: str) -> bytes:
    """Base64 as lenient as the original: either alphabet, padding or none, foreign characters skipped, over at the first `=`."""
    letters = _NOT_BASE64.sub("", text.split("=")[0].replace("-", "+").replace("_", "/"))
    if len(letters) % 4 == 1:  # a lone letter holds no whole byte
        letters = letters[:-1]
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except binascii.Error:
        return b""
