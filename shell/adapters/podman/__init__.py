"""Podman: the component that runs containers. `adapter` says what is done, `service` how one talks to it, `connection` over what."""

from shell.adapters.podman.adapter import Podman, PodmanSettings

__all__ = ["Podman", "PodmanSettings"]
