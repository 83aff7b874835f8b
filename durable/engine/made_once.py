"""``made_once``: a part that an engine makes at its first use, once, whichever threads ask for it at the same time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

T = TypeVar("T")


class made_once(Generic[T]):
    """
    Make what the method returns when the attribute is first read; other threads wait until it is made.

    The engine holds its lock ``making`` meanwhile.  All its parts share that lock, since a part may make another one.
    A child process gets a new lock: another thread may have made a part at the fork.  ``functools.cached_property`` has
    no lock from Python 3.12 on, and before that one which stays locked in such a child.

    The part is stored in the engine's ``__dict__``, so reading it takes no lock afterwards.  When it is removed there,
    the next read makes another one.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, engine: None, owner: type) -> made_once[T]: ...

    @overload
    def __get__(self, engine: object, owner: type) -> T: ...

    def __get__(self, engine: Any, owner: type) -> made_once[T] | T:
        if engine is None:
            return self
        made = engine.__dict__
        with engine.making:
            if self._name not in made:
                # The lock is reentrant, so what runs in this thread meanwhile, a greenlet too, may have made it.
                made.setdefault(self._name, self._make(engine))
            part: T = made[self._name]
            return part

    if TYPE_CHECKING:
        # There is none, so that the part in ``__dict__`` is found first; a test may still put another one there.
        def __set__(self, engine: object, part: T) -> None: ...
