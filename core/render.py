"""The dry run's answer: one value, seen as JSON for scripts and as lines for a person.

The plan's values do not know how they look; this room does, and nothing else.
"""

from collections.abc import Mapping
from typing import TypeAlias, assert_never

from core.action import (
    Action,
    Deploy,
    Redeploy,
    Start,
    StopOrphan,
    Update,
    UpdateCaddy,
    UpdateDns,
    UpdateWireGuard,
    difference_of,
    explain,
    kind,
)
from core.printable import escape
from core.rejection import Rejection
from core.state import Component, ExpectedState, Hashes, NodeType

Json: TypeAlias = str | int | bool | list["Json"] | dict[str, "Json"] | None


def answer(
    node_type: NodeType,
    expected: ExpectedState,
    following: Action | None,
    whole: tuple[Action, ...] | None,
    digests: Mapping[Component, Hashes],
) -> dict[str, Json]:
    """The object that `agent plan --output json` prints; `plan` is there only when the whole plan was asked for."""
    document: dict[str, Json] = {
        "nodeType": node_type.value,
        "converged": following is None,
        "next": None if following is None else action_json(following),
    }
    if whole is not None:
        document["plan"] = [action_json(action) for action in whole]
    document["rejected"] = [rejection_json(one) for one in expected.rejected]
    document["hashes"] = {name: {"expected": found.expected, "actual": found.actual} for name, found in digests.items()}
    return document


def action_json(action: Action) -> dict[str, Json]:
    """One action with its kind, its facts and its reason in words."""
    return {"kind": kind(action), **_facts(action), "reason": reason_line(action)}


def rejection_json(one: Rejection) -> dict[str, Json]:
    """One rejected entry."""
    return {"path": one.path, "key": one.key, "reason": one.reason}


def reason_line(action: Action) -> str:
    """The action's reason on one line: what a component or a label said is in it, so control characters are spelled out."""
    return escape(explain(action.reason))


def line(action: Action) -> tuple[str, str, str]:
    """Kind, subject and reason of an action, as a row of the table that a person reads. Control characters are spelled out."""
    facts = _facts(action)
    named = facts.get("name")
    if isinstance(named, str):
        return kind(action), escape(named), reason_line(action)
    found = difference_of(action) if isinstance(action, UpdateDns | UpdateCaddy | UpdateWireGuard) else None
    keys = (
        []
        if found is None
        else [f"+{k}" for k in found.added] + [f"-{k}" for k in found.removed] + [f"~{k}" for k in found.changed]
    )
    return kind(action), escape(" ".join(keys)), reason_line(action)


def _facts(action: Action) -> dict[str, Json]:
    match action:
        case StopOrphan() | Start():
            return {"deploymentId": action.deployment_id, "containerId": action.container_id, "name": action.name}
        case Deploy(container=made):
            return {
                "deploymentId": made.deployment_id,
                "containerId": None,
                "name": made.name,
                "image": str(made.image),
            }
        case Redeploy(container=made, container_id=old):
            return {"deploymentId": made.deployment_id, "containerId": old, "name": made.name, "image": str(made.image)}
        case UpdateDns() | UpdateCaddy() | UpdateWireGuard():
            return _keys(action)
        case _:
            assert_never(action)


def _keys(action: Update) -> dict[str, Json]:
    found = difference_of(action)
    return {"added": list(found.added), "removed": list(found.removed), "changed": list(found.changed)}
