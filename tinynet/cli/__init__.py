"""``python -m tinynet``: the commands, and how they speak of errors.

train      trains a network on a data set and writes the run into a folder
resume     goes on with a run that was interrupted
predict    applies a run's model to a file
plan       says what a training step will take, before there is memory for it
report     writes a run, or two side by side, as one HTML page
doctor     says what the machine and the installation can do, and what slows them down
"""

from __future__ import annotations

import argparse
import os
import sys

from tinynet.errors import TinynetError


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 1 for an error, 2 for a wrong command line, 130 for Ctrl-C."""
    from . import doctor, plan, predict, report, train

    parser = argparse.ArgumentParser(prog="tinynet", description="Dense networks, small enough to read in a weekend.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train.add_parsers(commands)
    predict.add_parser(commands)
    plan.add_parser(commands)
    report.add_parser(commands)
    doctor.add_parser(commands)
    args = parser.parse_args(argv)
    try:
        args.run(args)
        sys.stdout.flush()
        return 0
    except TinynetError as error:
        print(f"tinynet {args.command}: {error}", file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            print(f"  {note}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output has left: head, say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"tinynet {args.command}: {error.strerror or error}: {error.filename}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\ntinynet {args.command}: interrupted", file=sys.stderr)
        return 130
