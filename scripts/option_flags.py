"""Flags that are named as the fields of a dataclass."""

import dataclasses
from typing import Any

from absl import flags


def from_flags(options: type, **given: Any) -> Any:
    """`options(**given)`, its other fields from the flags of the same names; what has no value keeps its default."""
    names = [field.name for field in dataclasses.fields(options) if field.name not in given]
    values = {name: flags.FLAGS[name].value for name in names}
    return options(**given, **{name: value for name, value in values.items() if value is not None})
