"""Servers: tokens, registration, heartbeat, peers, and when one counts as offline. Knows nothing of services."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from shell.local_plane.work import queued
from shell.local_plane.world import (
    Answer,
    Moment,
    Server,
    ServerId,
    ServerStatus,
    World,
    refused,
    server_named,
    with_rows,
    without_rows,
)

TOKEN_LIFE_MS = 24 * 3600 * 1000
# The dashboard's server list calls a server offline after this long without a heartbeat.
OFFLINE_AFTER_MS = 300_000
WIREGUARD_PORT = 51820

_HIGHEST_SUBNET = 255
_SERVER_ID_LENGTH = 24
_REQUIRED = ("token", "wireguardPublicKey", "signingPublicKey")


@dataclass(frozen=True, slots=True)
class NamedToken:
    """A server's name, its registration token and the subnet it is to get (None: the lowest free), as they stand in a file."""

    name: str
    token: str
    subnet_id: int | None = None


def with_tokens(world: World, tokens: tuple[NamedToken, ...], moment: Moment) -> World:
    """The world with a row for each named server; a token that its server does not have yet may be used once from now on.

    A registered server keeps its keys until its new token is used.
    """
    for named in tokens:
        known = server_named(world, named.name)
        if known is None:
            known = Server(ServerId(moment.new_id().replace("-", "")[:_SERVER_ID_LENGTH]), named.name)
        elif known.token == named.token:
            continue
        fresh = replace(
            known,
            token=named.token,
            token_made_ms=moment.now_ms,
            token_used=False,
            wanted_subnet=named.subnet_id,
        )
        world = _with_server(world, fresh)
    return world


def register(world: World, body: Mapping[str, Any], moment: Moment) -> tuple[World, Answer]:
    """`POST /register`: keys, subnet and flags stored, the token spent, the other servers told."""
    token, wireguard_key, signing_key = (body.get(name) for name in _REQUIRED)
    if not all(isinstance(value, str) and value for value in (token, wireguard_key, signing_key)):
        return world, refused(400, f"Missing required fields: {', '.join(_REQUIRED)}")
    server = _holder(world, str(token), moment.now_ms)
    if server is None:
        return world, refused(401, "Invalid, expired, or already used token")
    subnet_id = server.subnet_id or _free_subnet(world, server)
    if subnet_id is None:
        return world, refused(409, f"No free subnet: {server.wanted_subnet or 'all 255'} taken")
    public_ip = body.get("publicIp")
    registered = replace(
        server,
        token_used=True,
        status=ServerStatus.ONLINE,
        wireguard_key=str(wireguard_key),
        signing_key=str(signing_key),
        public_ip=public_ip if isinstance(public_ip, str) and public_ip else None,
        is_proxy=body.get("isProxy") is True,
        subnet_id=subnet_id,
        heartbeat_ms=moment.now_ms,
    )
    world = _others_told(_with_server(world, registered), registered, moment)
    return world, Answer(200, _registration(world, registered, subnet_id))


def _registration(world: World, server: Server, subnet_id: int) -> Mapping[str, Any]:
    return {
        "serverId": server.id,
        "subnetId": subnet_id,
        "wireguardIp": tunnel_address(subnet_id),
        "peers": peers_of(world, server.id),
        "encryptionKey": world.encryption_key,
    }


def peers_of(world: World, server_id: ServerId) -> list[Mapping[str, Any]]:
    """Every other server with a key and a subnet, online or not; the endpoint unbracketed, as the original sends it."""
    return [
        {
            "publicKey": server.wireguard_key,
            "allowedIps": f"10.100.{server.subnet_id}.0/24,10.200.{server.subnet_id}.0/24",
            "endpoint": f"{server.public_ip}:{WIREGUARD_PORT}" if server.public_ip else None,
        }
        for server in world.servers.values()
        if server.id != server_id and server.wireguard_key and server.subnet_id
    ]


def heard_from(world: World, server: Server, now_ms: int) -> World:
    """The world after a heartbeat: `server` with what it reported, online now."""
    return _with_server(world, replace(server, status=ServerStatus.ONLINE, heartbeat_ms=now_ms))


def with_silent_offline(world: World, now_ms: int) -> World:
    """The world as the dashboard's server list leaves it: online servers that are silent for too long are offline."""
    silent = [
        replace(server, status=ServerStatus.OFFLINE)
        for server in world.servers.values()
        if server.status is ServerStatus.ONLINE and (server.heartbeat_ms or 0) < now_ms - OFFLINE_AFTER_MS
    ]
    return replace(world, servers=with_rows(world.servers, *silent)) if silent else world


def without_server(world: World, server_id: ServerId) -> World:
    """The world without that server, its deployments and its work."""
    return replace(
        world,
        servers=without_rows(world.servers, [server_id]),
        deployments={key: row for key, row in world.deployments.items() if row.server_id != server_id},
        items={key: row for key, row in world.items.items() if row.server_id != server_id},
    )


def tunnel_address(subnet_id: int) -> str:
    """A server's own address in the tunnel."""
    return f"10.100.{subnet_id}.1"


def _with_server(world: World, server: Server) -> World:
    return replace(world, servers=with_rows(world.servers, server))


def _holder(world: World, token: str, now_ms: int) -> Server | None:
    usable = (server for server in world.servers.values() if server.token == token and not server.token_used)
    return next((server for server in usable if now_ms - server.token_made_ms <= TOKEN_LIFE_MS), None)


def _free_subnet(world: World, server: Server) -> int | None:
    others = [other for other in world.servers.values() if other.id != server.id]
    taken = {other.subnet_id for other in others}
    if server.wanted_subnet is not None:
        return None if server.wanted_subnet in taken else server.wanted_subnet
    taken |= {other.wanted_subnet for other in others}
    return next((number for number in range(1, _HIGHEST_SUBNET + 1) if number not in taken), None)


def _others_told(world: World, newcomer: Server, moment: Moment) -> World:
    others = [server for server in world.servers.values() if server.id != newcomer.id]
    for server in others:
        if server.status is ServerStatus.ONLINE:
            world = queued(world, server.id, "update_wireguard", {"peers": peers_of(world, server.id)}, moment)
    return world
