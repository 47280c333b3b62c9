"""What is used of the `podman` library, without the progress bar (rich) that it loads and that is never shown."""

from shell import light_imports

with light_imports.without("rich"):
    from podman.api.client import APIClient, APIResponse
    from podman.domain.containers import Container
    from podman.domain.system import SystemManager
    from podman.errors import APIError, PodmanError

__all__ = ["APIClient", "APIError", "APIResponse", "Container", "PodmanError", "SystemManager"]
