"""What a caller may have meant by a verb that does not exist. Boot module.

Loaded with the first such verb.
"""

from __future__ import annotations

from difflib import get_close_matches

from initspawn.errors import RequestError

_LONGEST = 64  # characters that are compared with others: it takes time that nobody else gets


def unknown_verb(verb: str, known: list[str]) -> RequestError:
    """That there is no such verb, and which is most like it; for callers who may see which there are."""
    close = get_close_matches(verb, known, 1) if len(verb) <= _LONGEST else []
    return RequestError("unknown-verb", f"did you mean `{close[0]}`?" if close else "")
