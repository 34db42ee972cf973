"""`python -m benchmarks`."""

import os
import signal
import sys


def run() -> int:
    """Run the command line; gives the exit status. What ends it from outside leaves no server behind.

    A SIGTERM, and a SIGHUP that is not ignored (`nohup`), do what Ctrl-C does. It is one line at any moment, also while
    modules are imported, which takes a while.
    """
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:
            signal.signal(ending, signal.default_int_handler)
    try:
        from benchmarks.cli import main

        status = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("Interrupted before there was a result.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # nobody reads on, as in `| head`; what is still in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell says it of a program that SIGPIPE has ended
    return status


if __name__ == "__main__":
    sys.exit(run())
