#!/usr/bin/env python3
"""Tells which mutants of the modules that keep data no test catches.

    tools/mutants.py [--work DIR] [--jobs N] [--units] [MODULE...]

A copy of the crate is made in which all mutants are compiled at once (tools/mutants), and MUTANT=ID chooses one. Each
test is run once to see which mutants it reaches; then each mutant is run with the tests that reach it, fastest first,
until one fails: the unit tests, then the suites. A mutant under which a test hangs is caught too. DIR/results.json
tells which were caught; a later call runs those that were not. DIR/dropped-*.json, which tells what slow tests reach,
is to be deleted where one of them was changed.

Run by root, the tests are run by `nobody`: a mutant may write to any path that a hostile name holds.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coverage import MODULES as COVERED

ROOT = Path(__file__).resolve().parent.parent
MODULES = [*COVERED, "store/object_file"]
SUITES = [
    "errors",
    "golden",
    "golden_payloads",
    "hostile_files",
    "forged",
    "bombs",
    "damage",
    "cli",
    "config",
    "operations",
    "upkeep",
    "sources",
    "versions",
    "round_trips",
    "write_order",
    "determinism",
    "faults",
    "adapters",
    "beside",
    "job",
]
# The tests of a mutant are run in groups, of which each takes about so many times as long as the one before.
GROWTH = 4
NOBODY = 65534
# Seconds after which a test is left out: it is not worth running for each mutant.
LONGEST = 60
# Seconds of a test whose trace is not kept from call to call.
QUICK = 1
# What a mutant may take of the machine, in bytes.
LIMITS = ["prlimit", f"--as={6 << 30}", f"--fsize={1 << 30}", "--core=0"]


@dataclass(frozen=True)
class Mutant:
    """One line that tools/mutants prints."""

    id: int
    file: str
    place: str
    function: str
    what: str

    @property
    def key(self) -> str:
        """What the mutant is called in results."""
        return f"{self.file}:{self.place}: {self.what} in {self.function}"

    @property
    def module(self) -> str:
        """The module it is in."""
        return next(module for module in MODULES if self.file in files_of(module))


@dataclass
class Test:
    """A test of one of the programs."""

    suite: str
    name: str
    seconds: float = 0
    passed: bool = False
    reached: list[int] = field(default_factory=list)


def files_of(module: str) -> list[str]:
    """Returns the source files of a module, without those that only hold tests."""
    paths = [ROOT / f"src/{module}.rs", *sorted((ROOT / "src" / module).glob("**/*.rs"))]
    return [str(path.relative_to(ROOT)) for path in paths if path.is_file() and path.name != "tests.rs"]


class Copy:
    """The copy of the crate, in which every mutant is compiled."""

    def __init__(self, work: Path, files: list[str]) -> None:
        self.crate = work / "crate"
        self.target = work / "target"
        self.files = files
        code = "".join((ROOT / file).read_text().split("\n#[cfg(test)]")[0] for file in files)
        self.dropped = work / f"dropped-{hashlib.sha256(code.encode()).hexdigest()[:16]}.txt"
        self.environment = {
            **os.environ,
            "CARGO_TARGET_DIR": str(self.target),
            "CARGO_PROFILE_DEV_OPT_LEVEL": "1",
            "CARGO_PROFILE_DEV_DEBUG": "0",
            "RUSTFLAGS": "--cap-lints allow",
        }

    def make(self) -> list[Mutant]:
        """Writes the copy and returns its mutants, without those that do not compile."""
        self.crate.mkdir(parents=True, exist_ok=True)
        self.dropped.touch()
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        written = {*self.files, "src/lib.rs"}
        for name in listed.split("\0"):
            source, target = ROOT / name, self.crate / name
            if name and name not in written and source.is_file() and not same(source, target):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
        while True:
            mutants = self.rewrite()
            bad = self.errors()
            if not bad:
                return mutants
            with self.dropped.open("a") as file:
                file.writelines(f"{number}\n" for number in sorted(bad))
            print(f"{len(bad)} mutants do not compile", flush=True)

    def rewrite(self) -> list[Mutant]:
        """Has the mutants written into the copy."""
        for file in self.files:
            (self.crate / file).parent.mkdir(parents=True, exist_ok=True)
        tool = ["cargo", "run", "--quiet", "--locked", "--manifest-path", ROOT / "tools/mutants/Cargo.toml", "--"]
        command = [*tool, ROOT, self.crate, self.dropped, *self.files]
        environment = {**os.environ, "CARGO_TARGET_DIR": str(self.target / "tool")}
        run = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        rows = [line.split("\t") for line in run.stdout.splitlines()]
        return [
            Mutant(int(number), file, f"{row}:{column}", function, what)
            for number, file, row, column, function, what in rows
        ]

    def errors(self) -> set[int]:
        """Compiles the copy; returns the mutants that the compiler's errors lie in."""
        found: set[int] = set()
        for message in self.cargo("check", "--lib"):
            if message.get("reason") != "compiler-message" or message["message"]["level"] != "error":
                continue
            spans = [span for span in message["message"]["spans"] if span["is_primary"]]
            ids = {number for span in spans for number in self.around(span)}
            if spans and not ids:
                raise SystemExit(f"not due to a mutant:\n{message['message']['rendered']}")
            found |= ids
        return found

    def around(self, span: dict[str, Any]) -> list[int]:
        """Returns the mutants of the innermost marks around a place, of which there may be none."""
        text = (self.crate / span["file_name"]).read_bytes()[: span["byte_start"]]
        marks: list[list[int]] = []
        for mark in re.finditer(rb"/\*\[([0-9 ]+)\*/|/\*\]\*/", text):
            if mark[1] is None:
                marks.pop()
            else:
                marks.append([int(number) for number in mark[1].split()])
        return marks[-1] if marks else []

    def programs(self, suites: list[str]) -> dict[str, Path]:
        """Builds tests; returns the program of each suite, where `lib` is that of the unit tests."""
        chosen = [argument for suite in suites for argument in (["--lib"] if suite == "lib" else ["--test", suite])]
        found: dict[str, Path] = {}
        for message in self.cargo("test", "--no-run", *chosen):
            if message.get("reason") == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
                is_lib = "lib" in message["target"]["kind"]
                found["lib" if is_lib else message["target"]["name"]] = Path(message["executable"])
        missing = set(suites) - set(found)
        if missing:
            raise SystemExit(f"do not compile: {', '.join(sorted(missing))}")
        return found

    def cargo(self, *arguments: str) -> list[dict[str, Any]]:
        """Runs cargo in the copy; returns its messages."""
        command = ["cargo", *arguments, "--locked", "--message-format=json"]
        run = subprocess.run(command, cwd=self.crate, env=self.environment, stdout=subprocess.PIPE, check=False)
        return [json.loads(line) for line in run.stdout.splitlines() if line.startswith(b"{")]


def same(a: Path, b: Path) -> bool:
    """Tells whether two files are equal; the second may be missing."""
    return b.is_file() and a.read_bytes() == b.read_bytes()


class Runner:
    """Runs tests of the copy, each run with a directory of its own for temporary files."""

    def __init__(self, work: Path, copy: Copy, programs: dict[str, Path], jobs: int) -> None:
        self.work, self.copy, self.programs, self.jobs = work, copy, programs, jobs
        self.as_nobody = os.geteuid() == 0
        (copy.target / "tmp").mkdir(exist_ok=True)
        (copy.target / "tmp").chmod(0o777)

    def names(self, suite: str) -> list[str]:
        """Returns the names of a suite's tests."""
        command = [self.programs[suite], "--list", "--format", "terse"]
        listed = subprocess.run(command, cwd=self.copy.crate, check=True, capture_output=True, text=True).stdout
        return [line.removesuffix(": test") for line in listed.splitlines() if line.endswith(": test")]

    def passes(self, suite: str, names: list[str], environment: dict[str, str], limit: float) -> bool:
        """Tells whether tests pass within so many seconds; stops at the first that does not."""
        directory = tempfile.mkdtemp(prefix="run-", dir=self.work)
        Path(directory).chmod(0o777)
        nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if self.as_nobody else {}
        process = subprocess.Popen(
            [*LIMITS, self.programs[suite], "--test-threads", "1", "--exact", *names],
            cwd=self.copy.crate,
            env={**os.environ, **environment, "TMPDIR": directory, "RUST_BACKTRACE": "0", "PROPTEST_CASES": "32"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,
            **nobody,
        )
        timer = threading.Timer(limit, kill, [process.pid])
        timer.start()
        try:
            failed = any(line.endswith("FAILED\n") for line in process.stdout or ())
            kill(process.pid)
            return process.wait() == 0 and not failed
        finally:
            timer.cancel()
            shutil.rmtree(directory, ignore_errors=True)

    def trace(self, test: Test) -> Test:
        """Runs a test without a mutant, and notes how long it takes and which mutants it reaches."""
        with tempfile.NamedTemporaryFile(dir=self.work) as file:
            Path(file.name).chmod(0o666)
            start = time.monotonic()
            test.passed = self.passes(test.suite, [test.name], {"MUTANT_TRACE": file.name}, LONGEST)
            test.seconds = time.monotonic() - start
            test.reached = sorted({int(line) for line in Path(file.name).read_text().split()})
        return test

    def catches(self, mutant: Mutant, tests: list[Test]) -> str | None:
        """Runs a mutant with tests, in order; returns the suite that caught it, if one did."""
        size = 2.0
        while tests:
            group, tests, size = *take(tests, size), size * GROWTH
            for suite in dict.fromkeys(test.suite for test in group):
                chosen = [test for test in group if test.suite == suite]
                limit = 20 + 10 * sum(test.seconds for test in chosen)
                if not self.passes(suite, [test.name for test in chosen], {"MUTANT": str(mutant.id)}, limit):
                    return suite
        return None


def take(tests: list[Test], seconds: float) -> tuple[list[Test], list[Test]]:
    """Takes at least one test, and as many as take so many seconds together."""
    count = 1
    while count < len(tests) and sum(test.seconds for test in tests[: count + 1]) <= seconds:
        count += 1
    return tests[:count], tests[count:]


def kill(group: int) -> None:
    """Ends a test and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def traces(runner: Runner, path: Path) -> list[Test]:
    """Runs every test that is quick, or of which there is no trace yet; returns all that reach a mutant."""
    kept = {(row["suite"], row["name"]): Test(**row) for row in (json.loads(path.read_text()) if path.exists() else [])}
    tests = [kept.get((suite, name)) or Test(suite, name) for suite in runner.programs for name in runner.names(suite)]
    new = [test for test in tests if test.seconds < QUICK]
    with ThreadPoolExecutor(runner.jobs) as pool:
        for number, test in enumerate(pool.map(runner.trace, new), 1):
            print(f"\r{number} of {len(new)} tests traced", end="", flush=True)
            if not test.passed:
                print(f"\nleft out, for it fails or takes too long without a mutant: {test.suite} {test.name}")
            if number % 50 == 0 or number == len(new):
                path.write_text(json.dumps([vars(test) for test in tests if test.seconds]))
    print()
    return [test for test in tests if test.passed and test.reached]


class Results:
    """What became of each mutant, kept in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        self.lock = threading.Lock()

    def add(self, mutant: Mutant, suite: str | None, is_reached: bool) -> None:
        """Notes which suite caught a mutant; one that unit tests reach and suites do not is missed all the same."""
        with self.lock:
            missed = "missed" if is_reached or self.found.get(mutant.key) == "missed" else "not reached"
            self.found[mutant.key] = suite or missed
            written = self.path.with_suffix(".new")
            written.write_text(json.dumps(self.found, indent=1))
            written.replace(self.path)

    def is_caught(self, mutant: Mutant) -> bool:
        """Tells whether a test caught the mutant."""
        return self.found.get(mutant.key, "missed") not in ("missed", "not reached")

    def report(self, mutants: Iterable[Mutant]) -> None:
        """Prints the mutants that no test catches, and a line for each module."""
        sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for mutant in mutants:
            sums[mutant.module][0] += 1
            if not self.is_caught(mutant):
                sums[mutant.module][1] += 1
                print(f"{self.found.get(mutant.key)}: {mutant.key}")
        sums["all"] = [sum(column) for column in zip(*sums.values(), strict=True)]
        for module, (count, missed) in sums.items():
            print(f"{module:18} {count:5} mutants  {missed:4} missed  {100 * missed / count:5.1f} %")


def run_all(runner: Runner, mutants: list[Mutant], tests: list[Test], results: Results) -> None:
    """Runs mutants with the tests that reach them."""
    reaching: dict[int, list[Test]] = defaultdict(list)
    for test in sorted(tests, key=lambda test: test.seconds):
        for number in test.reached:
            reaching[number].append(test)

    def one(mutant: Mutant) -> None:
        chosen = reaching[mutant.id]
        results.add(mutant, runner.catches(mutant, chosen), bool(chosen))

    with ThreadPoolExecutor(runner.jobs) as pool:
        each = [pool.submit(one, mutant) for mutant in mutants]
        for number, done in enumerate(as_completed(each), 1):
            done.result()
            print(f"\r{number} of {len(mutants)} mutants", end="", flush=True)
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--work", type=Path, default=ROOT / "target/mutants", help="where the copy is, and what is kept"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many tests are run at a time")
    parser.add_argument("--units", action="store_true", help="run the unit tests alone")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="all that keep data, if none is named")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    copy = Copy(work, [file for module in MODULES for file in files_of(module)])
    mutants = [mutant for mutant in copy.make() if mutant.module in (arguments.modules or MODULES)]
    results = Results(work / "results.json")
    for suites in [["lib"]] if arguments.units else [["lib"], SUITES]:
        runner = Runner(work, copy, copy.programs(suites), arguments.jobs)
        tests = traces(runner, copy.dropped.with_suffix(f".{suites[0]}.json"))
        run_all(runner, [mutant for mutant in mutants if not results.is_caught(mutant)], tests, results)
    results.report(mutants)


if __name__ == "__main__":
    main()
