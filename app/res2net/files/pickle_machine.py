"""The machine that pickles are programs for, without its calls: see `files.pickles`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from res2net.errors import DamagedFileError
from res2net.files.inert import Inert, Maker, RefusedNameError, key_of

# Bytes of memory that an opcode may take beside the text or number that comes with it: what
# CPython's empty containers and its slots take.
_SLOT = 16
_OBJECT = 128


class _Name:
    """A name that may be called, unless it is one of a constant."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Machine:
    """Stack, marks and memo of the pickle machine (see the standard library's `pickletools`)."""

    def __init__(
        self,
        known: Mapping[str, Any],
        inert: Collection[str],
        persistent: Callable[[Any], Any] | None,
        budget: int,
    ) -> None:
        self._known = known
        self._inert = inert
        self._persistent = persistent
        self._left = budget
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        """Stacks beneath the marks."""
        self._memo: dict[int, Any] = {}
        self.result: Any = None

    def step(self, code: str, argument: Any) -> None:
        """Do what one opcode says."""
        self._spend(_SLOT)
        if code in _VALUES:
            self._spend(sys.getsizeof(argument))
            self._stack.append(argument)
        elif code in _CONSTANTS:
            self._stack.append(_CONSTANTS[code])
        else:
            handler = _HANDLERS.get(code)
            if handler is None:
                raise DamagedFileError(f"a pickle with the opcode {code}")
            handler(self, argument)

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise DamagedFileError("a pickle that wants more memory than its size allows")

    def _push(self, value: Any) -> None:
        self._spend(_OBJECT)
        self._stack.append(value)

    def _pop_mark(self) -> list[Any]:
        above = self._stack
        self._stack = self._below.pop()
        return above

    def _mark(self, _: Any) -> None:
        self._spend(_OBJECT)
        self._below.append(self._stack)
        self._stack = []

    def _pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def _put(self, index: int) -> None:
        self._spend(_OBJECT)
        self._memo[index] = self._stack[-1]

    # containers

    def _short_tuple(self, count: int) -> None:
        values = tuple(self._stack[-count:])
        if len(values) != count:
            raise IndexError
        del self._stack[-count:]
        self._push(values)

    def _table(self, _: Any) -> None:
        values = self._pop_mark()
        table: dict[Any, Any] = {}
        self._set(table, values)
        self._push(table)

    def _append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Inert):
            target.items.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise TypeError

    def _add_all(self, _: Any) -> None:
        values = self._pop_mark()
        target = self._stack[-1]
        if isinstance(target, Inert):
            target.items.extend(values)
        elif isinstance(target, set):
            self._spend(_SLOT * len(values))
            target.update(map(key_of, values))
        else:
            raise TypeError

    def _set_one(self, _: Any) -> None:
        value = self._stack.pop()
        key = self._stack.pop()
        self._set(self._stack[-1], [key, value])

    def _set_all(self, _: Any) -> None:
        values = self._pop_mark()
        self._set(self._stack[-1], values)

    def _set(self, target: Any, values: list[Any]) -> None:
        if len(values) % 2:
            raise ValueError
        self._spend(_OBJECT * len(values) // 2)
        pairs = zip(values[::2], values[1::2], strict=True)
        if isinstance(target, Inert):
            target.pairs.extend(pairs)
        elif isinstance(target, dict):
            for key, value in pairs:
                target[key_of(key)] = value
        else:
            raise TypeError

    # names and calls

    def _name(self, name: str) -> None:
        if name in self._known:
            self._stack.append(self._known[name])
        elif name in self._inert:
            self._push(_Name(name))
        else:
            raise RefusedNameError(
                f"carries the Python object {name[:200]}, which could run code: refused"
            )

    def _global(self, words: str) -> None:
        self._name(words.replace(" ", ".", 1))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError
        self._name(f"{module}.{name}")

    def _call(self, callee: Any, args: Any) -> None:
        if not isinstance(args, tuple):
            raise TypeError
        if isinstance(callee, Maker):
            self._spend(sum(map(_work, args)))
            made = callee.make(*args)
            # An argument may come from the memo, and again and again.
            self._spend(sys.getsizeof(made))
            self._push(made)
        elif isinstance(callee, _Name):
            self._spend(_OBJECT)
            self._push(Inert(callee.name, args))
        else:
            raise TypeError

    def _reduce(self, _: Any) -> None:
        args = self._stack.pop()
        self._call(self._stack.pop(), args)

    def _new_with_keywords(self, _: Any) -> None:
        keywords, args = self._stack.pop(), self._stack.pop()
        callee = self._stack.pop()
        if not isinstance(callee, _Name):  # makers take none
            raise TypeError
        self._call(callee, (*args, keywords))

    def _instance(self, words: str) -> None:
        args = tuple(self._pop_mark())
        self._global(words)
        self._call(self._stack.pop(), args)

    def _object(self, _: Any) -> None:
        callee, *args = self._pop_mark()
        self._call(callee, tuple(args))

    def _build(self, _: Any) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        # Attributes of a table (PyTorch's `_metadata`) or of a tensor are not needed.
        if isinstance(target, Inert):
            target.build(state)

    def _refer(self, reference: Any) -> None:
        if self._persistent is None:
            raise ValueError
        self._push(self._persistent(reference))

    def _stop(self, _: Any) -> None:
        self.result = self._stack.pop()


def _work(argument: Any) -> int:
    """What a maker has to do with an argument, which may come from the memo again and again."""
    if isinstance(argument, str | bytes | bytearray):
        return len(argument)
    return _SLOT * len(argument) if isinstance(argument, list | tuple | dict | set) else 0


_VALUES = frozenset(
    {
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
        "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
        "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    }
)  # fmt: skip
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_HANDLERS: dict[str, Callable[[Machine, Any], Any]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "STOP": Machine._stop,
    "MARK": Machine._mark,
    "POP": Machine._pop,
    "POP_MARK": lambda machine, _: machine._pop_mark(),
    "DUP": lambda machine, _: machine._stack.append(machine._stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine._put),
    "MEMOIZE": lambda machine, _: machine._put(len(machine._memo)),
    **dict.fromkeys(
        ("GET", "BINGET", "LONG_BINGET"),
        lambda machine, index: machine._stack.append(machine._memo[index]),
    ),
    "EMPTY_LIST": lambda machine, _: machine._push([]),
    "EMPTY_DICT": lambda machine, _: machine._push({}),
    "EMPTY_SET": lambda machine, _: machine._push(set()),
    "LIST": lambda machine, _: machine._push(machine._pop_mark()),
    "TUPLE": lambda machine, _: machine._push(tuple(machine._pop_mark())),
    "TUPLE1": lambda machine, _: machine._short_tuple(1),
    "TUPLE2": lambda machine, _: machine._short_tuple(2),
    "TUPLE3": lambda machine, _: machine._short_tuple(3),
    "FROZENSET": lambda machine, _: machine._push(frozenset(map(key_of, machine._pop_mark()))),
    "DICT": Machine._table,
    "APPEND": lambda machine, _: machine._append([machine._stack.pop()]),
    "APPENDS": lambda machine, _: machine._append(machine._pop_mark()),
    "ADDITEMS": Machine._add_all,
    "SETITEM": Machine._set_one,
    "SETITEMS": Machine._set_all,
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "NEWOBJ": Machine._reduce,
    "NEWOBJ_EX": Machine._new_with_keywords,
    "INST": Machine._instance,
    "OBJ": Machine._object,
    "BUILD": Machine._build,
    "PERSID": Machine._refer,
    "BINPERSID": lambda machine, _: machine._refer(machine._stack.pop()),
}
