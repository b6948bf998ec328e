"""A pickle reader that knows torch's checkpoint vocabulary and nothing else.

`pickletools.genops` splits the stream into opcodes and runs nothing; this file is the stack machine behind it. The only
functions it can call are those of the table that the caller hands over, so no code in a file can run.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO


class RefusedGlobalError(ValueError):
    """The pickle names a class or function outside the allow-list; the message is its dotted name."""


class RefusedOpcodeError(ValueError):
    """The pickle has an opcode without a place in a checkpoint; the message names it."""


@dataclass(frozen=True)
class Builder:
    """An allowed class or function: `build` stands in for it and makes a plain value of the call's arguments."""

    build: Callable[..., Any]


class Namespace(dict):
    """What stands for an `argparse.Namespace`: its attributes as a dict."""


class Opaque:
    """What stands for values that no checkpoint of ours needs, as numpy's scalars."""


# Others could be nested so deep that Python's hash of them overflows the stack.
_KEYS = (str, int, float, bool, bytes, type(None))


def make_dict(items: Any = ()) -> dict:
    """A dict of a dict or of a list of pairs, of plain keys only."""
    pairs = list(items.items() if isinstance(items, dict) else items)
    _check_keys([key for key, _ in pairs])
    return dict(pairs)


def make_set(items: Any = ()) -> set:
    """A set of plain values only."""
    items = list(items)
    _check_keys(items)
    return set(items)


def _check_keys(keys: list[Any]) -> None:
    for key in keys:
        if type(key) not in _KEYS:
            raise TypeError(f"a {type(key).__name__} as a key")


_LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_pickle(file: BinaryIO, allowed: Mapping[str, Any], load_persistent: Callable[[Any], Any] | None = None) -> Any:
    """The value of the one pickle that starts at the file's position; leaves the position right after it.

    `allowed` maps "module.name" to what stands for it: a `Builder` if it may be called, else a plain value.
    `load_persistent` resolves persistent ids (torch writes its storages as such). Raises RefusedGlobalError for any
    other global, ValueError for an opcode without a place in a checkpoint or a stream that makes no sense.
    """
    machine = _Machine(allowed, load_persistent)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            machine.step(opcode.name, argument)
        return machine.pop()
    except (LookupError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise ValueError(f"malformed pickle ({type(error).__name__}: {error})") from None


class _Machine:
    """The pickle stack machine. `stack` is the innermost open sequence, `outer` holds those below its marks."""

    def __init__(self, allowed: Mapping[str, Any], load_persistent: Callable[[Any], Any] | None):
        self.allowed = allowed
        self.load_persistent = load_persistent
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _SHORT_TUPLES:
            self.stack.append(tuple(self.pop_many(_SHORT_TUPLES[name])))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(argument)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[int(argument)])
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name not in ("PROTO", "FRAME", "STOP"):
            operation = getattr(self, f"do_{name.lower()}", None)
            if operation is None:
                raise RefusedOpcodeError(f"the opcode {name} has no place in a checkpoint")
            operation(argument)

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_many(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise IndexError("pop from a stack that is too short")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def pop_to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def top(self, *kinds: type) -> Any:
        if not isinstance(self.stack[-1], kinds):
            raise TypeError(f"cannot extend a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def do_mark(self, _: None) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def do_tuple(self, _: None) -> None:
        items = self.pop_to_mark()
        self.stack.append(tuple(items))

    def do_append(self, _: None) -> None:
        item = self.pop()
        self.top(list).append(item)

    def do_appends(self, _: None) -> None:
        items = self.pop_to_mark()
        self.top(list).extend(items)

    def do_setitem(self, _: None) -> None:
        key, value = self.pop_many(2)
        _check_keys([key])
        self.top(dict)[key] = value

    def do_setitems(self, _: None) -> None:
        items = self.pop_to_mark()
        _check_keys(items[::2])
        self.top(dict).update(zip(items[::2], items[1::2], strict=True))

    def do_additems(self, _: None) -> None:
        items = self.pop_to_mark()
        _check_keys(items)
        self.top(set).update(items)

    def do_global(self, module_and_name: str) -> None:
        dotted = module_and_name.replace(" ", ".")
        if dotted not in self.allowed:
            raise RefusedGlobalError(dotted[:100])
        self.stack.append(self.allowed[dotted])

    def do_stack_global(self, _: None) -> None:
        module, name = self.pop_many(2)
        if type(module) is not str or type(name) is not str:
            raise TypeError("a global whose name is no text")
        self.do_global(f"{module} {name}")

    def do_binpersid(self, _: None) -> None:
        if self.load_persistent is None:
            raise ValueError("a persistent id where none belongs")
        self.stack.append(self.load_persistent(self.pop()))

    def do_reduce(self, _: None) -> None:
        callee, arguments = self.pop_many(2)
        if not isinstance(callee, Builder):
            raise TypeError(f"cannot call a {type(callee).__name__}")
        self.stack.append(callee.build(*arguments))

    do_newobj = do_reduce

    def do_build(self, _: None) -> None:
        # Attributes set on a rebuilt object: torch's `_metadata` of a state dict and flags of very old Parameters. Only
        # a Namespace's are data; the others are dropped, so that a file cannot set attributes of anything here.
        state = self.pop()
        if isinstance(self.stack[-1], Namespace) and isinstance(state, dict):
            self.stack[-1].update(state)
