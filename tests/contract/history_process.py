"""A program that writes to a history: `history_process.py URL CONVERSATION COUNT`.

It prints each message's id after the store has confirmed it. With COUNT 0 it records turns without end.
"""

import asyncio
import sys

from antiphon.database.open import open_database
from antiphon.domain.content import Message, Role, Text
from antiphon.history.base import MessageState, TurnEnd
from antiphon.history.sql import SqlStore


def report(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


async def main(url: str, conversation: str, count: int) -> None:
    store = SqlStore(open_database(url))
    for number in range(count):
        _, new = await store.append("me", conversation, [Message(Role.USER, (Text(str(number)),))])
        report(new[0].id)

    async def turns() -> None:
        while True:
            turn = await store.begin_turn("me", conversation, [Message(Role.USER, (Text("x"),))])
            report(turn.path[-1].id)
            report(turn.reply.id)
            await store.end_turn("me", turn.reply.id, TurnEnd(MessageState.COMPLETE, Message(Role.ASSISTANT, (Text("y"),))))
            report(turn.reply.id, "ended")

    if not count:
        await asyncio.gather(*(turns() for _ in range(4)))
    await store._database.close()


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
