"""Text to plain objects, strictly: YAML without doubled keys, JSON likewise, request bodies; and faults that name a path."""

import json
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn

import yaml
from pydantic import ValidationError

Format = Literal["yaml", "json"]

_DEEPEST: Final = 32  # levels of a request body; a report has four


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a document is not taken: the path inside it (empty for the document itself) and what is wrong there."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


def loaded_document(text: str, kind: Format) -> object | Fault:
    """What the text says, or the fault with its line. An empty document is None."""
    try:
        if kind == "json":
            return json.loads(text, object_pairs_hook=_pairs) if text.strip() else None
        loaded: object = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with a stricter mapping
    except (yaml.YAMLError, ValueError) as error:
        return Fault("", _one_line(error))
    except RecursionError:
        return Fault("", "is nested too deeply")
    return loaded


def loaded_object(raw: bytes) -> Mapping[str, Any] | None:
    """A request body that is a JSON object, or None. A lone surrogate becomes U+FFFD, which is what the original's database keeps.

    None also for what no body of an agent is and no later writer of JSON could write: nested deeply, numbers that are none.
    """
    try:
        loaded = json.loads(raw, parse_constant=_refused_constant)
        return _storable(loaded, _DEEPEST) if isinstance(loaded, dict) else None
    except (ValueError, RecursionError):
        return None


def validation_fault(error: ValidationError) -> Fault:
    """The first fault of a model, and how many more there are."""
    faults = error.errors(include_url=False, include_input=False)
    first, more = faults[0], len(faults) - 1
    reason = first["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    return Fault(".".join(map(str, first["loc"])), f"{reason} (and {more} more)" if more else reason)


class _Loader(yaml.SafeLoader):
    """YAML in which a doubled key is an error: the last one would win without a word."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark)
        seen.add(str(key.value))
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found


def _one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        where = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        return f"{error.problem or error.context}{where}"
    return " ".join(str(error).split())


def _refused_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _storable(value: Any, levels: int) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is too large")
    if isinstance(value, list | dict) and levels == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, list):
        return [_storable(entry, levels - 1) for entry in value]
    if isinstance(value, dict):
        return {_storable(key, 0): _storable(entry, levels - 1) for key, entry in value.items()}
    return value
