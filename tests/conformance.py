"""
What durable promises, statement by statement, and the tests that prove it.

A test says by its name which statements it proves: ``test_c44_…``,
``test_c67_c53_…``.  ``python tests/conformance.py`` writes the table of
docs/reference/conformance.md from these names.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reference" / "conformance.md"

#: Statements that durable makes and no test proves yet.
MISSING: set[int] = set()


@dataclass(frozen=True)
class Statement:
    """One promise.  ``differs`` says what durable does on purpose instead of what the SDK does."""

    number: int
    text: str
    differs: str = ""


S = Statement

GROUPS: dict[str, list[Statement]] = {
    "Programs and steps": [
        S(
            1,
            "Three adding steps give the right sum; the run shows its arguments, result, status and qualified name.",
        ),
        S(2, "Functions of one name in two modules are two workflows, or two steps."),
        S(3, "A step that only the workflow's module imports is known to the worker."),
        S(4, "Outside a workflow, calling a step calls the function."),
        S(
            5,
            "What becomes of a step that the worker does not know.",
            differs="it is not failed: a deploy may be in progress, so the message waits for a worker that knows it",
        ),
        S(
            6,
            "What becomes of a workflow that the worker does not know.",
            differs="the run is not failed: it waits for a worker that knows it, and says so",
        ),
        S(
            7,
            "A run's metadata is the same in it and in functions it calls; a step's is had in steps only, counts"
            " attempts from 1, and keeps the first one's start.",
        ),
        S(
            8,
            "Methods as steps, their instance going by value.",
            differs="there are no bound steps: an instance is an argument like any other",
        ),
        S(
            9,
            "Steps as arguments of steps and workflows.",
            differs="refused: functions are no values; pass a name and look it up",
        ),
        S(10, "A module that cannot be imported is a clear error in worker and client."),
        S(
            11,
            "The usual ways to read clock, randomness, network or files raise in a workflow; `now`, `random`, `uuid4`"
            " repeat on replay.",
        ),
        S(12, "An HTTP call in a step gives its JSON; its failure can be caught."),
        S(13, "Steps that were called and not awaited when the workflow ends are recorded before its end."),
    ],
    "Parallel and racing": [
        S(14, "`gather` gives results in the order of the calls."),
        S(15, "Of three, the fastest wins a race; the first success can be made to win over an earlier error."),
        S(16, "A long step against a short sleep: the sleep wins, and the other way round."),
        S(17, "Repeated races in one run return every result once."),
        S(18, "Ten parallel sleeps take as long as one."),
        S(19, "A hundred parallel steps run once each; batches come back in order."),
        S(20, "Steps and hooks in between each other give the same result on each replay."),
        S(21, "A pending sleep of a day holds up nothing beside it."),
    ],
    "Retries and errors": [
        S(
            22,
            "A step that fails twice succeeds at its third attempt, with one idempotency key; the default is four.",
        ),
        S(23, "`FatalError` means one attempt; `RetryableError(retry_after=…)` is the least delay of the next."),
        S(24, "`max_retries=0` means one attempt, whose error can be caught."),
        S(25, "When retries are spent, the error names the step, the attempts and the last message."),
        S(
            26,
            "An error keeps its message and its calls through functions, modules, `except`, and the run's own failure.",
        ),
        S(27, "An exception with causes keeps class, message and chain across every boundary."),
        S(28, "An exception whose arguments cannot cross still fails with a readable message."),
        S(29, "An argument or a result that cannot cross fails without retry, naming the path to it."),
        S(30, "Attempts count when they start: a step that always kills its worker fails in the end."),
        S(31, "Trouble with database or broker costs a step no attempt."),
        S(32, "No attempt starts before its `retry_after`, whatever was delivered early."),
    ],
    "Values": [
        S(33, "NUL, large and typed values make every hop unchanged."),
        S(
            34,
            "Classes with an encoding of their own.",
            differs="dataclasses, models, enums and named tuples need none",
        ),
        S(35, "Values go by copy: a step changes nothing of the workflow's."),
        S(36, "Functions, locks and files are refused, naming the path to them."),
        S(37, "A value encodes to the same text in every process; a ring is refused by its path."),
    ],
    "Sleep": [
        S(38, "A sleep takes at least its time, in every round of a loop."),
        S(39, "A moment that is past returns at once; long sleeps survive restarts, and never end early."),
        S(40, "`wake_up()` ends pending sleeps and says how many."),
        S(41, "A sleep in a background task still fires."),
        S(42, "A sleep that lost a race is gone, and slows nothing."),
        S(43, "Of two sleeps the one due first resumes the run."),
    ],
    "Hooks": [
        S(
            44,
            "Payloads by token arrive in order, the last ends the run; a wrong token is not found; the sender learns"
            " the run's id.",
        ),
        S(45, "Payloads that come before the workflow awaits them are queued in order, also beside a long sleep."),
        S(46, "A token is free when its run ends or its hook is closed; one run may open and close it in a loop."),
        S(47, "Awaiting a hook whose token is held raises an error that names the owner; the owner is not affected."),
        S(
            48,
            "`get_conflict()` is None for the owner, its id for others; a step before, after or beside it is not lost.",
        ),
        S(49, "A hook that is never resumed is a mutex; the loser may return the owner's result, or resume its hook."),
        S(50, "Resuming what is over, closed or unknown raises `HookNotFound`; a resume returns after its commit."),
        S(
            51,
            "A typed hook validates where it is resumed; what does not fit is refused by its fields, unrecorded.",
        ),
        S(
            52,
            "Closing twice is closing once; nobody hangs on a closed hook; what was queued before is still delivered.",
        ),
        S(
            53,
            "An awaiter that lost a race, timed out or was cancelled swallows no payload.",
            differs="upstream loses the payload to the awaiter that lost",
        ),
        S(54, "A fresh hook in each round of a loop can be resumed in every round."),
        S(
            55,
            "A hook's metadata can be read by its token.",
            differs="tokens are neither reserved beyond their run, nor taken over by force",
        ),
        S(56, "A turn commits its hooks before it sends its steps: an instant callback finds its hook."),
    ],
    "Webhooks": [
        S(
            57,
            "Three webhooks in one run: 202 by default, a given response, a step's response; requests as sent.",
        ),
        S(58, "An unknown token is 404, and so is that of a hook without a URL."),
        S(
            59,
            "`respond_with` in workflow code, and options that make no sense, are refused.",
            differs="options are refused where the webhook is created, not when a request comes",
        ),
        S(60, "`webhook.url` is the same on each replay, and after a move to another host."),
        S(61, "The three patterns: a ledger of payments, a callback against a deadline, a claim check."),
        S(62, "Leaving the loop stops listening: the next request is told so.", differs="upstream keeps the hook open"),
        S(
            63,
            "Methods, query strings, headers, bodies, and odd encodings of them arrive as they were sent.",
            differs="only POST delivers unless others are enabled; HEAD and OPTIONS never do",
        ),
        S(
            64,
            "Tokens of runs and webhooks that are over; two webhooks in one run; a URL given away; guessed tokens.",
            differs="what is over is 410, not 404",
        ),
        S(
            65,
            "Many requests at once have each its own answer, in the order of the log; those held at the end are told.",
        ),
        S(
            66,
            "Processes that die while a request is held, steps that answer late, twice or never; any shape.",
        ),
        S(
            67,
            "Races of a request and a sleep, also at the very deadline; repeated deliveries; signatures.",
            differs="deliveries are deduplicated, and signatures verified, where the webhook says how (dedupe, verify)",
        ),
        S(
            68,
            "Queue or database down, bodies too long or cut; what is acknowledged is stored whole.",
            differs="trouble of ours is 503, never a 4xx",
        ),
    ],
    "Runs": [
        S(69, "`get_run` does no I/O; a failed run's result raises with its cause, a cancelled one's `RunCancelled`."),
        S(70, "A start whose first write succeeded and was answered with an error runs once."),
        S(71, "The same id or idempotency key is the same run."),
        S(
            72,
            "Cancelling works from code and command line; what has ended stays as it is.",
            differs="the workflow sees `CancelledError` and may clean up; cancelling what has ended returns False",
        ),
        S(73, "Child runs return their results, talk back through hooks, and may recurse without using workers up."),
        S(74, "A `Run` crosses into steps and back."),
        S(75, "Attributes of a run: merged, overwritten, unset, within limits, kept when it fails."),
        S(76, "Streams of a run's output: in order, each item once."),
        S(77, "Limits of concurrency and rate by key: in order, keys apart, and no slot is lost by a crash."),
    ],
    "Cancelling work": [
        S(78, "Giving up a long step, or all of several, lets the workflow go on at once."),
        S(79, "A call that was given up stays so on replay."),
        S(80, "A hook may trigger it: the order is the log's."),
        S(81, "Giving up what has ended is nothing; what is given up before it starts never starts."),
        S(82, "A running step can see that it was given up, and ends without retries."),
        S(83, "A job across processes, ended by hand, by its time limit, or by its token."),
    ],
    "The log and the store": [
        S(84, "`seq` is dense from 1; logs are read in pages from both ends, without overlap."),
        S(85, "An unknown id is an error; a token has one owner, also when several runs ask for it at once."),
        S(86, "A run, step, wait or hook that is created twice at once is created once."),
        S(87, "No outcome comes before its operation or after its end; a retried step's next start counts one more."),
        S(
            88,
            "A run that is over takes nothing but the result of a step that ran.",
            differs="a step that was called and not awaited still runs after its run has completed, as 13 wants it",
        ),
        S(89, "A writer with a stale view is refused before anything is written."),
        S(90, "A log can be listed without payloads; runs are listed by name and by status."),
        S(91, "A run whose log grows beyond the limit fails with that reason."),
        S(92, "Nothing internal can be reached over HTTP."),
    ],
    "Replay": [
        S(
            93,
            "A log that the code no longer matches, or that contradicts itself, is told apart from a run's errors.",
            differs="the run is blocked until code comes that matches, and never fails for it",
        ),
        S(94, "Failed attempts are read over; time follows the log; no suspension can be caught by an author."),
        S(95, "Every prefix of a log leads to the decisions of then."),
        S(96, "Awaiters resume in the order of the log."),
        S(97, "A turn that finds nothing new writes nothing."),
    ],
    "Storms and restarts": [
        S(98, "Storms of steps, hooks, wake-ups and kills lose nothing and double nothing."),
        S(99, "Everything killed while a run sleeps or steps: it completes, not before its time."),
        S(100, "A second worker does not run what another one is running."),
        S(101, "Sequences, sleeps and fan-outs take no more messages than designed."),
        S(102, "What kills its workers again and again ends with the reason."),
    ],
    "Tools": [
        S(103, "Worker and web process say whether they are well, and their versions."),
        S(104, "The command line lists, filters, shows, starts and cancels, with JSON everywhere."),
        S(105, "Tests of workflows need no real time, no processes and no HTTP."),
        S(
            106,
            "A run tells whose fault it is that it does not complete.",
            differs="by its status: `failed` is the author's, or a limit's; `blocked` the code's; storage fails no run",
        ),
        S(107, "A trace given at the start reaches steps, payloads and children."),
    ],
}

STATEMENTS = {statement.number: statement for group in GROUPS.values() for statement in group}

HEAD = """\
# Conformance

What durable holds itself to, and the tests that prove it.  The statements come from the behaviour of the Workflow SDK
of Vercel, as its documentation and its test suites show it, in our words and our names.  Where durable differs on
purpose, the statement says so.

This page is made from the names of the tests: `python tests/conformance.py`.
"""


def tests() -> dict[int, list[tuple[str, str]]]:
    """The tests of each statement: file, below the repository, and name."""
    found: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for name in _functions(path):
            cited = re.match(r"test((?:_c\d+)+)_", name)
            for number in re.findall(r"\d+", cited[1]) if cited else ():
                found[int(number)].append((path.relative_to(TESTS.parent).as_posix(), name))
    return found


def _functions(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


def page() -> str:
    """docs/reference/conformance.md as it should be."""
    proofs = tests()
    sections = [HEAD]
    for title, group in GROUPS.items():
        rows = [f"| {each.number} | {_said(each)} | {_proved(each, proofs)} |" for each in group]
        sections.append("\n".join([f"## {title}\n", "| | statement | tests |", "|---|---|---|", *rows]) + "\n")
    return "\n".join(sections)


def _said(statement: Statement) -> str:
    differs = f"  *On purpose: {statement.differs}.*" if statement.differs else ""
    return statement.text + differs


def _proved(statement: Statement, proofs: dict[int, list[tuple[str, str]]]) -> str:
    return "<br>".join(f"`{path}::{name}`" for path, name in proofs.get(statement.number, ())) or "missing"


if __name__ == "__main__":
    PAGE.write_text(page())
