"""A transport in a process of its own, to be killed: `python -m tests.log.transport_process NODE_ID`; prints its port."""

import asyncio
import sys

from tests.log.nodes import Mailbox, make_transport


async def main(node_id: int) -> None:
    mailbox = Mailbox()
    mailbox.admits_strangers = True
    transport = make_transport(node_id, mailbox)
    async with asyncio.TaskGroup() as group:
        group.create_task(transport.run())
        await transport.wait_ready()
        sys.stdout.write(f"{transport.port}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
