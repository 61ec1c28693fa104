"""A language model that needs no network: its replies come from a Python function."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any

from google.adk.models import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.genai import types
from google.genai.types import FunctionCall
from typing_extensions import override

Piece = str | FunctionCall
Reply = Piece | Sequence[Piece]
"""Text, one tool call, or several pieces; several calls in one reply run in parallel."""

Responder = Callable[[LlmRequest], Reply]


def call(tool: str, /, **args: Any) -> FunctionCall:
    """Return a call of ``tool`` with the keyword arguments ``args``."""
    return FunctionCall(name=tool, args=args)


class OfflineModel(BaseLlm):
    """A model whose reply is ``respond(request)``.

    One instance serves concurrent conversations if ``respond`` does. When ADK asks for a
    stream, the text arrives word by word in partial responses before the complete one,
    as from a hosted model.
    """

    model: str = "offline"
    respond: Responder

    @override
    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        """Yield the complete response, preceded by its fragments if ``stream`` is set."""
        reply = self.respond(llm_request)
        parts = [_part(piece) for piece in ((reply,) if isinstance(reply, str | FunctionCall) else reply)]
        if stream:
            for fragment in _fragments(parts):
                yield LlmResponse(content=_content([fragment]), partial=True)
        yield LlmResponse(content=_content(parts), partial=False, usage_metadata=_usage(parts))


def _part(piece: Piece) -> types.Part:
    # ADK writes an id into what it is given.
    return types.Part(text=piece) if isinstance(piece, str) else types.Part(function_call=piece.model_copy())


def _content(parts: list[types.Part]) -> types.Content:
    return types.Content(role="model", parts=parts)


def _usage(parts: list[types.Part]) -> types.GenerateContentResponseUsageMetadata:
    """Count a word as a token, and a call as one: ADK logs a warning for a model without counts."""
    words = sum(len(part.text.split()) if part.text else 1 for part in parts)
    return types.GenerateContentResponseUsageMetadata(candidates_token_count=words)


def _fragments(parts: list[types.Part]) -> Iterator[types.Part]:
    for part in parts:
        if part.text:
            yield from (types.Part(text=word) for word in re.findall(r"\S+\s*|\s+", part.text))
        else:
            yield part
