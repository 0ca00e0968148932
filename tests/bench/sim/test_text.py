"""Text: deterministic, a word a token, and cut where a stop text says."""

from __future__ import annotations

from array import array

import pytest

from bench.sim.bodies import Message
from bench.sim.errors import ApiError
from bench.sim.prompt import MEDIA_TOKENS, chat_prompt, responses_messages, text_prompts
from bench.sim.text import compose, cut_at_stop, token_of, tokenize


def test_composed_text_is_deterministic_and_a_word_is_a_token() -> None:
    pieces = compose(7, 200)
    assert pieces == compose(7, 200)
    assert pieces != compose(8, 200)
    assert len(tokenize("".join(pieces))) == 200
    assert tokenize("".join(pieces)) == [token_of(piece) for piece in pieces]


@pytest.mark.parametrize(
    ("stops", "kept", "stop"),
    [
        ([], ["One", " two", " three"], None),
        (["nine"], ["One", " two", " three"], None),
        (["two"], ["One", " "], "two"),
        (["e t"], ["On", ""], "e t"),
        (["three", "wo"], ["One", " t"], "wo"),
    ],
)
def test_a_stop_text_ends_the_pieces_and_is_not_shown(stops: list[str], kept: list[str], stop: str | None) -> None:
    assert cut_at_stop(["One", " two", " three"], stops) == (kept, stop)


def test_the_next_turn_of_a_chat_starts_with_the_last_one() -> None:
    turn = [Message("system", "Be brief."), Message("user", "Hello there")]
    answer = compose(1, 6)
    first = chat_prompt(turn) + array("I", map(token_of, answer))
    later = chat_prompt([*turn, Message("assistant", "".join(answer)), Message("user", "More")])
    assert later[: len(first)] == first


def test_parts_of_a_message_count_text_and_pictures() -> None:
    text = {"type": "text", "text": "two words"}
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    alone, both = chat_prompt([Message("user", [text])]), chat_prompt([Message("user", [text, picture])])
    assert len(both) - len(alone) == MEDIA_TOKENS
    assert chat_prompt([Message("user", "two words")]) == alone


def test_prompt_forms() -> None:
    assert [len(prompt) for prompt in text_prompts("a b c", "prompt")] == [3]
    assert [len(prompt) for prompt in text_prompts(["a b", "c"], "prompt")] == [2, 1]
    assert [list(prompt) for prompt in text_prompts([5, 6], "prompt")] == [[5, 6]]
    assert [list(prompt) for prompt in text_prompts([[5, 6], [7]], "prompt")] == [[5, 6], [7]]
    assert [len(prompt) for prompt in text_prompts("", "prompt")] == [1]


@pytest.mark.parametrize("wrong", [[], [[]], ["a", 1], [-1], [10**9]])
def test_prompt_forms_refused(wrong: list[str | int | list[int]]) -> None:
    with pytest.raises(ApiError) as refusal:
        text_prompts(wrong, "prompt")
    assert (refusal.value.status, refusal.value.param) == (400, "prompt")


def test_responses_items_without_a_role_are_left_out() -> None:
    assert [message.role for message in responses_messages([{"type": "reasoning"}, {"role": "user", "content": "a"}])] == ["user"]
