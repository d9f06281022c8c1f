"""Redis can be lost at any time, in any way: it is noticed, and filled again, and nobody is told anything wrong."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from engram.events import Event
from engram.projections.redis_feed import Options
from engram.projections.redis_keys import KeySpace, SessionName
from engram.projections.redis_store import RedisStore
from engram.projections.sqlite_store import PrimaryStore
from tests.projections.histories import created, deleted, embedded, ended, pinned, said, unpinned
from tests.projections.redis_scene import QUICK, WINDOW, Scene, needs_redis, primary_in
from tests.redis_server import RedisServer
from tests.server_process import find_free_port

pytestmark = needs_redis

STATE = "engram:1:state"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", find_free_port()) as started:
        yield started


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", find_free_port(), appendonly=True) as started:
        yield started


@pytest_asyncio.fixture
async def primary(tmp_path: Path) -> AsyncIterator[PrimaryStore]:
    async with primary_in(tmp_path / "primary") as store:
        yield store


def keys_of(server: RedisServer, session_id: str = "s") -> list[str]:
    return [key for key in server.contents() if f":{session_id}:" in key]


class TestFilling:
    async def test_what_was_there_before_is_written_at_the_start(
        self, server: RedisServer, primary: PrimaryStore
    ) -> None:
        scene = Scene(primary, server.url)
        await scene.write(said("m1"), embedded("m1"))
        await scene.write(pinned("f1"))
        await scene.write(created("empty"))

        async with scene.fed():
            told = await scene.read()

            assert [message.message_id for message in told.recent] == ["m1"]
            assert await scene.differences() == []
        assert list(server.contents()) == [
            "engram:1:default:empty:session",
            "engram:1:default:s:core",
            "engram:1:default:s:messages",
            "engram:1:default:s:session",
            STATE,
        ]

    async def test_more_sessions_than_a_step_takes_are_all_written(
        self, server: RedisServer, primary: PrimaryStore
    ) -> None:
        scene = Scene(primary, server.url)
        for number in range(450):
            await scene.write(said("m1", session_id=f"s{number}"))

        async with scene.fed():
            assert await scene.differences() == []

    async def test_a_session_keeps_its_latest_messages_only(self, server: RedisServer, primary: PrimaryStore) -> None:
        scene = Scene(primary, server.url)
        await scene.write(*(said(f"m{number}") for number in range(2 * WINDOW)))

        async with scene.fed():
            assert len(server.contents()["engram:1:default:s:messages"]) == WINDOW
            assert len((await scene.read(limit=WINDOW)).recent) == WINDOW
            assert len((await scene.read(limit=WINDOW + 1)).recent) == WINDOW + 1

    async def test_messages_of_great_length_do_not_pile_up(self, server: RedisServer, primary: PrimaryStore) -> None:
        scene = Scene(primary, server.url)
        for number in range(WINDOW):
            await scene.write(said(f"m{number}", "x" * 250_000))

        async with scene.fed():
            await scene.write(said("last", "x" * 250_000))
            await scene.settle()

            assert len(server.contents()["engram:1:default:s:messages"]) == 4
            await scene.read(limit=2)
            await scene.read(limit=WINDOW)

    async def test_a_fill_takes_in_what_changes_meanwhile(self, server: RedisServer, primary: PrimaryStore) -> None:
        scene = Scene(primary, server.url)
        for number in range(300):
            await scene.write(said("m1", session_id=f"s{number}"))

        async with scene.running():
            for number in range(0, 300, 7):
                await scene.write(said("m2", session_id=f"s{number}"))
                await scene.write(ended(f"s{number + 1}"))
            await scene.settle()

            assert await scene.differences() == []


class TestFeeding:
    async def test_each_kind_of_change_arrives(self, server: RedisServer, primary: PrimaryStore) -> None:
        scene = Scene(primary, server.url)
        changes: list[list[Event]] = [
            [said("m1"), embedded("m1")],
            [said("m2"), embedded("m2")],
            [pinned("f1", "one")],
            [pinned("f2", "two")],
            [unpinned("f1")],
            [pinned("f1", "one again")],
            [said("m3")],
            [embedded("m3", 7)],
            [deleted("m2")],
            [said(f"n{number}") for number in range(WINDOW)],
            [ended()],
            [said("m1", "another life")],
        ]
        async with scene.fed():
            for events in changes:
                await scene.write(*events)
                await scene.settle()

                assert await scene.differences() == []
                if events != [ended()]:
                    await scene.read()

    async def test_only_new_messages_are_sent(self, server: RedisServer, primary: PrimaryStore) -> None:
        scene = Scene(primary, server.url, window=100)
        async with scene.fed():
            for number in range(10):
                await scene.write(said(f"m{number}"), embedded(f"m{number}"))
                await scene.settle()
            with server.client() as client:
                pushed = client.info("commandstats")["cmdstat_rpush"]["calls"]
                dropped = client.info("commandstats")["cmdstat_ltrim"]["calls"]

            assert (pushed, dropped) == (10, 9)
            assert await scene.differences() == []

    async def test_a_session_that_changed_is_not_read_from_redis_until_it_is_written(
        self, server: RedisServer, primary: PrimaryStore
    ) -> None:
        scene = Scene(primary, server.url)
        await scene.write(said("m1"))
        await scene.write(said("m1", session_id="other"))
        async with scene.fed():
            server.pause()
            await scene.write(said("m2"))

            assert not scene.is_trusted("s")
            assert scene.is_trusted("other")
            assert len((await scene.read("s")).recent) == 2
            server.resume()
            await scene.settle()
            assert scene.is_trusted("s")

    async def test_the_applied_index_stands_beside_what_it_covers(
        self, server: RedisServer, primary: PrimaryStore
    ) -> None:
        scene = Scene(primary, server.url)
        async with scene.fed():
            await scene.write(said("m1"))
            index = await scene.write(said("m2"))
            await scene.settle()

        assert f'"applied":{index}' in server.contents()[STATE]
        assert scene.feed.status().applied == index

    async def test_too_many_changes_are_compared_instead(self, server: RedisServer, primary: PrimaryStore) -> None:
        scene = Scene(primary, server.url)
        scene.feed.waiting().changes_max = 5
        async with scene.fed():
            server.kill()
            for number in range(20):
                await scene.write(said("m1", session_id=f"s{number}"))
            server.start()
            await scene.settle()

            assert await scene.differences() == []

    async def test_what_waits_at_the_end_is_written(self, server: RedisServer, primary: PrimaryStore) -> None:
        scene = Scene(primary, server.url)
        async with scene.fed():
            await scene.write(said("m1"))

        assert len(server.contents()["engram:1:default:s:messages"]) == 1


class TestLoss:
    async def test_a_flushed_server_is_noticed_by_a_reader_and_filled_again(
        self, server: RedisServer, primary: PrimaryStore
    ) -> None:
        scene = Scene(primary, server.url, options=QUICK._replace(check_s=60))
        await scene.write(said("m1"))
        async with scene.fed():
            server.flush()

            assert len((await scene.read()).recent) == 1
            assert not scene.feed.status().ready
            await scene.settle()
            assert await scene.differences() == []
            assert scene.failures.operations == ["read"]

    async def test_a_flushed_server_is_noticed_by_a_write(self, server: RedisServer, primary: PrimaryStore) -> None:
        scene = Scene(primary, server.url, options=QUICK._replace(check_s=60))
        await scene.write(said("m1"))
        async with scene.fed():
            server.flush()
            await scene.write(said("m1", session_id="other"))
            await scene.settle()

            assert await scene.differences() == []

    async def test_a_flushed_server_is_noticed_when_nobody_reads_or_writes(
        self, server: RedisServer, primary: PrimaryStore
    ) -> None:
        scene = Scene(primary, server.url)
        await scene.write(said("m1"))
        async with scene.fed():
            server.flush()
            await scene.until(lambda: bool(keys_of(server)), "it is filled again")

    async def test_a_server_that_is_restored_to_an_older_state_is_brought_up_to_date(
        self, server: RedisServer, primary: PrimaryStore
    ) -> None:
        scene = Scene(primary, server.url)
        await scene.write(said("m1"))
        await scene.write(said("m1", session_id="gone"))
        async with scene.fed():
            older = server.save_copy()
            await scene.write(said("m2"))
            await scene.write(ended("gone"))
            await scene.settle()
            server.restore(older)
            assert keys_of(server, "gone")

            assert len((await scene.read()).recent) == 2
            await scene.settle()
            assert await scene.differences() == []
            assert not keys_of(server, "gone")

    async def test_a_server_that_lost_its_last_second_is_brought_up_to_date(
        self, server: RedisServer, primary: PrimaryStore
    ) -> None:
        scene = Scene(primary, server.url)
        async with scene.fed():
            await scene.write(said("m1"))
            await scene.settle()
            server.kill()
            server.start()
            await scene.write(said("m2"))
            await scene.settle()

            assert await scene.differences() == []

    async def test_another_server_under_the_same_address_is_filled(
        self, server: RedisServer, primary: PrimaryStore, tmp_path: Path
    ) -> None:
        scene = Scene(primary, server.url)
        await scene.write(said("m1"))
        async with scene.fed():
            server.kill()
            with RedisServer(tmp_path / "other", server.port) as other:
                with other.client() as client:
                    client.set("engram:1:default:x:messages", "of somebody else")
                    client.set("engram:1:nonsense", "of somebody else")
                    client.set("engram:11:default:s:session", "another node's")
                await scene.until(lambda: "engram:1:nonsense" not in other.contents(), "it is noticed")
                await scene.settle()

                assert await scene.differences() == []
                assert "engram:11:default:s:session" in other.contents()

    async def test_a_killed_server_that_kept_everything_is_not_filled_again(
        self, durable: RedisServer, primary: PrimaryStore
    ) -> None:
        scene = Scene(primary, durable.url)
        await scene.write(said("m1"))
        async with scene.fed():
            state = durable.contents()[STATE]
            durable.kill()
            await scene.until(lambda: not scene.feed.status().ready, "it is noticed")
            durable.start()
            await scene.settle()

            assert epoch_of(durable.contents()[STATE]) == epoch_of(state)

    async def test_sessions_that_ended_while_redis_was_away_are_gone_when_it_is_back(
        self, durable: RedisServer, primary: PrimaryStore
    ) -> None:
        scene = Scene(primary, durable.url)
        await scene.write(said("m1", "to be forgotten"))
        async with scene.fed():
            await scene.until(lambda: not scene.feed.status().unscrubbed, "the first files are written")
            durable.kill()
            await scene.write(ended())
            durable.start()
            await scene.settle()
            await scene.until(lambda: not scene.feed.status().unscrubbed, "its files are written anew")

        assert keys_of(durable) == []
        assert list(durable.files_with("to be forgotten")) == []

    async def test_sessions_that_ended_while_nobody_fed_redis_are_gone_after_the_next_start(
        self, server: RedisServer, primary: PrimaryStore
    ) -> None:
        first = Scene(primary, server.url)
        await first.write(said("m1"))
        await first.write(said("m1", session_id="stays"))
        async with first.fed():
            pass
        await first.write(ended())

        async with Scene(primary, server.url).fed() as second:
            assert keys_of(server) == []
            assert await second.differences() == []

    async def test_a_part_that_was_evicted_is_written_again(self, server: RedisServer, primary: PrimaryStore) -> None:
        scene = Scene(primary, server.url, options=QUICK._replace(check_s=60))
        await scene.write(said("m1"), embedded("m1"), pinned("f1"))
        async with scene.fed():
            await scene.write(said("m2"), embedded("m2"))
            await scene.settle()
            for part in ("session", "messages", "core"):
                with server.client() as client:
                    client.delete(f"engram:1:default:s:{part}")
                await scene.read()
                await scene.settle()

                assert await scene.differences() == []

    async def test_what_somebody_else_wrote_over_a_part_is_written_over(
        self, server: RedisServer, primary: PrimaryStore
    ) -> None:
        scene = Scene(primary, server.url, options=QUICK._replace(check_s=60))
        await scene.write(said("m1"))
        async with scene.fed():
            with server.client() as client:
                client.lset("engram:1:default:s:messages", 0, "no message")

            await scene.read()
            await scene.settle()
            assert await scene.differences() == []

    async def test_a_running_node_fills_it_again_when_it_is_told_to(
        self, server: RedisServer, primary: PrimaryStore
    ) -> None:
        scene = Scene(primary, server.url)
        await scene.write(said("m1", "tea"))
        async with scene.fed():
            with server.client() as client:
                (message,) = client.lrange("engram:1:default:s:messages", 0, -1)
                client.lset("engram:1:default:s:messages", 0, message.replace(b"tea", b"gin"))
            assert await scene.differences() != []
            scene.feed.refill()
            await scene.read()

            await scene.settle()
            assert await scene.differences() == []


class TestOthersOnTheServer:
    async def test_two_nodes_share_a_server(self, server: RedisServer, primary: PrimaryStore, tmp_path: Path) -> None:
        one = Scene(primary, server.url, node_id=1)
        async with primary_in(tmp_path / "second") as primary_two:
            two = Scene(primary_two, server.url, node_id=2, log_store="another log")
            await one.write(said("m1", "of the first"))
            await two.write(said("m1", "of the second"))
            async with one.fed(), two.fed():
                await one.write(said("m2"))
                await two.write(ended())
                await one.settle()
                await two.settle()

                assert await one.differences() == []
                assert await two.differences() == []
                assert len((await one.read()).recent) == 2

    async def test_databases_are_apart(self, server: RedisServer, primary: PrimaryStore) -> None:
        scene = Scene(primary, server.url_of(3))
        await scene.write(said("m1"))
        async with scene.fed():
            assert server.contents(0) == {}
            assert "engram:1:default:s:messages" in server.contents(3)

    async def test_two_logs_in_one_key_space_mislead_nobody(
        self, server: RedisServer, primary: PrimaryStore, tmp_path: Path
    ) -> None:
        one = Scene(primary, server.url)
        async with primary_in(tmp_path / "second") as primary_two:
            two = Scene(primary_two, server.url, log_store="another log")
            await one.write(said("m1", "of the first"))
            await two.write(said("m1", "of the second"))
            async with one.running(), two.running():
                for number in range(20):
                    await one.write(said(f"n{number}"))
                    await one.read()
                    await two.read()
                    await asyncio.sleep(0)
                await one.until(lambda: "NODE_ID" in str(one.feed.status().last_error), "it says what is wrong")

    async def test_a_copy_of_the_log_that_went_another_way_is_not_mistaken_for_this_one(
        self, server: RedisServer, primary: PrimaryStore, tmp_path: Path
    ) -> None:
        one = Scene(primary, server.url)
        await one.write(said("m1", "of the first", at_ms=5))
        async with one.fed():
            pass
        async with primary_in(tmp_path / "second") as primary_two:
            two = Scene(primary_two, server.url)
            await two.write(said("m1", "of the second", at_ms=6))
            async with two.fed():
                assert (await two.read()).recent[0].text == "of the second"

    async def test_foreign_keys_are_left_alone(self, server: RedisServer, primary: PrimaryStore) -> None:
        with server.client() as client:
            client.set("engram:1", "not in the key space")
            client.set("session:1", "of another program")
        scene = Scene(primary, server.url)
        await scene.write(said("m1"))
        async with scene.fed():
            assert {"engram:1", "session:1"} < set(server.contents())


class TestAway:
    async def test_a_server_that_is_not_there_yet_is_used_once_it_is(
        self, primary: PrimaryStore, tmp_path: Path
    ) -> None:
        server = RedisServer(tmp_path / "redis", find_free_port())
        scene = Scene(primary, server.url)
        await scene.write(said("m1"))
        async with scene.running():
            await scene.until(lambda: scene.feed.status().last_error is not None, "it is noticed")
            await scene.read()
            with server:
                await scene.settle()
                assert await scene.differences() == []

    async def test_a_wrong_password_is_said_and_not_shown(self, primary: PrimaryStore, tmp_path: Path) -> None:
        with RedisServer(tmp_path / "redis", find_free_port(), password="right") as server:
            scene = Scene(primary, f"redis://:hunter2@127.0.0.1:{server.port}/0")
            await scene.write(said("m1"))
            async with scene.running():
                await scene.until(lambda: scene.feed.status().last_error is not None, "it is noticed")
                await scene.read()

                error = str(scene.feed.status().last_error)
                assert "password" in error
                assert "hunter2" not in error

    async def test_a_full_server_is_no_fault_of_the_readers(self, primary: PrimaryStore, tmp_path: Path) -> None:
        full = ("--maxmemory", "1mb", "--maxmemory-policy", "noeviction")
        with RedisServer(tmp_path / "redis", find_free_port(), options=full) as server:
            scene = Scene(primary, server.url)
            await scene.write(said("m1"))
            async with scene.running():
                await scene.until(lambda: "OutOfMemory" in str(scene.feed.status().last_error), "it is said")
                await scene.read()

    async def test_a_read_only_server_is_no_fault_of_the_readers(self, primary: PrimaryStore, tmp_path: Path) -> None:
        replica = ("--replicaof", "127.0.0.1 1", "--replica-serve-stale-data", "yes")
        with RedisServer(tmp_path / "redis", find_free_port(), options=replica) as server:
            scene = Scene(primary, server.url)
            await scene.write(said("m1"))
            async with scene.running():
                await scene.until(lambda: "ReadOnly" in str(scene.feed.status().last_error), "it is said")
                await scene.read()


class TestForgetting:
    async def test_a_deletion_is_out_of_redis_when_it_is_waited_for(
        self, server: RedisServer, primary: PrimaryStore
    ) -> None:
        scene = Scene(primary, server.url)
        await scene.write(said("m1", "a secret"), pinned("f1", "another secret"))
        async with scene.fed():
            for event in (deleted("m1"), unpinned("f1"), ended()):
                index = await scene.write(event)
                await scene.feed.wait_past(index, 10)

                assert not scene.feed.status().waiting_sessions
            assert "secret" not in str(server.contents())

    async def test_nobody_waits_for_a_server_that_is_away(self, server: RedisServer, primary: PrimaryStore) -> None:
        scene = Scene(primary, server.url)
        await scene.write(said("m1"))
        async with scene.fed():
            server.kill()
            await scene.until(lambda: scene.feed.status().last_error is not None, "it is noticed")
            index = await scene.write(ended())

            await scene.feed.wait_past(index, 60)
            assert scene.feed.status().waiting_sessions == 1

    async def test_a_deletion_waits_no_longer_than_it_may(self, server: RedisServer, primary: PrimaryStore) -> None:
        scene = Scene(primary, server.url)
        await scene.write(said("m1"))
        async with scene.fed():
            server.pause()
            index = await scene.write(ended())

            await scene.feed.wait_past(index, 0.01)
            server.resume()

    @pytest.mark.parametrize(
        ("appendonly", "save"),
        [
            pytest.param(True, "", marks=pytest.mark.thorough),
            pytest.param(False, "3600 1", marks=pytest.mark.thorough),
            (True, "3600 1"),
        ],
        ids=["aof", "rdb", "both"],
    )
    async def test_what_was_forgotten_leaves_the_files_of_the_server(
        self, primary: PrimaryStore, tmp_path: Path, *, appendonly: bool, save: str
    ) -> None:
        with RedisServer(tmp_path / "redis", find_free_port(), appendonly=appendonly, save=save) as server:
            scene = Scene(primary, server.url)
            for session_id in ("s", "t", "u"):
                await scene.write(
                    said("m1", "SECRET", session_id=session_id), pinned("f1", "SECRET", session_id=session_id)
                )
            async with scene.fed():
                await scene.until(lambda: not scene.feed.status().unscrubbed, "the first files are written")
                server.save_copy()
                assert list(server.files_with("SECRET"))
                await scene.write(ended("s"))
                await scene.write(deleted("m1", session_id="t"))
                await scene.write(unpinned("f1", session_id="t"))
                await scene.write(ended("u"))
                await scene.settle()
                assert scene.feed.status().unscrubbed
                await scene.until(lambda: not scene.feed.status().unscrubbed, "they are written anew")

                await scene.until(lambda: not list(server.files_with("SECRET")), "the secret is gone")

    async def test_files_that_were_not_written_anew_before_a_crash_are_after_it(
        self, durable: RedisServer, primary: PrimaryStore
    ) -> None:
        first = Scene(primary, durable.url)
        await first.write(said("m1", "SECRET"))
        async with first.fed():
            await first.until(lambda: not first.feed.status().unscrubbed, "the first files are written")
            with durable.client() as client:
                client.execute_command("ACL", "SETUSER", "default", "-bgrewriteaof")
            await first.write(ended())
            await first.settle()
        assert list(durable.files_with("SECRET"))
        with durable.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "+bgrewriteaof")

        async with Scene(primary, durable.url).fed() as second:
            await second.until(lambda: not second.feed.status().unscrubbed, "they are written anew")
        assert list(durable.files_with("SECRET")) == []

    async def test_a_server_that_does_not_allow_it_serves_all_the_same(
        self, durable: RedisServer, primary: PrimaryStore
    ) -> None:
        with durable.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "-bgrewriteaof", "-config")
        scene = Scene(primary, durable.url)
        await scene.write(said("m1"))
        async with scene.fed():
            await scene.until(lambda: "scrub" in scene.failures.operations, "it is counted")
            await scene.read()

            assert scene.feed.status().ready
            assert scene.feed.status().unscrubbed


def epoch_of(state: str) -> str:
    return state.partition('"epoch":"')[2].partition('"')[0]


def test_a_node_has_keys_of_its_own() -> None:
    one, eleven = KeySpace(1), KeySpace(11)

    assert one.session_of(eleven.of(SessionName("t", "s")).header) is None
    assert Options().check_s < 5, "a flushed server that nobody reads is filled soon"
    assert RedisStore("redis://localhost", one, window=1).window == 1
