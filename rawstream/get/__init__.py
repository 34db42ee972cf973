"""`python -m rawstream get URL`: print a stream as it comes.

To a terminal it is shown readable (`views`), and no control character of the server's gets there; to a pipe or a file
go the bytes as they come. What is not the stream, a status or what went wrong, is a line on stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from rawstream.asking import add_reach, add_request, add_url, advice, leads_to, request, seconds, trust
from rawstream.client import Backoff, ClientTimeouts, events, fetch
from rawstream.ending import wind_up
from rawstream.errors import ContentError, LocalError, RemoteError, StatusError
from rawstream.terminal import Style, duration

from .output import Messages, Output, opened
from .screen import Screen

EPILOG = """\
what is shown
  On a terminal, what Content-Type says: an event of text/event-stream on a line (name, #id, data), an item of a JSON
  array or of JSON lines on a line, all else as text, as it comes. Control characters are shown as \\x1b. Colours are
  left out if NO_COLOR is set. To a pipe or a file go the bytes as they are, unless an option says otherwise. gzip and
  deflate are undone in each case but --raw.

what -d sends
  A body makes the method POST. If it is JSON it is sent as application/json, else as a form
  (application/x-www-form-urlencoded, as curl does); several are joined with &. -H "Content-Type: ..." goes before.

examples
  get :8000/clock                                      a stream of this machine, until Ctrl-C
  get --text --timing -X POST :8000/stream             each chunk, with its size, and how long it was waited for
  get -d '{"steps": 9}' -H "Authorization: Bearer secret" https://app.example/jobs
  get --items :8000/bulk | jq .value                   the items, one on a line

exit status
  0 the stream came to its end        3 there was no answer: no such host, refused, TLS, no HTTP
  1 the answer's status is not 2xx    4 the stream was cut before its end
  2 the command is wrong              5 --max-time was over
  6 the output cannot be written, as on a full disk
  7 the body cannot be read: it is no event stream (--resume), or is compressed in a way that is not known here
  130 after Ctrl-C (by its signal)    141 nobody reads the output any more

  A redirect is not followed; proxies of the environment are not used.
"""

ENDED, REFUSED, WRONG, UNANSWERED, CUT, TIMED_OUT, UNWRITTEN, UNREADABLE = range(8)
INTERRUPTED, UNREAD = 130, 141  # as a shell says it of who was ended by SIGINT, by SIGPIPE

_ACCEPT = {
    "events": "text/event-stream",
    "items": "application/x-ndjson, application/json;q=0.9, */*;q=0.1",
    "text": "text/plain, */*;q=0.1",
}


# -- the command line --------------------------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    """Everything that `get` may be told."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    add_url(parser, ":8000/clock is localhost")
    ask = parser.add_argument_group("what to ask for")
    ask.add_argument("-X", "--request", metavar="METHOD", help="default: GET, and POST with -d")
    add_request(ask)
    ask.add_argument("--compressed", action="store_true", help="take gzip, and undo it")
    ask.add_argument(
        "--resume", action="store_true", help="events; reconnect whenever they break off, and go on after the last id"
    )
    look = parser.add_argument_group("how to show it")
    form = look.add_mutually_exclusive_group()
    for name, what in (
        ("events", "server-sent events, one on a line; asks for them"),
        ("items", "the items alone, one on a line, also from events; asks for JSON lines"),
        ("text", "text as it comes; asks for it"),
        ("raw", "the bytes as they come, compressed or not, to a terminal too"),
    ):
        form.add_argument(f"--{name}", action="store_const", const=name, dest="form", help=what)
    look.add_argument(
        "--timing", action="store_true", help="how long each chunk was waited for, and its size on the wire"
    )
    look.add_argument("-i", "--include", action="store_true", help="the response's head too")
    reach = add_reach(parser)
    reach.add_argument("-m", "--max-time", type=seconds, metavar="SECONDS", help="for all of it (default: no limit)")


def _wrong(options: argparse.Namespace) -> str | None:
    """What does not go together."""
    if options.form == "raw" and options.timing:
        return "--raw and --timing exclude each other: one changes nothing, the other writes between"
    if options.resume and (options.form in ("text", "raw") or options.include):
        return "--resume shows events, from more than one response: --text, --raw and --include do not go with it"
    return None


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What `fetch` and `events` are told."""
    headers, body = request(options)
    given = {name.lower() for name, _ in headers}
    wanted = {
        "Accept": _ACCEPT.get(options.form) if not options.resume else None,
        "Accept-Encoding": "gzip" if options.compressed else None,
    }
    headers += [(name, value) for name, value in wanted.items() if value and name.lower() not in given]
    return {
        "method": options.request or ("GET" if body is None else "POST"),
        "headers": headers,
        "data": body,
        "uds": options.unix_socket,
        "ssl": trust(options),
        "timeouts": ClientTimeouts(head=None, idle=None),  # a quiet stream is no failure: --max-time is the user's
    }


# -- running -----------------------------------------------------------------------------------------------------------


def main(options: argparse.Namespace) -> int:
    """Print the stream; returns the exit status, which --help explains. After Ctrl-C, it does not return."""
    messages = Messages(sys.stderr)
    if sys.stdout is None:  # by `>&-`; and a socket may have its number
        return _failed(messages, "there is no standard output: it is closed", WRONG)
    if wrong := _wrong(options):
        return _failed(messages, wrong, WRONG)
    try:
        with asyncio.Runner() as runner:
            status = _run(runner, _get(options, _arguments(options), messages))
            # The look-up of a name cannot be cancelled, and Python would wait for its thread.
            if threading.current_thread() is threading.main_thread() and runner.run(wind_up()):
                os._exit(status)
            return status
    except LocalError as exc:
        return _failed(messages, str(exc), WRONG)
    except BrokenPipeError:
        return UNREAD
    except OSError as exc:
        return _failed(messages, f"the output cannot be written: {exc.strerror}", UNWRITTEN)


def _run(runner: asyncio.Runner, getting: Coroutine[Any, Any, int]) -> int:
    try:
        return runner.run(getting)
    except KeyboardInterrupt:
        # By the signal, and not with status 130: only then does a shell end its loop, as `for` or `while` (wait(2)).
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
        return INTERRUPTED


def _failed(messages: Messages, text: str, status: int) -> int:
    messages.offer(text)
    return status


async def _get(options: argparse.Namespace, arguments: dict[str, Any], messages: Messages) -> int:
    with opened(sys.stdout) as output:
        return await _Get(options, arguments, output, messages).run()


class _Get:
    """One stream that is printed."""

    def __init__(
        self, options: argparse.Namespace, arguments: dict[str, Any], output: Output, messages: Messages
    ) -> None:
        self._options, self._arguments = options, arguments
        self._output, self._messages = output, messages
        self._screen = Screen(options, Style.of(sys.stdout))

    async def run(self) -> int:
        """Print it to its end, or as long as it may take; returns the exit status."""
        limit = self._options.max_time
        try:
            async with asyncio.timeout(limit):
                with self._output.watched():
                    return await self._to_the_end()
        except TimeoutError:
            self._break_off()
            return _failed(self._messages, f"--max-time of {duration(limit)} was over", TIMED_OUT)
        except asyncio.CancelledError:
            if self._output.unread:
                return UNREAD
            self._break_off()
            raise

    def _break_off(self) -> None:
        """What is left is shown, so far as nobody has to be waited for."""
        self._output.offer(self._screen.end(time.monotonic()))
        self._messages.offer(self._screen.summary())

    async def _to_the_end(self) -> int:
        told = ""
        try:
            status = await (self._resumed() if self._options.resume else self._once())
        except StatusError as exc:
            status, told = REFUSED, str(exc)
        except ContentError as exc:
            status, told = UNREADABLE, str(exc)
        except RemoteError as exc:
            status, told = CUT if self._screen.begun else UNANSWERED, str(exc) + advice(exc)
        await self._output.write(self._screen.end(time.monotonic()))
        await self._messages.say(self._screen.summary())
        await self._messages.say(told)
        return status

    async def _once(self) -> int:
        screen, status = self._screen, ENDED
        async with fetch(self._options.url, check=False, **self._arguments) as response:
            if not 200 <= response.status < 300:
                to = response.headers.get("location") if response.status < 400 else None
                more = f", to {leads_to(self._options.url, to)}: a redirect is not followed" if to else ""
                await self._messages.say(f"{response.status} {response.reason}{more}")
                status = REFUSED
            await self._output.write(screen.head(response))
            await self._messages.say(screen.doubt)
            async for arrival in response.arrivals():
                for data in screen.arrival(arrival):
                    await self._output.write(data)
            screen.complete()
        return status

    async def _resumed(self) -> int:
        arguments = dict(self._arguments)
        last = [value for name, value in arguments["headers"] if name.lower() == "last-event-id"]
        arguments["headers"] = [pair for pair in arguments["headers"] if pair[0].lower() != "last-event-id"]
        arguments["last_event_id"] = last[-1].encode("latin-1").decode("utf-8", "replace") if last else ""
        began = time.monotonic()
        async with events(self._options.url, backoff=_Telling(tell=self._messages.offer), **arguments) as stream:
            async for event in stream:
                for data in self._screen.event(event, began, time.monotonic()):
                    await self._output.write(data)
        return ENDED


@dataclass(frozen=True, kw_only=True)
class _Telling(Backoff):
    """The usual times to wait, of which the user is told."""

    tell: Callable[[str], None]

    def delay(self, first: float, failures: int) -> float:
        delay = super().delay(first, failures)
        self.tell(f"{f'no answer ({failures})' if failures else 'the connection ended'}: again in {duration(delay)}")
        return delay
