"""Memory that all workers share: each writes the numbers in its own slot, and reads those of all.

Who starts the workers makes the memory before it forks them, and lends each a slot that no other living process has. A
process that dies leaves its counters behind, and its successor in the slot adds to them: they never go back, and
nothing grows. What a slot holds is described by a digest at its begin, so slots of another release are not read.
"""

from collections.abc import Iterator
from mmap import mmap

from app.highload.metrics.instruments import Gauge, Instrument, Numbers, adding, digest, layout, registry

# At the begin of each slot: the digest of its layout, and how many gauges follow.
HEADER = 2


class LayoutDiffers(Exception):
    """The other workers count something else, because they are of another release."""


class Memory:
    """The slots of a process and of its siblings."""

    def __init__(self) -> None:
        self._slots: list[Numbers] = []
        self._digest = 0
        self._lent: tuple[mmap, int, int] | None = None
        self._is_foreign = False

    def lend(self, mapping: mmap, slot: int, slot_bytes: int) -> None:
        """Take a slot of shared memory, to be used from `join` on."""
        self._lent = (mapping, slot, slot_bytes)

    def join(self) -> None:
        """Move all instruments into the slot that was lent, if one was; from now on none can be declared.

        Raises ValueError when the slot is too small.
        """
        if self._lent is None:
            return
        (mapping, slot, slot_bytes), self._lent = self._lent, None
        slots = slots_of(mapping, slot_bytes)
        self._digest = digest()
        if any(int(other[0]) not in (0, self._digest) for other in slots):
            # Its own numbers are right, and nobody is told them for those of all.
            self._is_foreign = True
            return
        move_into(slots[slot])
        self._slots = slots
        registry.closed = "because the workers share what they count already"

    # {% if cookiecutter.queued_writes %}
    def watch(self, mapping: mmap, slot_bytes: int) -> None:
        """Read the slots of others, without one of its own."""
        self._slots = slots_of(mapping, slot_bytes)
        self._digest = digest()

    # {% endif %}
    def places(self) -> Iterator[tuple[Instrument, list[Numbers]]]:
        """Yield each instrument with its numbers in all processes.

        Raises LayoutDiffers when they cannot be told.
        """
        if self._is_foreign:
            raise LayoutDiffers
        used = [slot for slot in self._slots if int(slot[0]) == self._digest]
        base = HEADER
        for instrument in layout():
            if used:
                yield instrument, [slot[base : base + instrument.size] for slot in used]
            else:
                yield instrument, [instrument.values[instrument.base : instrument.base + instrument.size]]
            base += instrument.size


memory = Memory()


def slots_of(mapping: mmap, slot_bytes: int) -> list[Numbers]:
    """Return the slots of a mapping, as numbers."""
    view = memoryview(mapping)
    begins = range(0, len(view), slot_bytes)
    return [view[begin : begin + slot_bytes].cast("d") for begin in begins]


def move_into(slot: Numbers) -> None:
    """Move all instruments into a slot.

    Raises ValueError when it is too small.
    """
    ordered = layout()
    size = HEADER + sum(instrument.size for instrument in ordered)
    if size > len(slot):
        raise ValueError(
            f"What this service counts takes {8 * size} bytes and a slot has {8 * len(slot)}: "
            "raise SLOT_BYTES in gunicorn.conf.py, or declare less."
        )
    gauges = sum(isinstance(instrument, Gauge) for instrument in ordered)
    # Those of a predecessor.
    for place in range(HEADER, HEADER + gauges):
        slot[place] = 0
    base = HEADER
    with adding:
        for instrument in ordered:
            instrument.move(slot, base)
            base += instrument.size
    slot[1] = gauges
    slot[0] = digest()
