"""What is running, drawn with rich below the lines of what has ended.

Importing this module imports rich, which takes a moment: only `live` does it, in a thread that nobody waits for.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, cast

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderHook
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.spinner import Spinner
from rich.text import Text

from axon_tasks.report.console import write

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from typing import TextIO

    from rich.console import ConsoleRenderable, OverflowMethod, RenderResult


class Picture(RenderHook):
    """Lines that replace each other at the end of a terminal. Not thread-safe: one caller at a time.

    Args:
        stream: The terminal.
        unicode: Whether it can show more than ASCII.
        colour: Whether it may be coloured.
        clock: Gives seconds, for the spinner.
    """

    def __init__(self, stream: TextIO, *, unicode: bool, colour: bool, clock: Callable[[], float]) -> None:
        self._lines: Sequence[str] = ()
        self._widths: list[int] = []
        self._columns = 1
        self._spinner = Spinner("dots" if unicode else "line", style="dim")
        self._overflow: OverflowMethod = "ellipsis" if unicode else "crop"
        # What this stream can do has been found out already: rich's own guesses would follow the environment.
        self._console = _Console(
            file=cast("TextIO", _Output(stream)),
            force_terminal=True,
            force_interactive=True,
            force_jupyter=False,
            color_system="standard" if colour else None,
            get_time=clock,
        )
        self._live = Live(
            self,
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._console.push_render_hook(self)
        self._live.start()

    def draw(self, lines: Sequence[str], size: os.terminal_size, above: str | None = None) -> None:
        """Replace what is shown, in one write, so that no half picture is seen.

        Args:
            lines: What is running now.
            size: Of the terminal, now.
            above: A finished line, which stays; its colours are kept, and nothing in it is taken for markup.
        """
        self._lines, self._columns = lines, size.columns
        # The last column stays empty: some terminals go on in the next row as soon as it is taken.
        self._console.size = (max(1, size.columns - 1), size.lines)
        if above is None:
            self._live.refresh()
        else:
            self._console.print(
                Text.from_ansi(above), soft_wrap=True, markup=False, highlight=False, emoji=False
            )

    def close(self) -> None:
        """Take it away; the cursor ends below the finished lines."""
        self._lines = ()
        self._live.stop()

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Erase the rows that rich does not know of: a terminal that became narrower has broken the lines."""
        rows = sum(max(0, width - 1) // self._columns for width in self._widths)
        up = [(ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)] * rows
        return [Control(*up), *renderables]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One row for each line, and an empty one for the cursor, so that what others write begins on its own row."""
        options = options.update(no_wrap=True, overflow=self._overflow)
        self._widths = []
        for line in self._lines:
            self._spinner.update(text=Text(line, style="dim"))
            self._widths.append(min(2 + cell_len(line), options.max_width))
            yield from console.render(self._spinner, options)
        if self._lines:
            yield Text()


class _Console(Console):
    """Never hides the cursor, so that nothing has to be restored whatever ends the program."""

    def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002  (rich's signature)
        return False


class _Output(io.TextIOBase):
    """What rich writes to: rich would end the program when a terminal has gone, and fail at what it cannot show."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        write(self._stream, text)
        return len(text)
