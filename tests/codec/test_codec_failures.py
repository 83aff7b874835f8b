"""Exceptions cross with class, arguments, attributes, chain and notes; writing one never fails."""

import asyncio
import io
import json
import threading
from email.message import Message
from urllib.error import HTTPError

import codec_types as types
import pytest

from durable import FatalError, HookConflict, Request, RetryableError, StepFailed, codec
from durable.codec.encoder import MAX_SIZE


def crossed(error):
    return codec.decode_error(codec.encode_error(error))


def raised(error, cause=None):
    """*error* with a traceback, and perhaps a cause."""
    try:
        raise error from cause
    except type(error) as caught:
        return caught


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a", 1, (2, b"x")),
        ValueError(),
        KeyError("k"),
        OSError(2, "gone", "file.txt"),
        ConnectionResetError(104, "reset"),
        ImportError("no", name="mod", path="p"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        SyntaxError("bad", ("f.py", 1, 2, "x x")),
        StopIteration(3),
        json.JSONDecodeError("bad", "doc", 1),
        TimeoutError("late"),
        FatalError("never"),
        RetryableError("later", retry_after="10s"),
        HookConflict("t", "r"),
        types.Declined("o1", code=7),
        types.Timeout(9),
        types.Timeout(seconds=9),
        StepFailed("X", "m", "tb", 3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_c27_an_exception_keeps_class_arguments_and_attributes(error):
    """Builtin ones, ours, and an author's whose ``__init__`` takes something else than ``args``."""
    value = crossed(error)
    inner = {name: item for name, item in vars(value).items() if name != "__durable_traceback__"}

    assert type(value) is type(error)
    assert (value.args, str(value), inner) == (error.args, str(error), vars(error))
    for name in ("errno", "filename", "name", "path", "start", "lineno", "value"):
        assert getattr(value, name, None) == getattr(error, name, None)


def more_slotted():
    error = types.MoreSlotted("m", code=3)
    error.extra, error.beside = (1, 2), 4
    return error


@pytest.mark.parametrize(
    ("error", "names"),
    [
        (types.Slotted("m", code=1), ["code", "_Slotted__secret"]),
        (more_slotted(), ["code", "_Slotted__secret", "extra", "beside"]),
        (types.SlottedTimeout(9), ["seconds", "why"]),
        (types.SlottedTimeout(seconds=9, why=("a", b"b")), ["seconds", "why"]),
        (types.FrozenTimeout(9), ["seconds"]),
        (types.FrozenTimeout(seconds=9), ["seconds"]),
        (types.FrozenSlotted(seconds=9, where=["here"]), ["seconds", "where"]),
    ],
    ids=repr,
)
def test_c27_attributes_in_slots_are_kept(error, names):
    """Also of a dataclass, of a base class, of a private name, and of a class that forbids assignment."""
    error = raised(error, cause=KeyError("k"))
    value = crossed(error)

    assert type(value) is type(error)
    assert (value.args, str(value), repr(value)) == (error.args, str(error), repr(error))
    assert [getattr(value, name) for name in names] == [getattr(error, name) for name in names]
    assert repr(value.__cause__) == "KeyError('k')"
    assert not hasattr(value, "never_set")


@pytest.mark.parametrize("error", [types.FrozenTimeout(9), types.SlottedTimeout(9), types.Slotted("m", code=1)])
def test_a_rebuilt_exception_takes_notes(error):
    """A workflow learns which step failed by a note, also where the class forbids assignment."""
    value = crossed(error)
    value.add_note("by a step")
    again = crossed(value)
    again.add_note("by another")

    assert again.__notes__ == ["by a step", "by another"]


@pytest.mark.parametrize(
    "error", [types.SlottedTimeout(9, why=threading.Lock()), types.FrozenSlotted(seconds=threading.Lock())]
)
def test_c28_an_exception_that_cannot_show_what_it_lost(error):
    """Its ``repr`` needs an attribute that cannot cross: a StepFailed stands in for it, also as a cause."""
    value, outer = crossed(error), crossed(raised(ValueError("x"), cause=error))

    assert (type(value), value.error_type) == (StepFailed, type(error).__name__)
    assert (type(outer), type(outer.__cause__)) == (ValueError, StepFailed)


def test_c28_an_exception_recorded_without_its_slots():
    """Releases before this one left slots out: what they recorded is read as a StepFailed, and says so."""
    record = json.loads(codec.encode_error(types.SlottedTimeout(9)))
    del record["attrs"]
    value = codec.decode_error(json.dumps(record))

    assert (type(value), value.error_type, value.message) == (StepFailed, "SlottedTimeout", "9")


def test_c27_the_chain_is_kept():
    """Cause, context and whether it is suppressed; notes too."""
    try:
        try:
            raise KeyError("first")
        except KeyError as first:
            first.add_note("a note")
            raise ValueError("second") from first
    except ValueError:
        try:
            raise RuntimeError("third")
        except RuntimeError as third:
            value = crossed(third)
    cut = crossed(raised(TypeError("alone")))

    assert (repr(value.__cause__), repr(value.__context__)) == ("None", "ValueError('second')")
    assert repr(value.__context__.__cause__) == "KeyError('first')"
    assert value.__context__.__cause__.__notes__ == ["a note"]
    assert (cut.__cause__, cut.__suppress_context__) == (None, True)


@pytest.mark.parametrize("body", [io.BytesIO(b"gone"), None], ids=["with a body", "without"])
def test_c28_urllibs_error_keeps_its_class_and_takes_notes(body):
    """Its attributes are looked up in a file, which cannot cross; what is asked of it here works all the same."""
    value = crossed(raised(HTTPError("http://shop.test/", 404, "Not Found", Message(), body)))
    value.add_note("by a step")

    assert (type(value), value.code, str(value), value.__notes__) == (
        HTTPError,
        404,
        "HTTP Error 404: Not Found",
        ["by a step"],
    )
    assert crossed(value).__notes__ == ["by a step"]


def test_c28_an_exception_that_hides_its_content():
    """Writing one never fails: it is told by its message."""
    value = crossed(types.Sealed("shut"))

    assert crossed(types.Keyless("k")).args == ("k",)
    assert str(value) == "Sealed: shut"


def test_a_ring_of_causes_ends():
    """Exceptions that cause each other are written once each."""
    first, second = ValueError(1), ValueError(2)
    first.__cause__, second.__cause__ = second, first

    assert repr(crossed(first).__cause__) == "ValueError(2)"
    assert crossed(first).__cause__.__cause__ is None


def test_a_long_chain_is_cut():
    """A chain of a thousand neither fails nor fills the log."""
    error = ValueError(0)
    for number in range(1, 1_000):
        following = ValueError(number)
        following.__cause__ = error
        error = following

    assert repr(crossed(error).__cause__) == "ValueError(998)"
    assert len(codec.encode_error(error)) < 200_000


def test_a_group_keeps_its_members():
    """An ExceptionGroup is one of exceptions, each of its class."""
    value = crossed(ExceptionGroup("both", [types.Declined("o", code=1), ExceptionGroup("in", [OSError(2, "x")])]))

    assert repr(value) == repr(
        ExceptionGroup("both", [types.Declined("o", code=1), ExceptionGroup("in", [OSError(2, "x")])])
    )
    assert value.exceptions[0].code == 1


def test_c28_arguments_that_cannot_cross():
    """They become their repr, such attributes are left out, and the class is kept."""
    error = ValueError(types.Holder(), 1)
    error.lock = threading.Lock()
    error.kept = 2

    value = crossed(error)

    assert repr(value) == "ValueError('<Holder>', 1)"
    assert (value.kept, hasattr(value, "lock")) == (2, False)


def test_c28_an_exception_without_words():
    """A ``__str__`` that raises is told; the class cannot be rebuilt with it, so a StepFailed stands in."""
    value = crossed(raised(types.Unspeakable("x")))

    assert isinstance(value, StepFailed)
    assert (value.error_type, value.message) == ("Unspeakable", "(its __str__ raised RuntimeError)")


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError("c"),
        SystemExit(3),
        KeyboardInterrupt(),
        BaseExceptionGroup("g", [SystemExit(1)]),
        type("Made", (Exception,), {"__module__": "none.such"})("lost"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_cannot_be_rebuilt_becomes_step_failed(error):
    """What is no Exception, or of a class not known here: type, message and traceback are told."""
    value = crossed(raised(error))

    assert type(value) is StepFailed
    assert (value.error_type, value.message) == (type(error).__name__, str(error))
    assert "in raised" in value.traceback


def test_an_argument_of_an_unknown_class():
    """An error is told even when something that it holds cannot be decoded here."""
    text = codec.encode_error(ValueError(types.Order("o"))).replace("codec_types", "none.such")
    request = Request.from_head(Request(id="gone").head_json(), b"")

    assert crossed(ValueError(types.Order("o"))).args == (types.Order("o"),)
    assert repr(codec.decode_error(text)).startswith("StepFailed('ValueError', \"Order(id='o'")
    assert codec.decode_error(codec.encode_error(ValueError(request))).error_type == "ValueError"
    assert codec.decode_error(codec.encode_error(ValueError(request)), {"gone": request}).args == (request,)


def test_an_exception_that_holds_itself():
    """In its arguments, its attributes, or inside a list there: the ring is cut."""
    error = ValueError("x")
    error.args = (error, [error])
    error.itself = error

    assert type(crossed(error)) is ValueError


def test_each_wrapping_the_one_before_in_three_places():
    """Argument, attribute and cause: the text doesn't triple with each."""
    error = ValueError(0)
    for _ in range(30):
        wrapper = RuntimeError("wrapped", error)
        wrapper.original, wrapper.__cause__ = error, error
        error = wrapper

    assert type(crossed(error)) is RuntimeError
    assert len(codec.encode_error(error)) < MAX_SIZE


def test_a_huge_exception_is_cut():
    """One that would not fit the store keeps its class and the ends of its message."""
    value = crossed(ValueError("a" * MAX_SIZE + "z"))

    assert type(value) is ValueError
    assert str(value).startswith("aaa")
    assert str(value).endswith("z")


def test_text_of_any_kind():
    """Surrogates and NUL in a message hurt nobody."""
    error = ValueError("\ud83d\ude00 \udcff \0")

    assert crossed(error).args == error.args
    assert codec.error_summary(codec.encode_error(error)).message == "\U0001f600 \ufffd \0"


def test_c26_the_traceback_of_every_process_is_kept():
    """c26: an error that is raised again elsewhere tells both places."""

    def inner():
        raise types.Declined("o", code=1)

    with pytest.raises(types.Declined) as there:
        inner()
    arrived = crossed(there.value)
    summary = codec.error_summary(codec.encode_error(raised(arrived)))

    assert arrived.__traceback__ is not None  # raised() has put it there
    assert summary.traceback.index("in inner") < summary.traceback.index("reached this one")
    assert summary.traceback.index("reached this one") < summary.traceback.index("in raised")
    assert str(summary) == "Declined: order o was declined"


def test_the_traceback_passes_through_where_it_is_not_raised():
    """An error handed on unraised keeps the text that it came with."""
    text = codec.encode_error(raised(ValueError("x")))

    again = codec.encode_error(codec.decode_error(text))

    assert codec.error_summary(again) == codec.error_summary(text)


def test_exceptions_are_values():
    """An exception may be an argument or a result: a list of many too."""
    value = codec.decode(codec.encode({"errors": [ValueError(n) for n in range(2_000)]}))

    assert [repr(error) for error in value["errors"]] == [f"ValueError({n})" for n in range(2_000)]
