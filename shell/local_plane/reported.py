"""A status report from its JSON into what it changes: the server's own numbers and its containers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shell.local_plane.documents import validation_fault
from shell.local_plane.servers import heard_from
from shell.local_plane.status import Reported, after_report
from shell.local_plane.world import Answer, Server, World, refused


class _Resources(BaseModel):
    """Integer columns: a fraction is a fault. A number that is left out stays as it was, null clears it."""

    cpu_cores: int | None = Field(None, alias="cpuCores")
    memory_mb: int | None = Field(None, alias="memoryMb")
    disk_gb: int | None = Field(None, alias="diskGb")


class _Container(BaseModel):
    deployment_id: str = Field("", alias="deploymentId")
    container_id: str = Field("", alias="containerId")
    health: str | None = Field(None, alias="healthStatus")


class _Report(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    resources: _Resources | None = None
    public_ip: str | None = Field(None, alias="publicIp")
    containers: list[_Container]


def status_report(world: World, server: Server, body: Mapping[str, Any], now_ms: int) -> tuple[World, Answer]:
    """`POST /status`. Where the original fails with 500 (no list, fractions) the answer is 400 with the path."""
    try:
        report = _Report.model_validate(body)
    except ValidationError as error:
        return world, refused(400, str(validation_fault(error)))
    heard = replace(server, public_ip=report.public_ip or server.public_ip)
    if report.resources is not None:
        given = report.resources.model_dump(include=report.resources.model_fields_set)
        heard = replace(heard, **given)
    world = heard_from(world, heard, now_ms)
    entries = (Reported(entry.deployment_id, entry.container_id, entry.health) for entry in report.containers)
    return after_report(world, server.id, tuple(entries)), Answer(200, {"ok": True})
