"""Make text that came from a server safe to print.

Container logs and command output are written by whoever can reach the application.
Printed as they are, they can clear the screen, set the window title, fill the clipboard
(OSC 52), hide text behind a carriage return, or reverse the reading order of a line.
"""

from __future__ import annotations

import re

#: ECMA-48 control sequences, and the string commands (OSC, DCS, SOS, PM, APC) up to their end.
_SEQUENCES = re.compile(
    r"""
    (?:\x1b\[|\x9b) [0-?]* [ -/]* [@-~]
    | (?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f]) [^\x07\x1b\x9c\n]* (?:\x07|\x1b\\|\x9c)?
    | \x1b [ -/]* [0-~]
    """,
    re.VERBOSE,
)
#: Everything that Unicode calls a control, except tab and newline; the bidirectional controls of UAX #9; what has no
#: width and so makes two names look the same; and halves of characters, which no encoding can print.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def sanitize(text: str) -> str:
    r"""Take out what a terminal would obey, and keep what a person can read.

    Args:
        text: Output of a server, decoded.

    Returns:
        The text without escape sequences; `\r\n` is a newline; any other control
        character is shown as `\xNN` or `\uNNNN`, so that nothing disappears silently.
    """
    plain = _SEQUENCES.sub("", text.replace("\r\n", "\n"))
    return _CONTROLS.sub(_spelled_out, plain)


def _spelled_out(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code > 0xFFFF:  # noqa: PLR2004 - where \uNNNN ends
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004 - where \xNN ends
