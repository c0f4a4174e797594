"""The conversation a language model sees, in the form of OpenAI's chat messages.

A context is one shared, mutable object: both halves of a context aggregator, the service, every
``OpenAILLMContextFrame`` and the application hold the same one. Where a processor runs in another
process it works on a copy that carries the same ``id``; at home the id stands for the object.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from antiphon.adapters.base_llm_adapter import BaseLLMAdapter
from antiphon.adapters.schemas.tools_schema import ToolsSchema
from antiphon.errors import ConfigError
from antiphon.frames.codec import register_value_type
from antiphon.frames.frames import AudioRawFrame, Frame
from antiphon.processors.aggregators._pending_answers import PendingAnswers
from antiphon.utils.checks import check_instance

if TYPE_CHECKING:
    from typing import Self

Message = dict[str, Any]


class NotGiven:
    """Type of ``NOT_GIVEN``: nothing was said, which is not the same as saying None."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN: Final = NotGiven()
"""Default of what a request leaves out."""


def is_given(value: object) -> bool:
    """Whether a value is anything but a marker for "not given".

    Every OpenAI-style SDK has such a marker of its own; they are recognised by name, so that none
    has to be imported to ask.
    """
    return type(value).__name__ not in ("NotGiven", "Omit")


def _not_given() -> Any:
    # An application may hand `context.tools` to the SDK's own client, which knows only its own
    # marker. Without the SDK loaded nobody can.
    return getattr(sys.modules.get("openai"), "NOT_GIVEN", NOT_GIVEN)


class CustomEncoder(json.JSONEncoder):
    """JSON with binary content as base64 text."""

    def default(self, o: Any) -> Any:
        """Encodes what JSON itself cannot."""
        if isinstance(o, io.BytesIO):
            o = o.getvalue()
        if isinstance(o, (bytes, bytearray, memoryview)):
            return base64.b64encode(o).decode("ascii")
        return super().default(o)


class OpenAILLMContext:
    """Messages, tools and tool choice of one conversation.

    Attributes:
        pending_answers: What the model still has to answer; kept by the context aggregators. A copy
            in another process does not know.
    """

    def __init__(
        self,
        messages: list[Any] | None = None,
        tools: Any = NOT_GIVEN,
        tool_choice: Any = NOT_GIVEN,
    ) -> None:
        """Makes a context.

        Args:
            messages: Chat messages. The context keeps this very list, so what the application
                appends to it later is part of the conversation; an empty list or None is replaced
                by a fresh one.
            tools: A ``ToolsSchema``, or a list of tools in the provider's own form.
            tool_choice: ``"none"``, ``"auto"``, ``"required"`` or one named function.

        Raises:
            TypeError: If the messages are no list, or the tools neither a schema nor a list.
        """
        if messages is not None:
            check_instance("the messages of a context", messages, list)
        self._id = uuid.uuid4().hex
        self._messages: list[Any] = messages or []
        self._tools: Any = NOT_GIVEN
        self._tool_choice: Any = tool_choice
        self._llm_adapter: BaseLLMAdapter | None = None
        self.pending_answers = PendingAnswers()
        self.set_tools(tools)

    @staticmethod
    def from_messages(messages: Sequence[Any]) -> OpenAILLMContext:
        """A context of its own over copies of the list's messages."""
        context = OpenAILLMContext()
        context.add_messages(messages)
        return context

    @property
    def id(self) -> str:
        """What the conversation is recognised by across processes."""
        return self._id

    @property
    def messages(self) -> list[Any]:
        """The messages: the list itself, not a copy."""
        return self._messages

    @property
    def tools(self) -> Any:
        """The tools in the provider's form; a "not given" marker without any."""
        if not is_given(self._tools):
            return _not_given()
        if self._llm_adapter is not None:
            return self._llm_adapter.from_standard_tools(self._tools)
        return self._tools

    @property
    def tool_choice(self) -> Any:
        """Which tool the model has to use; a "not given" marker if nothing was said."""
        return self._tool_choice if is_given(self._tool_choice) else _not_given()

    def get_llm_adapter(self) -> BaseLLMAdapter | None:
        """What translates the tools for the service this context is used with."""
        return self._llm_adapter

    def set_llm_adapter(self, llm_adapter: BaseLLMAdapter) -> None:
        """Sets what translates the tools; done by a service's create_context_aggregator()."""
        self._llm_adapter = llm_adapter

    def tools_for(self, adapter: BaseLLMAdapter) -> Any:
        """The tools in the form of one provider, whichever adapter the context has."""
        return adapter.from_standard_tools(self._tools) if is_given(self._tools) else NOT_GIVEN

    def add_message(self, message: Any) -> None:
        """Appends a message."""
        self._messages.append(message)

    def add_messages(self, messages: Sequence[Any]) -> None:
        """Appends several messages."""
        self._messages.extend(messages)

    def set_messages(self, messages: Sequence[Any]) -> None:
        """Replaces all messages in place: who holds the list sees the new content."""
        self._messages[:] = messages

    def get_messages(self) -> list[Any]:
        """The messages: the list itself, not a copy."""
        return self._messages

    def get_messages_json(self) -> str:
        """The messages as indented JSON."""
        return json.dumps(self._messages, cls=CustomEncoder, ensure_ascii=False, indent=2)

    def get_messages_for_logging(self) -> str:
        """The messages as JSON, with pictures and sound left out. They hold what people said."""
        return json.dumps(
            [_without_media(message) for message in self._messages],
            cls=CustomEncoder,
            ensure_ascii=False,
        )

    def from_standard_message(self, message: Any) -> Any:
        """Translates a message from the standard form; OpenAI's is the standard one."""
        return message

    def to_standard_messages(self, obj: Any) -> list[Any]:
        """Translates one of this context's messages to standard ones."""
        return [obj]

    def get_messages_for_initializing_history(self) -> list[Any]:
        """The messages to begin a conversation with."""
        return self._messages

    def get_messages_for_persistent_storage(self) -> list[Any]:
        """The messages in standard form, in a list of its own."""
        stored: list[Any] = []
        for message in self._messages:
            stored.extend(self.to_standard_messages(message))
        return stored

    def set_tool_choice(self, tool_choice: Any) -> None:
        """Sets which tool the model has to use."""
        self._tool_choice = tool_choice

    def set_tools(self, tools: Any = NOT_GIVEN) -> None:
        """Replaces the tools; an empty list means none were given.

        Raises:
            TypeError: If they are neither a ToolsSchema nor a list.
        """
        if isinstance(tools, (str, bytes, int, float, dict)):
            raise TypeError(
                "the tools of a context must be a ToolsSchema or a list of tools in the provider's "
                f"own form, not {type(tools).__name__}"
            )
        given = is_given(tools) and not (isinstance(tools, list) and not tools)
        self._tools = tools if given else NOT_GIVEN

    def add_image_frame_message(
        self, *, format: str, size: tuple[int, int], image: bytes, text: str | None = None
    ) -> None:
        """Appends a user message with a picture, sent as JPEG.

        Args:
            format: Layout of a raw pixel as Pillow names it, such as ``RGB``.
            size: Width and height in pixels.
            image: The raw pixels.
            text: What to say about the picture.

        Raises:
            ConfigError: Pillow is not installed.
        """
        try:
            from PIL import Image
        except ImportError as error:
            raise ConfigError("pictures in a context need Pillow: pip install pillow") from error
        buffer = io.BytesIO()
        picture = Image.frombytes(format, size, image)
        if picture.mode not in ("RGB", "L", "CMYK"):
            picture = picture.convert("RGB")  # JPEG has no transparency
        picture.save(buffer, format="JPEG")
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
        part = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}}
        self._add_parts(text, part)

    def add_audio_frames_message(
        self, *, audio_frames: Sequence[AudioRawFrame], text: str | None = None
    ) -> None:
        """Appends a user message with sound, sent as WAV.

        Args:
            audio_frames: int16 little-endian PCM, all of one rate and channel count; none of them
                adds nothing.
            text: What to say about the sound.
        """
        if not audio_frames:
            return
        first = audio_frames[0]
        pcm = b"".join(frame.audio for frame in audio_frames)
        header = self.create_wav_header(first.sample_rate, first.num_channels, 16, len(pcm))
        data = base64.b64encode(header + pcm).decode("ascii")
        self._add_parts(
            text, {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
        )

    def create_wav_header(
        self, sample_rate: int, num_channels: int, bits_per_sample: int, data_size: int
    ) -> bytes:
        """The 44 bytes before PCM data in a WAV file (RIFF, format 1).

        Args:
            sample_rate: In Hz.
            num_channels: Interleaved channels.
            bits_per_sample: Of one channel.
            data_size: Bytes of PCM that follow.
        """
        block = num_channels * bits_per_sample // 8
        return struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            b"RIFF",
            36 + data_size,
            b"WAVE",
            b"fmt ",
            16,
            1,
            num_channels,
            sample_rate,
            sample_rate * block,
            block,
            bits_per_sample,
            b"data",
            data_size,
        )

    def to_plain(self) -> dict[str, Any]:
        """Id, messages, tools and tool choice as plain data; what was not given is left out.

        Raises:
            TypeError: A message holds something that is not plain data.
        """
        plain: dict[str, Any] = {"id": self._id, "messages": _plain(self._messages)}
        if isinstance(self._tools, ToolsSchema):
            plain["tools_schema"] = self._tools.to_plain()
        elif is_given(self._tools):
            plain["tools"] = _plain(self._tools)
        if is_given(self._tool_choice):
            plain["tool_choice"] = _plain(self._tool_choice)
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Rebuilds a context, with the same id, from ``to_plain``'s result."""
        schema = plain.get("tools_schema")
        tools = plain.get("tools", NOT_GIVEN)
        context = cls(
            messages=list(plain["messages"]),
            tools=tools if schema is None else ToolsSchema.from_plain(schema),
            tool_choice=plain.get("tool_choice", NOT_GIVEN),
        )
        context._id = plain["id"]
        return context

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Takes over ``to_plain``'s result in place: who holds the list sees the new content.

        Raises:
            KeyError, TypeError, ConfigError: It is no such result.
        """
        other = self.from_plain(plain)
        self.set_messages(other.messages)
        self._tools, self._tool_choice = other._tools, other._tool_choice

    def _add_parts(self, text: str | None, part: Message) -> None:
        parts = [{"type": "text", "text": text}] if text else []
        self.add_message({"role": "user", "content": [*parts, part]})


@dataclass
class OpenAILLMContextFrame(Frame):
    """Asks a language model to answer a conversation.

    Attributes:
        context: The conversation: the shared object, not a copy.
    """

    context: OpenAILLMContext


def _without_media(message: Any) -> Any:
    """A copy of a message with pictures and sound replaced by a mark."""
    if not isinstance(message, dict):
        return str(message)
    copy = dict(message)
    if isinstance(copy.get("content"), list):
        copy["content"] = [_part_without_media(part) for part in copy["content"]]
    if str(copy.get("mime_type", "")).startswith("image/") and "data" in copy:
        copy["data"] = "..."
    return copy


def _part_without_media(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    if isinstance(part.get("image_url"), dict):
        url = str(part["image_url"].get("url", ""))
        if url.startswith("data:image/"):
            return {**part, "image_url": {**part["image_url"], "url": "data:image/..."}}
    if isinstance(part.get("input_audio"), dict):
        return {**part, "input_audio": {**part["input_audio"], "data": "..."}}
    return part


def _plain(value: Any) -> Any:
    """Plain data equal to a message's content."""
    if value is None or isinstance(value, (str, bool, int, float, bytes)):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    # Applications append the SDK's own message objects as they came from the provider.
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return _plain(dump(exclude_none=True))
    raise TypeError(
        f"a conversation may hold only plain data, not {type(value).__module__}."
        f"{type(value).__qualname__}"
    )


register_value_type("not_given", NotGiven, lambda _: None, lambda _: NOT_GIVEN)
register_value_type(
    "llm_context", OpenAILLMContext, OpenAILLMContext.to_plain, OpenAILLMContext.from_plain
)
