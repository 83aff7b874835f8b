"""Classes that the codec's tests carry: of a module, since no other class can be."""

import enum
import threading
from collections import namedtuple
from dataclasses import KW_ONLY, InitVar, dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel, create_model
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

T = TypeVar("T")
U = TypeVar("U")


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


@dataclass
class Crate(Generic[T]):
    inner: T


@pydantic_dataclass
class CheckedCrate(Generic[T]):
    inner: T


class Duo(NamedTuple, Generic[T]):
    left: T


class NamedBox(Duo[T], Generic[T]):
    """Has a ``__dict__``, unlike the named tuple that it derives from."""


class Labelled(TypedDict, Generic[T]):
    label: T


class Failure(Exception, Generic[T]):
    pass


class Both(BaseModel, Generic[T, U]):
    left: T
    right: U


@dataclass(init=False)
class Moment(datetime):
    """A dataclass whose content is in no field."""


class Base:
    __slots__ = ("cache",)


@dataclass(slots=True)
class OnBase(Base):
    x: int = 1


@dataclass(unsafe_hash=True)
class Hashed:
    x: Any


class Fields(tuple):
    """Looks like a named tuple, and is none."""

    _fields = ("x",)
    _make = classmethod(tuple.__new__)


class Touchy(BaseModel):
    """Its ``__new__`` and ``__setstate__`` are not those that the codec needs."""

    x: int

    def __new__(cls, *args, **kwargs):
        if not kwargs:
            raise TypeError("x is missing")
        return super().__new__(cls)

    def __setstate__(self, state):
        raise TypeError("never")


Dollar = create_model("Dollar", __module__=__name__, **{"$": (int, 1)})


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


class Slotted(Exception):
    """Keeps its attributes in slots, one of them private, and shows them."""

    __slots__ = ("__secret", "code", "never_set")

    def __init__(self, message, *, code):
        super().__init__(message)
        self.code = code
        self.__secret = code + 1

    def __repr__(self):
        return f"Slotted({self.code}, {self.__secret})"


class MoreSlotted(Slotted):
    """Adds a slot, and has attributes beside it."""

    __slots__ = ("extra",)


class Keyless(Exception):
    """Has a slot that is not set, and looks up what it lacks in a dict."""

    __slots__ = ("code",)

    def __getattr__(self, name):
        return {}[name]


class Sealed(Exception):
    """Tells nobody how it is made."""

    def __reduce_ex__(self, protocol):
        raise TypeError("never")

    @property
    def __dict__(self):
        raise TypeError("never")


@dataclass(slots=True)
class SlottedTimeout(Exception):
    seconds: int
    why: Any = "late"


@dataclass(frozen=True)
class FrozenTimeout(Exception):
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenSlotted(Exception):
    seconds: int
    where: list[str] = field(default_factory=list)


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
