"""The lines of --help that list the fields of a config."""

from __future__ import annotations

from collections.abc import Iterator

from fer_jax.config.fields import Config, fields_of, leaves
from fer_jax.config.table import GROUPS
from fer_jax.data.augment.operations import help_lines


def helps(config: Config) -> Iterator[str]:
    """Yields one line per field of a config: value, help, allowed values, and the default if the value differs."""
    group, values = None, dict(leaves(config, fields_of(config.method)))
    for path, field in fields_of(config.method).items():
        if group != (group := path.rpartition(".")[0]):
            yield f"\n{group or 'config'}: {GROUPS.get(group) or 'options of a strategy'}"
        value = values.get(path, field.default)
        value = value.to_dict() if isinstance(field.default, dict) else value
        facts = " | ".join(choice or "''" for choice in field.choices) or field.range
        if value != field.default and "." in path:
            facts = f"{facts}; default {field.default!r}".lstrip("; ")
        yield f"  {f'config.{path} = {value!r}':<48} {field.help}{f' [{facts}]' if facts else ''}"
    yield "\nthe operations of config.augmentation.train, optional parameters in brackets"
    yield from (f"  {line}" for line in help_lines())
