"""The fields of a config in words, for --help and --print_config."""

from __future__ import annotations

from collections.abc import Iterator

from fer_jax.config.fields import Config, fields_of, leaves
from fer_jax.config.table import GROUPS, Field


def values(config: Config) -> Iterator[str]:
    """Yields 'config.field = value' for each field."""
    for path, value in leaves(config, ()):
        yield f"config.{path} = {value!r}"


def helps(config: Config) -> Iterator[str]:
    """Yields a line for each field of a config: its value, what it does, what it may be and its default."""
    fields, group = fields_of(config.method), None
    given = dict(leaves(config, fields))
    for path, field in fields.items():
        if group != (group := path.rpartition(".")[0]):
            yield f"\n{group or 'config'}: {GROUPS[group]}"
        value = given.get(path, field.default)
        value = value.to_dict() if isinstance(field.default, dict) else value
        default = "" if value in (field.default, config.get(path)) else f"default {field.default!r}"
        facts = "; ".join(filter(None, (_allowed(field), default)))
        yield f"  {f'config.{path} = {value!r}':<48} {field.help}{f' [{facts}]' if facts else ''}"


def _allowed(field: Field) -> str:
    return " | ".join(choice or "''" for choice in field.choices) or field.limits()
