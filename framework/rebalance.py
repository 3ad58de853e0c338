"""`Rebalancer` (`--rebalance`): a core that stays busier than the others hands new connections to the idlest of them.

Each core decides for itself, ten times a second, from the counters that all share. Connections stay where they are: what
changes is where the next ones go, a part of the flows' hashes at a time. Where the NIC has a redirection table, groups of flows
follow, one after the other, so that the busy core does not even receive them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mpserve.dataplane.member_rows import SERVING
from mpserve.dataplane.switchboard import SHARES, Switchboard

LOOK_SECONDS = 0.1
SMOOTHING = 0.3  # of a new look, in the load that counts
MARGIN = 0.15  # of a core's time: what one may be busier than the idlest
PATIENCE = 3  # looks in a row before anything is handed on
STEP = SHARES // 16  # of the new flows, a look
GROUP_PATIENCE = 10  # looks at the full share before a group of flows is moved


class Rebalancer:
    """Of one member. `busy(member)` is how long (us) that core has worked so far, `waiting()` how full this one's fullest
    accept queue is, 0 to 1; `redirect`, if the NIC has a table, gives entries of it another queue."""

    def __init__(
        self,
        board: Switchboard,
        member: int,
        *,
        busy: Callable[[int], int],
        waiting: Callable[[], float],
        redirect: Callable[[Mapping[int, int]], None] | None = None,
    ) -> None:
        self._board, self._member, self._row = board, member, board.rows[member]
        self._busy, self._waiting, self._redirect = busy, waiting, redirect
        self._busy_before = [busy(other) for other in range(board.members)]
        self._loads = [0.0] * board.members
        self._looked_at, self._unequal, self._full = -1.0, 0, 0
        self._hand_on(0, 0)  # what a predecessor in this place did, no longer holds
        self.groups_moved = 0

    def look(self, now: float) -> None:
        """To be called each turn, with the time in seconds."""
        passed = now - self._looked_at
        if passed < LOOK_SECONDS:
            return
        first, self._looked_at = self._looked_at < 0, now
        if not first:
            self._measure(passed)
            self._decide()

    def _measure(self, seconds: float) -> None:
        """Every core's load: the share of its time that it works, and of its accept queue that is taken."""
        self._row.backlog = round(1000 * self._waiting())
        for member, before in enumerate(self._busy_before):
            self._busy_before[member] = total = self._busy(member)
            load = (total - before) / 1e6 / seconds + int(self._board.rows[member].backlog) / 1000
            self._loads[member] += SMOOTHING * (load - self._loads[member])

    def _decide(self) -> None:
        idlest = min(self._others(), key=lambda member: self._loads[member], default=-1)
        if idlest < 0:
            self._hand_on(0, 0)
            return
        gap = self._loads[self._member] - self._loads[idlest]
        self._unequal = self._unequal + 1 if gap > MARGIN else 0
        share = int(self._row.redirect_share)
        if self._unequal >= PATIENCE:
            self._hand_on(idlest, min(share + STEP, SHARES))
            self._move_group(idlest)
        elif gap < MARGIN / 2:
            self._hand_on(int(self._row.redirect_to), max(share - STEP, 0))

    def _others(self) -> list[int]:
        rows = self._board.rows
        return [member for member in range(len(rows)) if member != self._member and rows[member].state == SERVING]

    def _hand_on(self, to: int, share: int) -> None:
        """So many of SHARES of this core's new flows go to another from now on."""
        self._row.redirect_to, self._row.redirect_share = to, share
        self._full = self._full + 1 if share == SHARES else 0

    def _move_group(self, to: int) -> None:
        """Once handing on all new flows does not help: entries of the NIC's table that are this core's, one at a time."""
        if self._redirect is None or self._full < GROUP_PATIENCE:
            return
        table: Any = self._board.header.rss_table
        own = [entry for entry, queue in enumerate(table) if queue == self._member]
        if len(own) > 1:
            self._redirect({own[0]: to})
            table[own[0]] = to
            self.groups_moved += 1
            self._full = 0
