"""The cache of recall indexes: bounded in bytes, the least recently used first to go."""

from hypothesis import given
from hypothesis import strategies as st

from engram.recall.cache import CachedIndex, Cursors, IndexCache
from engram.recall.index import SessionIndex
from tests.recall.conversation import MemoryReads


def cached() -> CachedIndex:
    return CachedIndex(SessionIndex.empty(), Cursors(0, 0, 0))


def test_the_least_recently_used_goes_first() -> None:
    cache = IndexCache(bytes_max=30)
    for key in (1, 2, 3):
        cache.put(key, cached(), 10)
    cache.get(1)

    cache.put(4, cached(), 10)

    assert [key for key in (1, 2, 3, 4) if cache.get(key) is not None] == [1, 3, 4]


def test_putting_again_counts_once() -> None:
    cache = IndexCache(bytes_max=100)
    cache.put(1, cached(), 10)

    cache.put(1, cached(), 40)

    assert (len(cache), cache.size_bytes) == (1, 40)


def test_an_index_larger_than_the_bound_stays_until_the_next() -> None:
    cache = IndexCache(bytes_max=10)
    cache.put(1, cached(), 99)
    assert cache.get(1) is not None

    cache.put(2, cached(), 5)

    assert (cache.get(1), cache.size_bytes) == (None, 5)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 50))))
def test_the_bound_holds_whatever_is_put(puts: list[tuple[int, int]]) -> None:
    cache, sizes = IndexCache(bytes_max=60), {}
    for key, size_bytes in puts:
        cache.put(key, cached(), size_bytes)
        sizes[key] = size_bytes

    assert cache.size_bytes == sum(sizes[key] for key in sizes if cache.get(key) is not None)
    assert cache.size_bytes <= 60
    assert not puts or cache.get(puts[-1][0]) is not None


def test_cursors_cover_a_session_until_something_happens_to_it() -> None:
    reads = MemoryReads()
    reads.say("tea", numbers=[1, 0])
    row = reads.row()
    cursors = Cursors(row.next_ordinal, row.vectors_index, row.deletions)
    assert cursors.cover(row)

    assert not cursors.cover(row._replace(next_ordinal=2))
    assert not cursors.cover(row._replace(vectors_index=row.vectors_index + 1))
    assert not cursors.cover(row._replace(deletions=1))


def test_cursors_ahead_of_an_older_row_cover_it() -> None:
    row = MemoryReads().row()

    assert Cursors(5, 9, 1).cover(row)
