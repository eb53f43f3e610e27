"""A tab of Chromium that a test leads step by step."""

from __future__ import annotations

from typing import Any

from tests.js.process import JsPeer

WITHIN_S = 200.0


class Tab(JsPeer):
    """`await tab.do("click", role="button", called="Refuse")`; the steps are those of browsing.mjs."""

    def __init__(self, name: str = "tab") -> None:
        super().__init__(name)
        self._steps = 0

    async def open(
        self,
        *,
        before: str | None = None,
        between: bool = False,
        instead: list[tuple[str, str | int]] | None = None,
        flags: tuple[str, ...] = (),
    ) -> None:
        """Start the browser; `before` is a script that runs in every page before its own.

        With `between` the test stands between the page and its websockets. `instead` lists ends of addresses and
        what is answered there once: "break" or an HTTP status. `flags` are Chromium's.
        """
        options = {"before": before, "between": between, "instead": instead or [], "flags": flags}
        await self.start(options, script="browsing.mjs")

    async def do(self, step: str, **fields: Any) -> Any:
        """Do one step and give what it found."""
        self._steps += 1
        await self.ask(id=self._steps, do=step, **fields)
        answer = await self.until("answered", within_s=WITHIN_S, id=self._steps)
        assert answer["failed"] is None, (step, fields, answer["failed"], self.of("console"), self.of("pageerror"))
        return answer["value"]
