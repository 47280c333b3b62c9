"""What is used of the `podman` library, without the rest of it: its client of every kind of object, the progress bar (rich) that is never
shown, the guessing of text encodings.
"""

import warnings

from shell import light_imports

light_imports.alone("podman")
with light_imports.without("rich"), light_imports.without("charset_normalizer"), warnings.catch_warnings():
    warnings.simplefilter("ignore")  # requests says that it cannot guess; what Podman answers is UTF-8
    from podman.api.client import APIClient, APIResponse
    from podman.domain.containers import Container
    from podman.domain.system import SystemManager
    from podman.errors import APIError, PodmanError
    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter

__all__ = [
    "APIClient",
    "APIError",
    "APIResponse",
    "Container",
    "HTTPAdapter",
    "PodmanError",
    "PreparedRequest",
    "Response",
    "SystemManager",
]
