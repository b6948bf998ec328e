"""Strings that take their letters and eight bytes each: a name for each of millions of clips."""

import array
import itertools
from collections.abc import Iterable, Sequence


class CompactStrings(Sequence[str]):
    """Strings that are kept as UTF-8, one behind the other. Python's own take 50 bytes more, and a list's 8."""

    def __init__(self, strings: Iterable[str]):
        encoded = [string.encode() for string in strings]
        self._text = b"".join(encoded)
        self._ends = array.array("q", itertools.accumulate(map(len, encoded), initial=0))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f"there is no string {index} of {len(self)}")
        return self._text[self._ends[index] : self._ends[index + 1]].decode()
