"""Peers as processes, seen from the parent: started clean and on their cores, asked line by line, waited for."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import selectors
import subprocess
import tempfile

from . import environment
from .peers import Entry

ROOT = pathlib.Path(__file__).resolve().parent.parent


class PeerError(Exception):
    """A peer could not do what it was asked."""


class PeerUnsupported(PeerError):
    """A peer does not take part in this."""


class Process:
    """One variant of a peer on some cores.

    python: the interpreter with the peer in it. executor: for tinynet.
    """

    def __init__(self, entry: Entry, variant: str, cores: int, python: str, executor: str | None = None):
        self.entry, self.variant, self.cores, self.python, self.executor = entry, variant, cores, python, executor
        self.process: subprocess.Popen | None = None
        self.log = None

    def start(self, *more: str) -> None:
        command = [self.python, "-m", "bench.worker", self.entry.name, "--threads", str(self.cores)]
        command += ["--variant", self.variant, *more]
        if self.executor and self.entry.name == "tinynet":
            command += ["--executor", self.executor]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the process
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=environment.clean(dict(os.environ), self.cores, self.entry.variants.get(self.variant)),
            preexec_fn=environment.pinned(environment.cores(self.cores)),
        )  # fmt: skip

    def send(self, op: str, **request) -> None:
        if self.process is None or self.process.poll() is not None:
            self.close()
            self.start()
        with contextlib.suppress(BrokenPipeError):  # that it is gone shows itself at the answer
            self.process.stdin.write(json.dumps({"op": op, **request}) + "\n")
            self.process.stdin.flush()

    def receive(self, timeout: float) -> dict:
        """The answer to what was sent.

        Raises:
            PeerUnsupported: it does not take part. PeerError: it failed, died, or took too long and was ended.
        """
        answer = self.result(timeout)
        if "unsupported" in answer:
            raise PeerUnsupported(answer["unsupported"])
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer["ok"]

    def result(self, timeout: float) -> dict:
        """The next line that the process says, which it may say on its own."""
        with selectors.DefaultSelector() as waiting:
            waiting.register(self.process.stdout, selectors.EVENT_READ)
            if not waiting.select(timeout):
                self.close(now=True)
                raise PeerError(f"no answer within {timeout:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            raise PeerError(f"ended with status {status}: {self.last_words()}")
        return json.loads(line)

    def ask(self, op: str, timeout: float = 600, **request) -> dict:
        self.send(op, **request)
        return self.receive(timeout)

    def last_words(self) -> str:
        self.log.seek(0)
        lines = self.log.read().strip().splitlines()
        return lines[-1][:300] if lines else "no message"

    def quiet(self) -> None:
        """Until the threads of the process no longer run."""
        environment.still(lambda: (self.scheduled() or (None,))[0])

    def scheduled(self) -> tuple[float, float] | None:
        """(seconds on cores, seconds ready to run and waiting for a core) of all threads; None where the system does
        not say."""
        ran = waited = 0
        try:
            for file in pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):  # a thread that has ended since
                    times = file.read_text().split()
                    ran, waited = ran + int(times[0]), waited + int(times[1])
        except (OSError, IndexError, AttributeError):
            return None
        return (ran / 1e9, waited / 1e9) if ran else None

    def close(self, now: bool = False) -> None:
        if self.process is None:
            return
        with contextlib.suppress(OSError):
            self.process.stdin.close()  # the worker's loop ends with its input
        try:
            if now:
                self.process.kill()
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()
        self.process = None


def missing(entries, python: str) -> dict[str, str]:
    """name -> what this interpreter lacks, asked of itself: its packages are not the parent's."""
    code = "import json; from bench import peers; print(json.dumps({e.name: e.missing() for e in peers.PEERS}))"
    answer = subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    if answer.returncode:
        words = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        return {entry.name: f"an interpreter that runs ({words})" for entry in entries}
    found = json.loads(answer.stdout)
    return {entry.name: found[entry.name] for entry in entries if found[entry.name]}
