"""Frozen dataclasses as configuration: strict YAML in, flags over it, a hash of it out."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from runtime.errors import ConfigError
from runtime.program import shipped

T = TypeVar("T")

_MOST_DEPTH, _MOST_VALUES = 50, 100_000  # of a configuration


def _as_float(value: Any) -> Any:
    """Whole numbers and YAML 1.1's `1e-4` (a string to PyYAML) are floats too."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def load_yaml(cls: type[T], path: Path | str, overrides: Mapping[str, Any] | None = None) -> T:
    """An instance of the dataclass `cls` from a YAML mapping; absent keys keep their defaults.

    `overrides` (nested mappings) are laid over the file. Raises `ConfigError` naming file and key for a missing file,
    an unknown key (with the nearest known one) or a value of the wrong type.
    """
    return from_mapping(cls, merge(read_yaml(path), overrides or {}), source=str(path))


def read_yaml(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML file. Raises `ConfigError` where there is none.

    `config/...` may be one that comes with the installed program.
    """
    import yaml

    path = Path(path)
    try:
        text = shipped(path).read_text(encoding="utf-8")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            _check_extent(node, path)
        twice = _key_given_twice(node)
        raw = None if node is None else loader.construct_document(node)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such configuration file") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply, expected at most {_MOST_DEPTH} levels") from error
    except (yaml.YAMLError, ValueError, AttributeError, TypeError) as error:  # its constructors stumble over odd values
        raise ConfigError(f"{path}: not a YAML file ({error})") from error
    if twice:
        raise ConfigError(f"{path}: the key {twice!r} is given twice, expected once")
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, found {type(raw).__name__}")
    return dict(raw)


def _check_extent(node: Any, path: Path) -> None:
    """Raises `ConfigError` for a document that refers to itself, or is deeper or longer than any configuration.

    What a reference stands for counts each time: a few lines of references to references could mean gigabytes.
    """
    above: set[int] = set()
    sizes: dict[int, int] = {}

    def size_of(node: Any) -> int:
        if id(node) in above:
            raise ConfigError(f"{path}: line {node.start_mark.line + 1} is a part of itself, expected plain values")
        if len(above) > _MOST_DEPTH:
            raise ConfigError(f"{path}: line {node.start_mark.line + 1} is more than {_MOST_DEPTH} levels deep")
        if id(node) not in sizes:
            above.add(id(node))
            pairs = node.value if node.id == "mapping" else [(part,) for part in node.value if node.id == "sequence"]
            sizes[id(node)] = 1 + sum(size_of(part) for pair in pairs for part in pair)
            above.remove(id(node))
        if sizes[id(node)] > _MOST_VALUES:
            raise ConfigError(f"{path}: stands for more than {_MOST_VALUES} values, expected those of a configuration")
        return sizes[id(node)]

    size_of(node)


def _key_given_twice(node: Any) -> str | None:
    """A key that a mapping of a YAML document has twice, of which YAML itself takes the last."""
    parts = []
    if node is not None and node.id == "mapping":
        keys: list[str] = [key.value for key, _ in node.value if key.id == "scalar" and key.value != "<<"]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            return twice[0]
        parts = [value for _, value in node.value]
    elif node is not None and node.id == "sequence":
        parts = node.value
    return next((found for part in parts if (found := _key_given_twice(part))), None)


def from_mapping(cls: type[T], values: Mapping[str, Any], *, source: str) -> T:
    """An instance of the dataclass `cls` from nested mappings; `source` names where they come from in errors."""
    import dacite  # here, so that learners and benchmarks run where torch and numpy are all there is

    _check_keys(cls, values, source, prefix="")
    rules = dacite.Config(strict=True, cast=[Path, tuple], type_hooks={float: _as_float})
    try:
        return _build(cls, values, rules)
    except dacite.WrongTypeError as error:
        expected = _named(error.field_type)
        raise ConfigError(f"{source}: {error.field_path} {error.value!r}: expected {expected}") from error
    except (ConfigError, dacite.DaciteError, TypeError, ValueError) as error:
        raise ConfigError(f"{source}: {error}") from error


def _named(kind: Any) -> str:
    """What errors call a field's type."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        *others, last = map(str, arguments)
        return f"{', '.join(others)} or {last}" if others else last
    return str(kind) if arguments else str(kind.__name__)


def _build(cls: type[T], values: Mapping[str, Any], rules: Any) -> T:
    """Nested dataclasses first, each laid over its default, so that a part of one may be given and errors name it."""
    import dacite

    built = dict(values)
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # T is always a dataclass
        value = values.get(field.name)
        kind = _nested(hints[field.name])
        if kind is None or not isinstance(value, Mapping):
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        try:
            under = vars(default) if isinstance(default, kind) else {}
            built[field.name] = _build(kind, {**under, **value}, rules)
        except ConfigError as error:
            raise ConfigError(f"{field.name}.{error}") from error
        except dacite.DaciteFieldError as error:
            error.update_path(field.name)
            raise
    return dacite.from_dict(cls, built, rules)


def _check_keys(cls: type, values: Mapping[str, Any], source: str, prefix: str) -> None:
    known = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(known)}"
            raise ConfigError(f"{source}: unknown key {prefix + str(key)!r}{hint}")
        alternatives = _alternatives(hints[key])
        if value is None and type(None) in alternatives:
            continue
        if isinstance(value, bool) and bool not in alternatives and {int, float} & set(alternatives):
            raise ConfigError(f"{source}: {prefix + key!r} is {value}, expected a number")
        nested = _nested(hints[key])
        if nested is not None:
            if not isinstance(value, Mapping):
                raise ConfigError(f"{source}: {prefix + key!r} is {value!r}, expected a mapping")
            _check_keys(nested, value, source, prefix=f"{prefix}{key}.")
        elif any(typing.get_origin(kind) is tuple for kind in alternatives) and not isinstance(value, (list, tuple)):
            raise ConfigError(f"{source}: {prefix + key!r} is {value!r}, expected a list")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _nested(hint: Any) -> type | None:
    """The dataclass that a hint allows, if it does."""
    return next((k for k in _alternatives(hint) if isinstance(k, type) and dataclasses.is_dataclass(k)), None)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """What was given: the values without None, in nested mappings too."""
    return {
        key: given(value) if isinstance(value, Mapping) else value for key, value in values.items() if value is not None
    }


def to_dict(value: Any) -> Any:
    """A dataclass (or a nest of them) as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_dict(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_dict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_dict(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def to_yaml(value: Any) -> str:
    """A dataclass as a YAML file that `load_yaml` makes the same of."""
    import yaml

    text: str = yaml.safe_dump(to_dict(value), sort_keys=False, allow_unicode=True)
    return text


def dict_without(value: Any, names: Collection[str]) -> dict[str, Any]:
    """`to_dict` of a dataclass or mapping, less the fields `names`: those of a configuration that change no result."""
    return {name: item for name, item in to_dict(value).items() if name not in names}


def config_hash(value: Any) -> str:
    """Twelve hexadecimal digits that change whenever a value in `value` does."""
    canonical = json.dumps(to_dict(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
