"""A disk in memory that keeps what was synced, and may lose or tear all else: sector by sector, name by name."""

import random
from dataclasses import dataclass, field
from enum import Enum, auto


class Trouble(Enum):
    """What befalls a process at one of its steps on the disk."""

    NONE = auto()
    POWER_CUT = auto()
    """Everything stops. What was not synced is there, or not, or torn, each sector for itself."""
    KILL = auto()
    """The process stops; the system writes on what it was given."""
    SYNC_FAILS = auto()
    """EIO. The system forgets that the pages were dirty: they are read as written, and may never reach the disk."""
    WRITE_FAILS = auto()
    """EIO, and nothing is written."""
    WRITE_IS_SHORT = auto()
    """A part is written, then EIO."""
    FULL = auto()
    """ENOSPC: no file grows any more. The last write may be there in part."""


class DiskError(Exception):
    """The operation failed, or the process is not alive any more; the name is that of SQLite's result code."""


class Fate(Enum):
    """What becomes of sectors that were not synced."""

    LOST = auto()
    KEPT = auto()
    MIXED = auto()
    """Each is as it was at any moment since the last sync."""
    TORN = auto()
    """As MIXED; and half of them end in what was there before, from some byte on."""


@dataclass(slots=True)
class Written:
    """What was done to a file since its last sync, up to a moment."""

    cut_bytes: int | None = None
    """The shortest that the file was cut to; what stood beyond that is gone."""
    sectors: dict[int, list[bytes]] = field(default_factory=dict)
    """All that each sector has held."""
    sizes: list[int] = field(default_factory=list)

    def copied(self) -> "Written":
        """Return a copy, which later writes do not change."""
        return Written(self.cut_bytes, {sector: list(held) for sector, held in self.sectors.items()}, list(self.sizes))


@dataclass(slots=True)
class File:
    """What a file holds, to those who read it and to those who come after a power cut."""

    sector_bytes: int
    view: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    written: Written = field(default_factory=Written)
    before_cuts: list[Written] = field(default_factory=list)
    """What was written before each cut: a file system does a cut as a whole or not at all, and in order."""
    has_phantoms: bool = False
    """After a failed sync: what is read may be on no disk, and no later sync brings it there."""

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset`; zeros fill what lies between it and the old end."""
        start, end = min(offset, len(self.view)), offset + len(data)
        if end > len(self.view):
            self.view.extend(bytes(end - len(self.view)))
            self.written.sizes.append(end)
        self.view[offset:end] = data
        for sector in range(start // self.sector_bytes, -(-end // self.sector_bytes)):
            place = sector * self.sector_bytes
            held = bytes(self.view[place : place + self.sector_bytes])
            self.written.sectors.setdefault(sector, []).append(held.ljust(self.sector_bytes, b"\0"))

    def truncate(self, size: int) -> None:
        """Cut the file."""
        self.before_cuts.append(self.written.copied())
        del self.view[size:]
        written = self.written
        written.sizes[:] = [size]
        written.cut_bytes = size if written.cut_bytes is None else min(size, written.cut_bytes)
        for sector in [sector for sector in written.sectors if sector * self.sector_bytes >= size]:
            del written.sectors[sector]

    def sync(self) -> None:
        """Make durable what was written since the last sync."""
        if self.has_phantoms:
            self._cut_durable(self.durable, self.written)
            _resize(self.durable, len(self.view))
            for sector in self.written.sectors:
                start = sector * self.sector_bytes
                self.durable[start : start + self.sector_bytes] = self.view[start : start + self.sector_bytes]
        else:
            self.durable[:] = self.view
        self._forget_written()

    def fail_to_sync(self, rng: random.Random, fate: Fate) -> None:
        """Make durable some of what was written, and take all of it for durable."""
        self.durable = self.survivor(rng, fate)
        self._forget_written()
        self.has_phantoms = True

    def cut_power(self, rng: random.Random, fate: Fate) -> None:
        """Keep only what reached the disk."""
        self.durable = self.survivor(rng, fate)
        self.view = bytearray(self.durable)
        self._forget_written()
        self.has_phantoms = False

    def survivor(self, rng: random.Random, fate: Fate) -> bytearray:
        """Return what a power cut would leave."""
        image = bytearray(self.durable)
        if fate is Fate.LOST:
            return image
        written = self.written if fate is Fate.KEPT else rng.choice([*self.before_cuts, self.written])
        self._cut_durable(image, written)
        size = len(self.view) if fate is Fate.KEPT else rng.choice([len(image), *written.sizes])
        _resize(image, max(len(image), *written.sizes, size))
        for sector, versions in written.sectors.items():
            start = sector * self.sector_bytes
            was = bytes(image[start : start + self.sector_bytes])
            now = versions[-1] if fate is Fate.KEPT else rng.choice([was, *versions])
            if fate is Fate.TORN and rng.random() < 0.5:
                torn_at = rng.randrange(self.sector_bytes)
                now = now[:torn_at] + was[torn_at:]
            image[start : start + len(now)] = now
        _resize(image, size)
        return image

    def _cut_durable(self, image: bytearray, written: Written) -> None:
        if written.cut_bytes is not None:
            del image[written.cut_bytes :]

    def _forget_written(self) -> None:
        self.written = Written()
        self.before_cuts.clear()


class Disk:
    """One folder of files. Everything random about it is drawn from one generator.

    `trouble` comes when `steps_left` operations that change something were done, or at the first one after them that
    it can befall.
    """

    def __init__(self, rng: random.Random, sector_bytes: int) -> None:
        self.rng = rng
        self.sector_bytes = sector_bytes
        self.files: dict[str, File] = {}
        self.steps = 0
        """Operations that change something: writes, cuts, syncs, deletions, so far."""
        self._durable_names: dict[str, File] = {}
        self.is_dead = False
        """The process that uses it is not alive any more: nothing it still does has an effect."""
        self.has_struck = False
        """The trouble has come, in this life of the process."""
        self.trouble = Trouble.NONE
        self._steps_left = 0
        self._capacity_bytes: int | None = None
        self.flip_read: int | None = None
        """Reads until one returns a wrong bit, once."""

    def begin_life(self, trouble: Trouble, steps_left: int) -> None:
        """Let a process begin, and `trouble` come when it has done `steps_left` steps."""
        self.is_dead = self.has_struck = False
        self.trouble, self._steps_left = trouble, steps_left
        self._capacity_bytes = None
        self.flip_read = None

    def cut_power(self) -> None:
        """Lose what was not synced, or a part of it."""
        fate = self.rng.choice(list(Fate))
        for name in sorted(self.files.keys() | self._durable_names.keys()):
            before, now = self._durable_names.get(name), self.files.get(name)
            found = now if fate is Fate.KEPT else before if fate is Fate.LOST else self.rng.choice([before, now])
            if found is None:
                self.files.pop(name, None)
            else:
                found.cut_power(self.rng, fate)
                self.files[name] = found
        self._durable_names = dict(self.files)

    def settle(self) -> None:
        """Let everything become durable, as it does after a while; but not what a failed sync has lost."""
        for file in self.files.values():
            file.sync()
        self.sync_names()

    def sync_names(self) -> None:
        """Make durable which files there are."""
        self._durable_names = dict(self.files)

    def create(self, name: str) -> File:
        """Make an empty file."""
        self._step()
        return self.files.setdefault(name, File(self.sector_bytes))

    def delete(self, name: str, *, durably: bool) -> None:
        """Delete a file; the name may come back unless `durably`."""
        self._step()
        del self.files[name]
        if durably:
            self._durable_names.pop(name, None)

    def move(self, name: str, wanted: str) -> None:
        """Give a file another name; the old one may come back, until the names are synced."""
        self._step()
        self.files[wanted] = self.files.pop(name)

    def read(self, file: File, amount_bytes: int, offset: int) -> bytes:
        """Return what is there, less at the end of the file."""
        self._check_alive()
        data = bytes(file.view[offset : offset + amount_bytes])
        if self.flip_read is not None and data:
            self.flip_read -= 1
            if self.flip_read < 0:
                self.flip_read = None
                self.has_struck = True
                return flipped(data, self.rng.randrange(len(data) * 8))
        return data

    def write(self, file: File, data: bytes, offset: int) -> None:
        """Write, as far as the trouble allows."""
        trouble = self._step(Trouble.WRITE_FAILS, Trouble.WRITE_IS_SHORT, Trouble.FULL, Trouble.POWER_CUT, Trouble.KILL)
        if trouble is Trouble.FULL:
            self._capacity_bytes = self._used_bytes()
        growth = max(0, offset + len(data) - len(file.view))
        if self._capacity_bytes is not None and growth and self._used_bytes() + growth > self._capacity_bytes:
            self.has_struck = True
            if self.rng.random() < 0.5:
                file.write(offset, data[: self.rng.randrange(len(data))])
            raise DiskError("FULL")
        if trouble in {Trouble.NONE, Trouble.FULL}:
            file.write(offset, data)
            return
        if trouble is not Trouble.WRITE_FAILS:
            file.write(offset, data[: self.rng.randrange(len(data) + (trouble is not Trouble.WRITE_IS_SHORT))])
        raise DiskError("IOERR_WRITE")

    def truncate(self, file: File, size: int) -> None:
        """Cut a file."""
        self._step()
        if size < len(file.view):
            file.truncate(size)

    def sync(self, file: File) -> None:
        """Make durable what was written to a file, unless it fails."""
        trouble = self._step(Trouble.SYNC_FAILS, Trouble.POWER_CUT, Trouble.KILL)
        if trouble is Trouble.SYNC_FAILS:
            file.fail_to_sync(self.rng, self.rng.choice(list(Fate)))
        if trouble is not Trouble.NONE:
            raise DiskError("IOERR_FSYNC")
        file.sync()

    def flip(self, name: str, bit: int) -> None:
        """Change a bit of a file, in every copy of it."""
        file = self.files[name]
        file.view[:] = file.durable[:] = flipped(bytes(file.view), bit)

    def kept(self) -> dict[str, bytes]:
        """Return what every file holds, to be given to `roll_back`."""
        return {name: bytes(file.view) for name, file in self.files.items()}

    def roll_back(self, kept: dict[str, bytes]) -> None:
        """Put older contents in the place of all that is there."""
        self.files.clear()
        for name, data in kept.items():
            self.files[name] = File(self.sector_bytes, bytearray(data), bytearray(data))
        self.sync_names()

    def _used_bytes(self) -> int:
        return sum(len(file.view) for file in self.files.values())

    def _check_alive(self) -> None:
        if self.is_dead:
            raise DiskError("IOERR")

    def _step(self, *possible: Trouble) -> Trouble:
        """Count a step, and return the trouble that comes at it, of those `possible`."""
        self._check_alive()
        self.steps += 1
        self._steps_left -= 1
        if self._steps_left >= 0 or self.has_struck or self.trouble is Trouble.NONE:
            return Trouble.NONE
        if self.trouble in {Trouble.POWER_CUT, Trouble.KILL}:
            self.is_dead = self.has_struck = True
            if not possible:
                raise DiskError("IOERR")
            return self.trouble
        if self.trouble not in possible:
            return Trouble.NONE
        trouble = self.trouble
        if trouble is Trouble.FULL:  # it has struck when something does not fit
            self.trouble = Trouble.NONE
        else:
            self.has_struck = True
        return trouble


def flipped(data: bytes, bit: int) -> bytes:
    """Return `data` with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _resize(data: bytearray, size: int) -> None:
    if size < len(data):
        del data[size:]
    else:
        data.extend(bytes(size - len(data)))
