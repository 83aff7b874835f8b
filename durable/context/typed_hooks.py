"""``define_hook``: hooks whose payloads pydantic validates."""

from __future__ import annotations

from typing import Any, Generic, overload

from .. import codec, current
from ..errors import ConfigurationError, HookPayloadError, SerializationError
from ..replay import Hook
from ..sandbox import guards
from .workflow import T, run_context

#: The typed hooks of this process, by name.  ``resume_hook`` validates payloads with them.
definitions: dict[str, HookDefinition[Any]] = {}


class HookDefinition(Generic[T]):
    """A hook whose payloads have a type.  A replay compares the ``name``."""

    def __init__(self, payload_type: type[T] | Any, name: str | None) -> None:
        self.type = payload_type
        self.name = _type_name(payload_type) if name is None else name

    def create(self, token: str | None = None, metadata: object = None, *, name: str | None = None) -> Hook[T]:
        """Open a hook for payloads of this type; see ``create_hook``."""
        context = run_context(f"{self.name}.create")
        return context.open_hook(Hook, self.name, token, metadata, label=name, payload_type=self.type)

    def resume(self, token: str, payload: Any, *, wait: Any = None, wait_taken: Any = None) -> Any:
        """
        Validate *payload* and send it to the hook with this token; *wait* and *wait_taken* are ``resume_hook``'s.

        Returns:
            The Run that was resumed.

        Raises:
            HookPayloadError: The payload does not fit the type.  Nothing is recorded.
            HookNotFound: No open hook has this token.
        """
        guards.refuse_in_workflow(f"{self.name}.resume")
        valid = self.validate(token, payload)
        return current.current_engine().resume_hook(token, valid, wait, wait_taken)

    async def aresume(self, token: str, payload: Any, *, wait: Any = None, wait_taken: Any = None) -> Any:
        """Do the same as ``resume`` in an event loop."""
        guards.refuse_in_workflow(f"{self.name}.aresume")
        valid = self.validate(token, payload)
        return await current.current_engine().aresume_hook(token, valid, wait, wait_taken)

    def validate(self, token: str, payload: Any) -> T:
        """*payload*, converted to the type by pydantic.  Raises HookPayloadError."""
        try:
            return codec.fit(payload, self.type, "payload")  # type: ignore[no-any-return]
        except SerializationError as error:
            from pydantic import ValidationError

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
    Define a hook whose payloads are of *payload_type*, any type that pydantic validates.

    Args:
        name: 1 to 255 characters, by default the type's ``module.qualname``.  Set it to the old name when
            you move the type.

    Raises:
        ConfigurationError: pydantic cannot validate the type, the name is invalid, or another type has it.
    """
    if not codec.is_checked(payload_type):
        raise ConfigurationError(
            f"define_hook({payload_type!r}): pydantic cannot check payloads against this type, so any payload would"
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
    """Refuse a name that is not the same in every process, since it is stored and each replay compares it."""
    name, before = defined.name, definitions.get(defined.name)
    if not isinstance(name, str) or not 1 <= len(name) <= 255 or name in ("hook", "webhook"):
        problem = "does not have 1 to 255 characters, or is reserved for hooks without a type"
    elif " at 0x" in name:
        problem = "contains a memory address, which differs in each process"
    elif before is not None and _type_name(before.type) != _type_name(defined.type):
        problem = f"belongs to {before.type!r}"
    else:
        return
    raise ConfigurationError(
        f"define_hook({defined.type!r}): the name {name!r} {problem}.  Give it another name with name=..."
    )
