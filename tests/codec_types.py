"""Classes that the codec's tests carry: of a module, since no other class can be."""

import enum
import threading
from collections import namedtuple
from dataclasses import KW_ONLY, InitVar, dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel
from pydantic.dataclasses import dataclass as pydantic_dataclass

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"
    ODD = object()


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Name(enum.StrEnum):
    A = "a"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: int = 0


Pair = namedtuple("Pair", "left right")


@dataclass
class Order:
    id: str
    items: list[Any] = field(default_factory=list)
    total: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Frozen:
    x: Any
    _: KW_ONLY
    y: int = 2


@dataclass
class Derived:
    """Has what ``__init__`` would get wrong: a counted field, a parameter that is no field, a cached property."""

    base: int
    factor: InitVar[int]
    product: int = field(init=False)
    unset: int = field(init=False)

    def __post_init__(self, factor):
        self.product = self.base * factor

    @cached_property
    def lock(self):
        return threading.Lock()


@dataclass
class Hidden:
    x: int

    def __post_init__(self):
        self.more = 1


@dataclass
class DictClass(dict):
    x: int = 0


@pydantic_dataclass
class Checked:
    x: int


class Model(BaseModel):
    id: int
    at: datetime | None = None
    tags: list[str] = Field(default_factory=list, alias="t")
    _hits: int = PrivateAttr(default=0)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)


class Keyed(BaseModel):
    _key: Any = PrivateAttr()


class Open(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    id: int


class Numbers(RootModel[list[int]]):
    pass


class Box(BaseModel, Generic[T]):
    inner: T


class Outer:
    @dataclass
    class Inner:
        x: int = 1


class Declined(Exception):
    """An author's error whose ``args`` are not what its ``__init__`` takes."""

    def __init__(self, order, *, code):
        super().__init__(f"order {order} was declined")
        self.order = order
        self.code = code


@dataclass
class Timeout(Exception):
    seconds: int = 5


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Holder:
    """Neither a dataclass nor anything else that can be carried."""

    def __repr__(self):
        return "<Holder>"


def local():
    """An instance of a class that no other process can find."""

    @dataclass
    class Local:
        x: int = 1

    return Local()
