"""What proves to the control plane who is calling: three headers with an Ed25519 signature.

Signed are the timestamp's exact text, a colon, and the exact text of the body, which is empty for every GET and for the claim of a build.
"""

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def headers(server_id: str, signing_key: bytes, timestamp_ms: int, body: bytes = b"") -> dict[str, str]:
    """The headers of one request; `signing_key` is the raw 32 bytes, the time is in milliseconds since the epoch."""
    stamp = str(timestamp_ms)
    signature = Ed25519PrivateKey.from_private_bytes(signing_key).sign(stamp.encode("ascii") + b":" + body)
    return {
        "x-server-id": server_id,
        "x-timestamp": stamp,
        "x-signature": base64.b64encode(signature).decode("ascii"),
    }
