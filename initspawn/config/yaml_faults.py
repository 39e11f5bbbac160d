"""What PyYAML's errors mean to whoever wrote the file: words, a place and what to write instead."""

from __future__ import annotations

import re

import yaml

from initspawn.config.syntax import SyntaxFault

# A key glued to its value, in block style: `uid:mine`, `- uid:mine`.
_GLUED = re.compile(r"(?P<before>\s*(?:- +)*)(?P<key>[\w.-]+):(?P<value>[^\s/:].*)")
_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")  # as PyYAML counts lines
_QUOTES = "write the text in quotes"
_COLUMNS = "keys of one object, and items of one list, begin in the same column"

# The parser's words, ours, and the hint; `{0}` is what the first group found. The first that fits counts.
_MEANINGS = tuple(
    (re.compile(pattern), message, hint)
    for pattern, message, hint in (
        (r"unexpected end of stream", "this quote is never closed", ""),
        (r"expected ',' or '(.)', but got '<stream end>'", "no `{0}` closes what is opened here", ""),
        (
            r"expected ',' or '(.)', but got '(?:[?:]|<scalar>)'",
            "`,` or `{0}` is expected here",
            f"within brackets, {_QUOTES} if it holds one of , : ? [ ] {{ }}",
        ),
        (r"expected ',' or '(.)'", "`,` or `{0}` is expected here", ""),
        (r"expected the node content, but found '([^<].*)'", "`{0}` cannot begin plain text", _QUOTES),
        (r"expected <block end>, but found '<scalar>'", "text goes on behind its closing quote",
         "within single quotes a quote is written twice"),
        (r"expected <block end>, but found '([\]},])'", "`{0}` closes nothing", _QUOTES),
        (r"expected <block end>", "this line begins where nothing else does", _COLUMNS),
        (r"expected '<document start>'", "this line begins where nothing else does", _COLUMNS),
        (r"sequence entries are not allowed", "a list cannot begin here", "begin it on a line of its own"),
        (r"mapping keys are not allowed", "`?` and a space cannot begin plain text", _QUOTES),
        (r"unknown escape character '(.*)'", "unknown escape `\\{0}`",
         "a plain backslash is written \\\\, or the text in single quotes"),
        (r"chomping or indentation|a comment or a line break", "`|` or `>` begins a text of lines", _QUOTES),
    )
)  # fmt: skip
_CHARACTER = re.compile(r"found character '(.+)' that cannot start any token")
_SCANNING = {"an alias": "*", "an anchor": "&", "a directive": "%"}


def meaning(error: yaml.MarkedYAMLError, text: str) -> SyntaxFault:
    """The error as a fault, at the place where something is to be changed."""
    problem = error.problem or error.context or "is no YAML"
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    if "mapping values are not allowed" in problem or "could not find expected ':'" in problem:
        return _misplaced_value(problem, text, line, column)
    message, hint = _words(problem, error.context or "")
    if mark and message.startswith("text goes on") and not text[: mark.index].rstrip().endswith(("'", '"')):
        message, hint = "this line begins where nothing else does", _COLUMNS
    if message.startswith(("this quote", "no `")) and error.context_mark:  # where it was opened says more
        line, column = error.context_mark.line + 1, error.context_mark.column + 1
    return SyntaxFault(message, line=line, column=column, hint=hint)


def _words(problem: str, context: str) -> tuple[str, str]:
    """Message and hint for what the parser says."""
    if "'\\t'" in problem:
        return "a tab in the indentation", "YAML is indented with spaces only"
    character = _CHARACTER.search(problem)
    if character:
        mark = "a backtick" if character[1] == "`" else f"`{character[1]}`"
        return f"{mark} cannot begin plain text", _QUOTES
    for what, mark in _SCANNING.items():
        if context.endswith(what):
            return f"`{mark}` has a meaning of its own here", _QUOTES
    for pattern, message, hint in _MEANINGS:
        found = pattern.search(problem)
        if found:
            return message.format(*found.groups()), hint
    return problem, ""


def _misplaced_value(problem: str, text: str, line: int, column: int) -> SyntaxFault:
    """A `key: value` where none can be, mostly because of what is written above it."""
    lines = _BREAK.split(text)
    for number in range(line, max(0, line - 3), -1):
        glued = _GLUED.fullmatch(lines[number - 1].rstrip())
        if glued:
            message = f"no space behind the colon of `{glued['key'][:60]}`"
            hint = f"write `{glued['key'][:60]}: {glued['value'][:60]}`"
            return SyntaxFault(message, line=number, column=len(glued["before"]) + 1, hint=hint)
    if "could not find" in problem:
        before = max(1, line - 1)
        return SyntaxFault("a key without a colon, or text that goes on here", line=before, hint=_QUOTES)
    if ": " in lines[line - 1][: column - 1]:
        hint = "write text with a colon in quotes, or the object on lines of its own"
        return SyntaxFault("a second colon in this line", line=line, column=column, hint=hint)
    hint = "or the line above it has a value already"
    return SyntaxFault("this line is indented too far", line=line, column=column, hint=hint)
