"""
Find words that this project does not use, in its code and its documentation: ``python .ci/words.py``.

Each has a plain word or the field's term in its place.  A line that needs one of them is named under ``EXCEPTIONS``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

#: Word, as a regular expression, and what to write instead.
WORDS = {
    r"whoever": "the caller, the sender, a process that",
    r"somebody": "a caller, another process",
    r"aftermath": "commit result",
    r"journeys?": "in-place continuation",
    r"\w*bury|buried": "reap",
    r"leash(?:ed)?": "supervise",
    r"shims?": "asyncio patches",
    r"lent": "checked out",
    r"hand(?:s|ed|ing)? (?:it |them |one )?back": "release, return",
    r"patience": "a timeout or a delay, with its unit",
    r"senseless": "invalid",
    r"(?:its|a|the) door": "the hook, the webhook",
    r"alarm clocks?": "ETA message",
    r"waits? for company": "waits for other outcomes",
    r"hither|thereof|whereof|lest": "plain English",
}

#: File, and words that it may use, with the reason.
EXCEPTIONS: dict[str, tuple[str, ...]] = {
    # A migration's docstring is its recorded message: released revisions are not edited.
    "durable/migrations/versions/0009_interruptions.py": ("handed back",),
}

_LOOKED_THROUGH = ("*.py", "*.md")
_WORD = re.compile("|".join(rf"(?P<w{number}>\b(?:{word})\b)" for number, word in enumerate(WORDS)), re.IGNORECASE)


def main() -> int:
    """Print each place; the exit code."""
    listed = subprocess.run(["git", "ls-files", *_LOOKED_THROUGH], capture_output=True, text=True, check=True)
    found = 0
    for name in listed.stdout.split():
        if name == ".ci/words.py":
            continue
        for number, line in enumerate(Path(name).read_text().splitlines(), 1):
            for match in _WORD.finditer(line):
                if match[0].lower() in EXCEPTIONS.get(name, ()):
                    continue
                found += 1
                instead = list(WORDS.values())[int((match.lastgroup or "w0")[1:])]
                print(f"{name}:{number}: {match[0]!r}: write instead: {instead}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
