"""From options to a node: what the daemon, and every command that works on this server, does first."""

from shell import files, identity, log
from shell.adapters.control_plane import ControlPlane, Signer, check_url
from shell.failure import CommandError
from shell.identity import Identity
from shell.log import logger
from shell.node import Node, build
from shell.options import Options


def registered(options: Options) -> Node:
    """The node that is registered in the data directory. Raises CommandError when there is none."""
    known = identity.load(options.data_dir) if options.data_dir.is_dir() else None
    if known is None:
        raise CommandError(
            f"no registered identity in {options.data_dir}; run `agent run --url URL` with TECHULUS_TOKEN first"
        )
    return _node(options, known)


async def registered_now(options: Options, token: str | None) -> Node:
    """The node of the data directory, registered first if need be. The directory's lock is held by the caller."""
    files.make_private_dir(options.data_dir)
    known = identity.load(options.data_dir)
    if known is not None:
        return _node(options, known)
    if options.url is None:
        raise CommandError("this server is not registered: give the control plane's address with --url")
    url = check_url(options.url, allow_http=options.allow_http)
    plane = ControlPlane(url, ca_file=options.ca_file)
    public_ip = None if options.public_ip is None else str(options.public_ip)
    try:
        known = await identity.register(
            options.data_dir, url, token, options.proxy, plane.register, public_ip=public_ip
        )
    finally:
        await plane.aclose()
    logger().info("registered", server_id=known.server_id, subnet=known.subnet_id, proxy=known.is_proxy)
    return _node(options, known)


def _node(options: Options, known: Identity) -> Node:
    if known.encryption_key is not None:
        log.hide(known.encryption_key.raw.hex())
    url = check_url(options.url or known.url, allow_http=options.allow_http)
    if url != known.url:
        logger().warning("control plane differs from the registered one", registered=known.url, used=url)
    if options.proxy != known.is_proxy:
        kind = "proxy" if known.is_proxy else "worker"
        logger().warning(
            "--proxy differs from the registration", then=f"this server stays a {kind}; register anew to change that"
        )
    plane = ControlPlane(url, Signer(known.server_id, known.keys.signing), ca_file=options.ca_file)
    return build(options, known, plane)
