"""Which changes are put aside, and until when.

Every change has a key that names its subject *and its target*: trying the same again counts up, wanting something else starts afresh. After
each attempt, failed or not, the same key has to wait: 10 s, then twice as long each time, 5 min at most; ten minutes without an attempt
clear the record. That one rule gives backoff for what fails, growing pauses for what succeeds and then falls over again (a container that
crashes), and rules out applying the same action twice in a row without progress. One key's wait never touches another's. An update of
names, routes or peers that a look then found in force was progress: when somebody undoes it, it is made again five seconds later at the
soonest. One that succeeded and was not found in force waits half a minute at most, and is forgotten then.

`Attempt.not_before` is the whole truth about a wait: the machine wakes at that time, and `agent status` tells it.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, assert_never

from core.action import (
    KINDS,
    Action,
    CouldNotBeRead,
    Deploy,
    Redeploy,
    Start,
    StopOrphan,
    UpdateCaddy,
    UpdateDns,
    UpdateWireGuard,
    kind,
)
from core.containers import DeploymentId, ExpectedContainer
from core.digest import canonical, digest
from core.state import digest_of

FIRST_DELAY_S: Final = 10.0
LONGEST_DELAY_S: Final = 300.0
FORGET_AFTER_S: Final = 600.0
UNDONE_AFTER_S: Final = 5.0  # between two of the same update, when what the first did was seen and then undone
FORGET_UPDATE_S: Final = 30.0  # one of names, routes or peers that succeeded: traffic waits for the next
_JITTER: Final = 0.1  # the share of a delay that spreads agents apart; taken off, so that no delay exceeds its limit
_RUNS: Final = frozenset({KINDS[Start], KINDS[Deploy], KINDS[Redeploy]})  # the kinds whose subject is a deployment
_UPDATES: Final = frozenset({KINDS[UpdateDns], KINDS[UpdateCaddy], KINDS[UpdateWireGuard]})

FETCH_IMAGE: Final = "fetch_image"  # no action of its own: what several actions of one deployment wait for

RetryKey: TypeAlias = tuple[str, ...]
"""Kind, subject (deployment or container id, or the component), and the target's digest."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is remembered of one key: attempts so far, the last one's time, when the next may be made, and why the last failed."""

    count: int
    last_at: float
    not_before: float
    failure: str | None


Retries: TypeAlias = Mapping[RetryKey, Attempt]


def key(action: Action) -> RetryKey:
    """The retry key of an action."""
    match action:
        case StopOrphan():
            # A stop waits for its successors' images: other successors must not inherit the pause of a bad image.
            return (kind(action), action.container_id, digest(map(_spec_digest, action.successors)))
        case Start():
            return (kind(action), action.deployment_id, action.container_id)
        case Deploy(container=made) | Redeploy(container=made):
            return (kind(action), made.deployment_id, _spec_digest(made))
        case UpdateDns():
            return (kind(action), "dns", digest_of("dns", action.records), _unread(action))
        case UpdateCaddy():
            return (kind(action), "caddy", digest_of("caddy", action.routes), _unread(action))
        case UpdateWireGuard():
            target = digest([digest_of("wireguard", action.upsert), *action.remove])
            return (kind(action), "wireguard", target, _unread(action))
        case _:
            assert_never(action)


def _unread(action: UpdateDns | UpdateCaddy | UpdateWireGuard) -> str:
    """Bringing a component up is another change than changing one that works, and waits by itself."""
    return "unread" if isinstance(action.reason, CouldNotBeRead) else "read"


def after_attempt(retries: Retries, key: RetryKey, now: float, failure: str | None) -> Retries:
    """The memory after an attempt at `now` that succeeded (`failure` is None) or failed."""
    before = retries.get(key)
    count = before.count + 1 if before is not None and not _is_old(key, before, now) else 1
    wait_s = min(delay(key, count), _remembered_s(key, failure))
    return {**retries, key: Attempt(count, now, now + wait_s, failure)}


def delay(key: RetryKey, count: int) -> float:
    """Seconds to wait after the attempt number `count`. The jitter depends on key and count only, so that it can be repeated."""
    full = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(count - 1, 16))
    spread = int.from_bytes(hashlib.sha256(canonical((*key, count)).encode()).digest()[:4], "big") / 2**32
    return full * (1 - _JITTER * spread)


def is_waiting(retries: Retries, key: RetryKey, now: float) -> bool:
    """Whether a change is put aside at `now`."""
    found = retries.get(key)
    return found is not None and now < found.not_before


def forget_old(retries: Retries, now: float) -> Retries:
    """The memory without what has not been tried for its time; bounds its size."""
    if not any(_is_old(key, one, now) for key, one in retries.items()):
        return retries
    return {key: one for key, one in retries.items() if not _is_old(key, one, now)}


def seen_in_force(retries: Retries, outstanding: Iterable[Action]) -> Retries:
    """The memory after a look that found `outstanding`: updates that succeeded and are not asked for again have had their effect."""
    made = {key: one for key, one in retries.items() if key[0] in _UPDATES and one.failure is None and one.count}
    wanted = {kind(one) for one in outstanding} if made else frozenset()
    seen = {
        key: replace(one, count=0, not_before=min(one.not_before, one.last_at + UNDONE_AFTER_S))
        for key, one in made.items()
        if key[0] not in wanted
    }
    return {**retries, **seen} if seen else retries


def _is_old(key: RetryKey, one: Attempt, now: float) -> bool:
    return now >= one.last_at + _remembered_s(key, one.failure)


def _remembered_s(key: RetryKey, failure: str | None) -> float:
    return FORGET_UPDATE_S if key[0] in _UPDATES and failure is None else FORGET_AFTER_S


def attempts(retries: Retries) -> Mapping[DeploymentId, int]:
    """How often getting a deployment to run has been tried without lasting success, for those of which it has."""
    return _counted(retries, _RUNS | {FETCH_IMAGE})


def starts(retries: Retries) -> Mapping[DeploymentId, int]:
    """How often a container of a deployment has been started, or nearly, without lasting success."""
    return _counted(retries, _RUNS)


def _counted(retries: Retries, kinds: frozenset[str]) -> Mapping[DeploymentId, int]:
    found: dict[DeploymentId, int] = {}
    for key, one in retries.items():
        if key[0] in kinds:
            deployment = DeploymentId(key[1])
            found[deployment] = max(one.count, found.get(deployment, 0))
    return found


def _spec_digest(made: ExpectedContainer) -> str:
    check = made.health_check
    return digest(
        [
            (made.name, str(made.image), made.address, tuple(made.env)),
            tuple((port.container_port, port.host_port) for port in made.ports),
            tuple((volume.name, volume.container_path) for volume in made.volumes),
            None
            if check is None
            else (check.command, check.interval_s, check.timeout_s, check.retries, check.start_period_s),
        ]
    )
