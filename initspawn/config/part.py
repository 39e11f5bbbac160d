"""What all objects of the configuration file have in common.

Four class variables go with a type: `aliases` are other spellings of its keys, `noun` is what messages call
it, `code` what they begin with, and `form` shows how one is written. A field of type `list[X]` takes one X
as well as a list of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from msgspec import Meta, Struct

Words = Mapping[str, str]
Natural = Annotated[int, Meta(ge=0)]


class Part(Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of all objects of the file."""

    aliases: ClassVar[Words] = {}
    noun: ClassVar[str] = "object"
    code: ClassVar[str] = ""
    form: ClassVar[str] = ""
