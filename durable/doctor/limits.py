"""Check the limits of steps: their numbers, their pauses, lines that do not move, and slots that nothing frees."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

from .. import duration, registry
from ..store import limit_faults
from ..store import limits as store_limits
from .finding import Finding, listed
from .situation import DAY, Situation

#: A step that waits for longer, while its limit has room, waits for nothing.
STUCK = 60_000_000
#: A pause that ends later than this is likely to be a mistake.
LONG_PAUSE = DAY // 24


def limits(situation: Situation) -> Finding:
    """Limits have the same numbers everywhere, are declared, move, and are not paused for long."""
    declared = _declared(situation)
    problems = [
        *_different(declared),
        *_undeclared(situation, declared),
        *(fault for state in situation.limit_keys for fault in _faults(state, situation.now)),
    ]
    if not problems:
        return Finding(name="limits", ok=True, detail="no limit of steps has a problem")
    details, fixes = zip(*problems, strict=True)
    return Finding(name="limits", ok=False, detail=listed(details, "; ") + ".", fix="  ".join(dict.fromkeys(fixes)))


def slots(situation: Situation) -> Finding:
    """Each slot is held by an attempt that is sent or runs, and each attempt that runs has its slots."""
    if not situation.wrong_slots:
        return Finding(name="slots", ok=True, detail="no slot of a limit is lost")
    shown = [f"{wrong.op_id} of run {wrong.run_id} {wrong.what} ({wrong.name})" for wrong in situation.wrong_slots]
    return Finding(
        name="slots",
        ok=False,
        detail=f"Slots of limits do not fit their attempts: {listed(shown, '; ')}.",
        fix="This is a fault in durable: please report it, with the output of `durable runs show ID --json`."
        "  `durable runs cancel ID` frees the slots of a run.",
    )


def _declared(situation: Situation) -> dict[str, Counter[store_limits.Numbers]]:
    """By limit: its numbers, and how many processes declare each; this one is one of them."""
    found: dict[str, Counter[store_limits.Numbers]] = defaultdict(Counter)
    own = {name: limit.numbers for name, limit in registry.limits.items()}
    for numbers in [own, *(json.loads(worker.limits or "{}") for worker in situation.alive)]:
        for name, each in numbers.items():
            found[name][store_limits.Numbers(*each)] += 1
    return found


def _different(declared: dict[str, Counter[store_limits.Numbers]]) -> list[tuple[str, str]]:
    return [
        (
            f"{name} is {' and '.join(f'{_number(each)} in {_processes(n)}' for each, n in numbers.most_common())}",
            "A number that differs between processes is the one that was declared last: finish the deploy.",
        )
        for name, numbers in sorted(declared.items())
        if len(numbers) > 1
    ]


def _undeclared(situation: Situation, declared: dict[str, Counter[store_limits.Numbers]]) -> list[tuple[str, str]]:
    # A worker of an older version does not say which limits it declares.
    if any(worker.limits is None for worker in situation.alive):
        return []
    return [
        (
            f"{name} is set to {n}, and no code declares it any more",
            "If the limit has a new name, set its number again: `durable limits set NAME N`.  `durable limits set OLD"
            " default` removes the old number.",
        )
        for name, n in situation.set_limits.items()
        if name not in declared
    ]


def _faults(state: limit_faults.KeyState, now: int) -> list[tuple[str, str]]:
    what = f"{state.name} (key {state.key})" if state.key else state.name
    if state.paused_until is not None and state.paused_until > now:
        if state.paused_until - now <= LONG_PAUSE:
            return []
        return [
            (
                f"{what} is paused until {duration.iso(state.paused_until)}",
                "Correct `retry_after` of the RetryableError with `pause=`, if the service has not asked for so long."
                "  `durable limits resume NAME` ends a pause.",
            )
        ]
    waits = 0 if state.waits_since is None else now - state.waits_since
    if waits <= STUCK or not state.room or state.is_left:
        return []
    return [
        (
            f"steps wait for {what} since {duration.iso(state.waits_since)}, and it has room for {state.room}",
            "A live worker admits them within a few seconds: see the check `workers`, and the logs of the workers.",
        )
    ]


def _number(numbers: store_limits.Numbers) -> str:
    n, per, burst = numbers
    return f"{n}" if per is None else f"{n} per {duration.to_text(per)} (burst {burst})"


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"
