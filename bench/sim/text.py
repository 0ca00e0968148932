"""Text and tokens: one word is about one token, and a token id depends on nothing but the word."""

from __future__ import annotations

import random
import re
from zlib import crc32

VOCABULARY = 128_000
MARK_BASE = VOCABULARY
# Ids above the vocabulary: the places where a chat template would put its special tokens.
MARKS = {"system": MARK_BASE, "user": MARK_BASE + 1, "assistant": MARK_BASE + 2, "tool": MARK_BASE + 3, "developer": MARK_BASE + 4}
END_MARK = MARK_BASE + 9
LAST_ID = MARK_BASE + 255

# Long runs without a space (base64, Chinese) count a token for every 16 characters.
_PIECE = re.compile(r"\S{1,16}")

_TEXT = """
a about above across after again all along also always among an and another any are around as at away back be because been before began
behind below between beyond boat both bring but by calm can carry change channel chart clear close coast come could course current day
deck deep did different do dock does down draft each early east edge end enough even ever every far few find first flag follow for found
four from gave get give go good great guide had half harbour has have he heavy help her here high him his hold home hour how hull if in
into is it its just keep knot know land large last later lead leave left less let light like line little load long look made main make
many mark mast may mean might more most moor move much must near need never new next night no north not note now of off often old on
once one only open or order other our out over own part pass pilot place plan point port pull quay read ready reach rest right river
rope round route run safe said sail same sea see set several ship shore short should show side signal since slack slow small so some
soon south steady steer still storm such swell take ten than that the their them then there these they this those three through tide tie
time to together tow turn two under until up upon us use very vessel wait was watch water wave way we weather well were west what when
where which while who why will wind with within without work would yard year yet you your
"""
WORDS = tuple(_TEXT.split())


def token_of(piece: str) -> int:
    """The id of one token, from its text."""
    return crc32(piece.strip().encode("utf-8", "surrogatepass")) % VOCABULARY


def tokenize(text: str) -> list[int]:
    """The token ids of a text, spacing left aside."""
    return [crc32(piece.encode("utf-8", "surrogatepass")) % VOCABULARY for piece in _PIECE.findall(text)]


def pieces_of(text: str) -> list[str]:
    """The texts of the tokens of `tokenize(text)`."""
    return _PIECE.findall(text)


def compose(seed: int, length: int) -> list[str]:
    """`length` tokens of text, the same for the same seed; joined without separator they read as sentences."""
    rng = random.Random(seed)
    words = rng.choices(WORDS, k=length)
    index = 0
    while index < length:
        words[index] = words[index].capitalize()
        end = index + rng.randint(6, 14)
        if end - 1 < length:
            words[end - 1] += "."
        index = end
    return [word if at == 0 else " " + word for at, word in enumerate(words)]


def cut_at_stop(pieces: list[str], stops: list[str]) -> tuple[list[str], str | None]:
    """The pieces up to the first occurrence of a stop text, and which one it was.

    The token that completes the stop text counts, but nothing of the stop text itself is shown.
    """
    text = "".join(pieces)
    found = min(((at, stop) for stop in stops if stop and (at := text.find(stop)) >= 0), default=None)
    if found is None:
        return pieces, None
    start, stop = found
    kept: list[str] = []
    position = 0
    for piece in pieces:
        kept.append(piece[: max(start - position, 0)])
        position += len(piece)
        if position >= start + len(stop):
            break
    return kept, stop
