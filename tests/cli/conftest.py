"""An application in a folder of its own, whose runs this process drives as tests/flows do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
from ptys import on_terminal

sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

from durable import Durable, registry

YARD = '''
import asyncio
import threading
from celery import Celery
from durable import Durable, continue_as_new, create_hook, create_webhook, emit, publish, sleep, step, workflow

celery = Celery("yard", broker="memory://")
engine = Durable(celery, public_url="https://yard.example")
tries = []

class Broken(Exception):
    """What the crane says."""

@step(name="yard.lift", max_retries=2, retry_backoff=0.001, retry_jitter=False)
def lift(crate: str) -> str:
    tries.append(crate)
    if len(tries) < 3:
        raise Broken(f"no grip on {crate}")
    return crate

@step(name="yard.weigh")
def weigh(crate: str) -> int:
    return 7

@workflow(name="yard.weighing")
async def weighing(crate: str) -> int:
    return await weigh(crate)

@workflow(name="yard.loading")
async def loading(crate: str) -> str:
    lifted = await lift(crate)
    await asyncio.gather(weigh(lifted), weighing(lifted))
    await asyncio.gather(sleep("1h"), create_webhook(), create_hook(token=crate))
    return lifted

@workflow(name="yard.hauling")
async def hauling(left: int) -> str:
    if left:
        continue_as_new(left - 1)
    return "hauled"

@workflow(name="yard.telling")
async def telling(crate: str) -> str:
    publish("crate", crate)
    publish("weight", {"kg": await weigh(crate)})
    await sleep("1h")
    return crate

@workflow(name="yard.scales")
async def scales(token: str) -> None:
    hook = create_hook(token=token)
    async for question in hook:
        if question.payload == "close":
            break
        question.reply({"kg": len(question.payload)})

@workflow(name="yard.counting")
async def counting(crate: str) -> None:
    for number in range(3):
        emit("lifts", {"crate": crate, "lift": number})
    await create_hook(token=f"count-{crate}")
    emit("lifts", "last")

@workflow(name="yard.nap")
async def nap(note: str = "") -> str:
    await sleep("1h")
    return note

@step(name="yard.drop", max_retries=1, retry_backoff=0.001, retry_jitter=False)
def drop(note: str) -> str:
    raise Broken(f"dropped {note}")

@workflow(name="yard.dropping")
async def dropping(note: str) -> str:
    return await drop(note)

@workflow(name="yard.broken")
async def broken(text: str) -> None:
    raise Broken(text)
'''


class Yard:
    """The application: its module, its folder, and the command."""

    def __init__(self, folder: Path, module: ModuleType, environment: dict[str, str]) -> None:
        self.folder = folder
        self.module = module
        self.environment = environment

    @property
    def engine(self) -> Durable:
        engine: Durable = self.module.engine
        return engine

    def durable(self, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The command as a process of its own, with pipes."""
        with self.started(*args, **environment) as process:
            out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def started(self, *args: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", "from durable.cli import main; main(prog_name='durable')", *args],
            cwd=self.folder,
            env={**os.environ, **self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def on_terminal(self, *args: str, columns: int = 100, lines: int = 30, **environment: str):
        return on_terminal(args, self.folder, {**self.environment, **environment}, columns=columns, lines=lines)

    def json(self, *args: str) -> Mapping[str, object]:
        found: Mapping[str, object] = json.loads(self.durable(*args, "--json").stdout)
        return found


@pytest.fixture(scope="module")
def yard(tmp_path_factory):
    """The application ``yard`` on an SQLite database, imported here too."""
    folder = tmp_path_factory.mktemp("yard")
    (folder / "yard.py").write_text(YARD)
    environment = {"DURABLE_APP": "yard", "DURABLE_DATABASE_URL": f"sqlite:///{folder}/durable.db"}
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(folder))
        for name, value in environment.items():
            patched.setenv(name, value)
        import yard as module

        module.engine.migrate()
        yield Yard(folder, module, environment)
        module.engine.close()
    sys.modules.pop("yard")
    for definitions in (registry.workflows, registry.steps):
        for name in [name for name in definitions if name.startswith("yard.")]:
            del definitions[name]
