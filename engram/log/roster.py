"""Who belongs to the cluster and where they are, as far as the log was applied here."""

from engram.log.consensus.types import ConfChange, ConfState
from engram.log.members import NO_BOOK, Book, Member, decode_book


class Roster:
    """The membership and its address book, moved on by each change in log order."""

    def __init__(self, members: ConfState, book: Book = NO_BOOK) -> None:
        self.members = members
        self.book: dict[int, Member] = dict(book)

    @property
    def ids(self) -> frozenset[int]:
        """All members, voters and learners, of both halves of a joint configuration."""
        members = self.members
        return frozenset({*members.voters, *members.learners, *members.voters_outgoing, *members.learners_next})

    @property
    def voters(self) -> frozenset[int]:
        """Who votes, in either half."""
        return frozenset({*self.members.voters, *self.members.voters_outgoing})

    def apply(self, change: ConfChange, members: ConfState) -> None:
        """Take `members`, which `change` led to, and the addresses that came with it; forget those who left.

        Raises:
            CorruptionError: The addresses cannot be decoded.
        """
        self.members = members
        self.book.update(decode_book(change.context))
        for node_id in self.book.keys() - self.ids:
            del self.book[node_id]

    def replace(self, members: ConfState, book: Book) -> None:
        """Take both from a snapshot."""
        self.members, self.book = members, dict(book)
