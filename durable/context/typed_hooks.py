"""TODO"""

from __future__ import annotations

from typing import Any, Generic, overload

from pydantic import ValidationError

from .. import codec, current
from ..errors import ConfigurationError, HookPayloadError, SerializationError
from ..replay import Hook
from ..sandbox import guards
from .workflow import T, _here

#: The kinds of hooks that this process knows, by name: ``resume_hook`` validates by them.
definitions: dict[str, HookDefinition[Any]] = {}


class HookDefinition(Generic[T]):
    """A kind of hook whose payloads have a type.  ``name`` is part of what a replay compares."""

    def __init__(self, payload_type: type[T] | Any, name: str | None) -> None:
        self.type = payload_type
        self.name = _type_name(payload_type) if name is None else name

    def create(self, token: str | None = None, metadata: object = None) -> Hook[T]:
        """Listen for payloads of this type; see ``create_hook``."""
        context = _here(f"{self.name}.create")
        return context.open_hook(Hook, self.name, token, metadata, payload_type=self.type)

    def resume(self, token: str, payload: Any) -> Any:
        """
        Send *payload* to the hook that holds *token*, once it fits the type.

        Returns:
            The Run that was resumed.

        Raises:
            HookPayloadError: It does not fit; nothing is recorded.
            HookNotFound: No open hook has this token.
        """
        guards.refuse_in_workflow(f"{self.name}.resume")
        valid = self.validate(token, payload)
        return current.current_engine().resume_hook(token, valid)

    def validate(self, token: str, payload: Any) -> T:
        """*payload* as pydantic makes it fit the type; HookPayloadError."""
        try:
            return codec.fit(payload, self.type, "payload")  # type: ignore[no-any-return]
        except SerializationError as error:
            cause = error.__cause__
            hides = codec.holds_secret(self.type)
            found: Any = (
                cause.errors(include_input=not hides, include_context=not hides)
                if isinstance(cause, ValidationError)
                else [{"msg": error.reason}]
            )
            raise HookPayloadError(token, found) from cause


@overload
def define_hook(payload_type: type[T], name: str | None = None) -> HookDefinition[T]: ...


@overload
def define_hook(payload_type: Any, name: str | None = None) -> HookDefinition[Any]: ...


def define_hook(payload_type: Any, name: str | None = None) -> HookDefinition[Any]:
    """
    A hook whose payloads are of *payload_type*: anything that pydantic validates.

    Args:
        name: 1 to 255 characters.  Keep it when the type moves; by default the type's ``module.qualname``.

    Raises:
        ConfigurationError: A type that nothing checks, a name that is none, or one that another type has.
    """
    if not codec.is_checked(payload_type):
        raise ConfigurationError(
            f"define_hook({payload_type!r}): pydantic cannot check payloads against this type, so that anything would"
            " pass.  Use a dataclass, a TypedDict, a pydantic model or a builtin type, or create_hook for any payload."
        )
    defined: HookDefinition[Any] = HookDefinition(payload_type, name)
    _check_name(defined)
    definitions[defined.name] = defined
    return defined


def _type_name(payload_type: Any) -> str:
    if isinstance(payload_type, type):
        return f"{payload_type.__module__}.{payload_type.__qualname__}"
    return str(payload_type)


def _check_name(defined: HookDefinition[Any]) -> None:
    """The name goes into the store, and each replay compares it: it has to be the same in every process."""
    name, before = defined.name, definitions.get(defined.name)
    if not isinstance(name, str) or not 1 <= len(name) <= 255 or name in ("hook", "webhook"):
        problem = "is not 1 to 255 characters, or is that of hooks without a type"
    elif " at 0x" in name:
        problem = "holds an address, and would be another in each process"
    elif before is not None and _type_name(before.type) != _type_name(defined.type):
        problem = f"is that of {before.type!r}"
    else:
        return
    raise ConfigurationError(
        f"define_hook({defined.type!r}): the name {name!r} {problem}.  Give it another with name=..."
    )
