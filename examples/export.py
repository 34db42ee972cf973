"""A database's table as JSON lines, however long it is, in little memory.

It shows a blocking library behind a stream. SQLite works in a thread of its own, a batch of rows at a time, and the
next batch is fetched when the reader has taken most of this one. The rows are those of one moment: one SELECT is one
transaction. It is over when the reader has all, or leaves; then others can write (or the journal be emptied) again.

    $ python export.py example.db --rows 100000 --port 8000 &
    $ curl -s --compressed localhost:8000/readings

`--rows` makes the table `readings` with so many rows, if the file is not there; try a million. `--compressed` asks for
gzip. Something is missing where the last line is {"stream-error": ...}, or curl says that the transfer was cut.
"""

import argparse
import asyncio
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

from rawstream import Every, Router, Stream, errors, serve

BATCH = 1000  # rows: some 100 KB
TABLES = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
EXAMPLE = """
    CREATE TABLE readings (id INTEGER PRIMARY KEY, station TEXT, degrees REAL);
    WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {})
    INSERT INTO readings SELECT n, 'station ' || (n % 7), n * 37 % 301 / 10.0 FROM counted;
"""


async def rows(database, table):
    """What `read` yields, which runs in a thread: each step of it, and its end."""
    with ThreadPoolExecutor(1) as thread:  # SQLite wants one and the same
        in_thread = partial(asyncio.get_running_loop().run_in_executor, thread)
        batches = read(database, table)
        try:
            while batch := await in_thread(next, batches, None):
                for row in batch:
                    yield row
        finally:
            await in_thread(batches.close)


def read(database, table):
    """The rows of a table as objects, in batches. Raises NotFound."""
    with closing(connect(database)) as connection, closing(connection.cursor()) as cursor:
        if (table,) not in cursor.execute(TABLES).fetchall():
            raise errors.NotFound(f"there is no table {table}")
        cursor.execute('SELECT * FROM "{}"'.format(table.replace('"', '""')))
        names = [column[0] for column in cursor.description]
        while batch := cursor.fetchmany(BATCH):
            yield [dict(zip(names, row, strict=True)) for row in batch]


def connect(database):
    return sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)


def make_example(database, rows):
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(EXAMPLE.format(rows))


async def main(database, port):
    router = Router()

    @router.get("/{table}")
    async def table(request):
        # flush: bulk data is best sent in large pieces. head: that there is no such table shall still become a 404.
        return Stream(rows(database, request.params["table"]), "jsonl", flush=Every(), head="item", gzip=True)

    async with serve(router, port=port, signals=True) as server:
        print("export.py listening on http://{}:{} (Ctrl-C ends it)".format(*server.addresses[0]), file=sys.stderr)
        await server.wait_closed()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description="Serve the tables of a database.")
    options.add_argument("database", type=Path)
    options.add_argument("--rows", type=int, help="make an example with so many, if there is no such file")
    options.add_argument("--port", type=int, default=8000)
    given = options.parse_args()
    if given.rows and not given.database.exists():
        make_example(given.database, given.rows)
    if not given.database.exists():
        options.error(f"there is no file {given.database}; --rows makes one")
    asyncio.run(main(given.database, given.port))
