"""One seed: a log that lives a few times on one failing disk, and what it has promised, checked at each opening.

What it holds then must be what the last acknowledged change promised, or what one more transaction of the change that
was under way makes of it. Nothing else, in any field.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from engram.database import wal_of
from engram.errors import CorruptionError, FatalError, StorageError
from engram.log.consensus.types import ConfState
from engram.log.sqlite import SqliteLog
from engram.log.wal import FRAME_HEADER_BYTES, HEADER_BYTES, examine
from tests.disk.crash_vfs import PATH, done, mount
from tests.disk.medium import Disk, Trouble
from tests.disk.promises import Contents, difference, found
from tests.disk.scenarios import STARTS, Change, Script, start_of

WAL = wal_of(PATH).as_posix()
_FRAME_BYTES = FRAME_HEADER_BYTES + 4096

STEPS_MAX = 90
"""A life of some ten changes takes about as many steps on the disk."""


class Image:
    """What a file holds, to be read at places."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, amount_bytes: int, offset: int) -> bytes:
        """Return what is there, less at the end."""
        return self._data[offset : offset + amount_bytes]


class BrokenPromiseError(Exception):
    """The log is not what it was promised to be."""


@dataclass(slots=True)
class Trial:
    """One run of one seed. `troubles`: what befalls each life, before the last one that is left in peace."""

    seed: int
    troubles: Sequence[tuple[Trouble, int]] = ()
    trace: list[str] = field(default_factory=list)
    disk: Disk = field(init=False)
    allowed: list[Contents] = field(init=False)
    """What the log may hold."""
    promised: list[Contents] = field(default_factory=list)
    """All that it ever held, or may have held for a moment."""
    erased: set[bytes] = field(default_factory=set)
    """What was acknowledged as erased."""
    struck: int = 0
    """In how many lives the trouble came."""
    _kept: list[dict[str, bytes]] = field(default_factory=list)
    _epoch: int = 0
    _has_lost_power: bool = False
    """At the end of the last life."""
    _rng: random.Random = field(init=False)
    _script: Script = field(init=False)

    def __post_init__(self) -> None:
        self._rng = rng = random.Random(self.seed)
        self.disk = Disk(rng, rng.choice([512, 4096]))
        self._script = Script(rng)
        if not self.troubles:
            self.troubles = [self._trouble() for _ in range(rng.choice([1, 2, 2, 3]))]

    def run(self) -> None:
        """Run it.

        Raises:
            BrokenPromiseError: The log forgot something, or invented it, or did not start when it should.
        """
        rng = self._rng
        with mount(self.disk, checkpoint_pages=rng.choice([3, 8, 20, 1000]), rewrite_entries_max=rng.choice([1, 2, 4])):
            kind = rng.choice(STARTS)
            members, new = start_of(kind, rng)
            self._say(f"{kind}, sectors of {self.disk.sector_bytes}")
            self.allowed = [new]
            self.promised = [new]
            self.disk.settle()
            for trouble, steps in (*self.troubles, (Trouble.NONE, 0)):
                self._say(f"a life with {trouble.name} after {steps} steps")
                self.disk.begin_life(trouble, steps)
                self._live(members)
                self._die()
            if self._rng.random() < 0.4:
                self._damage(members)
            self._say("sound to the end")

    def _damage(self, members: ConfState | None) -> None:
        """Let a bit be wrong, in a file or in one read of it, or a file be an older one: as promised, or refused.

        What cannot be told from a crash: after a power cut, when the mark may be older, a bit in the last transaction of
        the write-ahead log. Nor from the past: files that are all as they were. The log is then as it was before.
        """
        self.disk.begin_life(Trouble.NONE, 0)
        older = self._rng.choice([self._flip_in_file, self._flip_in_wal, self._flip_in_read, self._bring_back])()
        for _ in range(2):  # what was read wrongly may have been written
            try:
                log = done(SqliteLog.open(PATH, store_id="x", members=members))
            except FatalError as error:  # the latter where the schema's own words are damaged
                self._say(f"  refused: {error}")
                return
            try:
                contents = found(log)
            finally:
                done(log.close())
            possible = [*self.allowed, *older]
            possible += [
                replace(one, staged={}) for one in possible
            ]  # what is staged may be dropped: it is asked for again
            if all(difference(one.opened(), contents) for one in possible):
                raise BrokenPromiseError(f"damage is not noticed: {difference(self.allowed[0], contents)}")
            self.allowed = [contents]

    def _flip_in_file(self) -> Sequence[Contents]:
        """Flip a bit; return what the log may be besides."""
        name = self._rng.choice([name for name, file in sorted(self.disk.files.items()) if file.view])
        bit = self._rng.randrange(len(self.disk.files[name].view) * 8)
        self._say(f"bit {bit} of {name} is flipped")
        self.disk.flip(name, bit)
        return self._before_the_last() if name == WAL and self._has_lost_power else []

    def _flip_in_wal(self) -> Sequence[Contents]:
        """Flip a bit of a frame that SQLite needs, often of the last; return what the log may be besides."""
        image = self.disk.kept()
        wal = self.disk.files.get(WAL)
        frames = 0 if wal is None else examine(Image(image[WAL]), Image(image[PATH.as_posix()]), None).frames
        if not frames:
            return self._flip_in_file()
        frame = self._rng.choice([frames - 1, self._rng.randrange(frames)])
        bit = (HEADER_BYTES + frame * _FRAME_BYTES) * 8 + self._rng.choice(
            [self._rng.randrange(FRAME_HEADER_BYTES * 8), self._rng.randrange(_FRAME_BYTES * 8)]
        )
        self._say(f"bit {bit} of {WAL}, in frame {frame + 1} of {frames}, is flipped")
        self.disk.flip(WAL, bit)
        return self._before_the_last() if self._has_lost_power else []

    def _before_the_last(self) -> Sequence[Contents]:
        """Return what the log held before its last transaction; the list is short where that changed nothing."""
        return self.promised[-2:-1]

    def _flip_in_read(self) -> Sequence[Contents]:
        """Let a bit be wrong in one of the next reads."""
        self.disk.flip_read = self._rng.randrange(40)
        self._say(f"after {self.disk.flip_read} reads one is wrong by a bit")
        return []

    def _bring_back(self) -> Sequence[Contents]:
        """Put all files back as they were once; return all that the log then was.

        One file alone, beside others that are newer, may make a mixture of both that no check of either notices.
        """
        kept = self._rng.choice(self._kept)
        self._say(f"{sorted(kept)} as they were before")
        self.disk.roll_back(kept)
        return self.promised

    def _trouble(self) -> tuple[Trouble, int]:
        kinds = [Trouble.POWER_CUT, *Trouble]
        return self._rng.choice(kinds), int(STEPS_MAX * self._rng.random() ** 1.5)

    def _live(self, members: ConfState | None) -> None:
        try:
            log = done(SqliteLog.open(PATH, store_id="x", members=members, window_bytes_max=2000))
        except FatalError as error:
            self._expect_trouble("open", error)
            return
        try:
            self._check(log)
            self._use(log)
        finally:
            self._close(log)

    def _use(self, log: SqliteLog) -> None:
        for _ in range(self._rng.randint(3, 14)):
            (now,) = self.allowed
            if self._rng.random() < 0.2:
                log.trim(now.commit)
            change = self._script.change(now)
            if not self._do(log, change):
                return

    def _do(self, log: SqliteLog, change: Change) -> bool:
        """Do `change`; return whether the log can be used on."""
        self._say(change.name)
        (now,) = self.allowed
        self.promised.extend(change.after)
        try:
            done(change.act(log))
        except FatalError as error:
            self.allowed = [now, *change.after]
            self._expect_trouble(change.name, error)
            self._expect_the_same(log, error)
            return False
        if self.disk.is_dead:
            raise BrokenPromiseError(f"{change.name} was acknowledged by the dead")
        self.allowed = [change.after[-1]]
        self._say(f"  acknowledged, step {self.disk.steps}")
        if change.forgotten:
            self.erased.update(change.forgotten)
            self._check_erased()
        return True

    def _check(self, log: SqliteLog) -> None:
        """Check what was opened against all that it may be."""
        try:
            contents = found(log)
        except FatalError as error:
            if self.disk.is_dead or self.disk.has_struck:
                return
            raise BrokenPromiseError(f"it starts, and cannot be read: {error}") from error
        complaints = [difference(one.opened(), contents) for one in self.allowed]
        if "" not in complaints:
            raise BrokenPromiseError("; or ".join(complaints))
        self.allowed = [contents]
        self.promised.append(contents)
        if log.state.boot_epoch <= self._epoch:
            raise BrokenPromiseError(f"epoch {log.state.boot_epoch} after {self._epoch}")
        self._epoch = log.state.boot_epoch
        self._say(f"  opened: last {contents.last}, staged {contents.reached}, step {self.disk.steps}")
        self._check_erased()

    def _check_erased(self) -> None:
        held = b"".join(file.view for file in self.disk.files.values())
        for data in sorted(self.erased):
            if data and data in held:
                raise BrokenPromiseError(f"{data[:16]!r} was erased, and is in a file")

    def _close(self, log: SqliteLog) -> None:
        if self._rng.random() < 0.3:  # it just ends: SQLite puts nothing in order
            self._say("it ends without closing")
            self.disk.is_dead = True
        try:
            done(log.close())
        except FatalError as error:
            self._say(f"  closing: {error}")

    def _die(self) -> None:
        """End the process; the power may go with it, or later."""
        self.struck += self.disk.has_struck
        self._has_lost_power = False
        has_power = self.disk.trouble is not Trouble.POWER_CUT or not self.disk.has_struck
        self._kept.append(self.disk.kept())
        if self._rng.random() < (0.3 if has_power else 1.0):
            self.disk.cut_power()
            self._has_lost_power = True
            self._say("the power is cut")

    def _expect_trouble(self, what: str, error: FatalError) -> None:
        self._say(f"  {what}: {error}")
        if not self.disk.has_struck or isinstance(error, CorruptionError):
            raise BrokenPromiseError(f"{what}: {error}") from error

    def _expect_the_same(self, log: SqliteLog, error: FatalError) -> None:
        """After a failure nothing may be acknowledged any more."""
        try:
            done(log.append([]))
        except StorageError as again:
            if str(again) == str(error):
                return
        raise BrokenPromiseError(f"it goes on after {error}")

    def _say(self, what: str) -> None:
        self.trace.append(what)


def explained(seed: int) -> str:
    """Run `seed` again, and return what happened, or nothing if all went well."""
    trial = Trial(seed)
    try:
        trial.run()
    except Exception as error:  # noqa: BLE001  whatever it is, the seed is named
        steps = "\n".join(trial.trace)
        return f"{steps}\n{type(error).__name__}: {error}\nREPRODUCE: python -m tests.disk.run --seed {seed}"
    return ""
