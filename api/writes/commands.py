"""Compiled commands (ops/postgres/commands.py) that invalidate cached answers once they are committed.

Outside of a transaction a command returns after the invalidation: a client that writes and then reads has its own
write in the answer. A client that leaves ends neither write nor invalidation: cached answers would still show the old
row. If the outcome of a write is unknown, any row of the model may have changed.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from asgiref.sync import sync_to_async

from api.cache.changes import AsyncBatch, ainvalidate, invalidate, invalidate_unknown
from ops.postgres import bulk, commands, transactions
from ops.postgres.commands import Row, Rows, Values, Written
from ops.postgres.connection import OutcomeUnknown
from ops.postgres.pool import pools
from ops.tasks import finish


class Audit(Protocol):
    """A hook of a transaction (ops/postgres/transactions.py)."""

    def __call__(self) -> None:
        """Called after the write is committed."""

    def on_unknown(self) -> None:
        """Called if the connection was lost during the commit."""


class Invalidating(commands.Command[Values, Written]):
    """Adds invalidation and an audit to a command."""

    async def run(self, values: Values, audit: Callable[[Written | None], Audit] | None = None) -> Written:
        """Run the command, for parameters in one object.

        `audit` makes a hook of the row or rows, which is called after the commit, also if the client has left. If
        the outcome and the rows are unknown, `audit` gets None, and the hook's `on_unknown` is called.
        """
        if tx := transactions.active():
            written = await self.write(values)
            if audit:
                tx.on_commit(audit(written))
            if written.keys:
                # One batch invalidates all changes, after the commit. An undone savepoint has taken its batch along.
                batch = next((hook for hook in tx.hooks if isinstance(hook, AsyncBatch)), None)
                if not batch:
                    tx.on_commit(batch := AsyncBatch())
                batch.add(self.model, written.keys)
            return await self.complete(written)
        if asyncio.get_running_loop() not in pools:  # on Django's connection, maybe in a transaction
            written = await self.write(values)
            if written.keys:
                await sync_to_async(invalidate)(self.model, *written.keys)
            if audit:
                audit(written)()
            return await self.complete(written)
        return await finish(self._finish(values, audit))

    async def _finish(self, values: Values, audit: Callable[[Written | None], Audit] | None) -> Written:
        try:
            written = await self.write(values)
        except OutcomeUnknown:
            if audit:
                audit(None).on_unknown()
            await invalidate_unknown(self.model)
            raise
        if audit:
            audit(written)()
        if written.keys:
            await ainvalidate(self.model, *written.keys)
        return await self.complete(written)


class Insert(Invalidating[Mapping[str, Any], Row], commands.Insert):
    __doc__ = commands.Insert.__doc__


class Update(Invalidating[Mapping[str, Any], Row], commands.Update):
    __doc__ = commands.Update.__doc__


class Delete(Invalidating[Mapping[str, Any], Row], commands.Delete):
    __doc__ = commands.Delete.__doc__


class InsertMany(Invalidating[bulk.Values, Rows], bulk.InsertMany):
    __doc__ = bulk.InsertMany.__doc__


class UpdateMany(Invalidating[bulk.Values, Rows], bulk.UpdateMany):
    __doc__ = bulk.UpdateMany.__doc__


class DeleteMany(Invalidating[bulk.Values, Rows], bulk.DeleteMany):
    __doc__ = bulk.DeleteMany.__doc__
