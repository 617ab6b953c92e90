"""``tinynet report``: a run, or two side by side, as one HTML page."""

from __future__ import annotations

from tinynet.resources import recording
from tinynet.resources.report import write_report


def add_parser(commands) -> None:
    parser = commands.add_parser("report", help="write a run, or two side by side, as one HTML page")
    parser.add_argument("run_folder", metavar="RUN", help="folder that 'train' wrote")
    parser.add_argument("other", metavar="OTHER", nargs="?", help="another run, to be set beside it")
    parser.add_argument("-o", "--out", metavar="FILE", help="where to write; by default report.html in RUN")
    parser.set_defaults(run=_report)


def _report(args) -> None:
    for folder in filter(None, (args.run_folder, args.other)):
        recording.complete(folder)
    print(f"report in {write_report(args.run_folder, args.other, args.out)}")
