"""What a request's body says: images, class names, how many choices; as a form or as JSON.

Everything is counted while it is read, and parsing runs in a thread, so that a long body costs the
time and memory of its bytes. What is wrong with a request is said in one sentence.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from simprompt.clip.same_text import canonical_text, repeated
from simprompt.config import Settings
from simprompt.errors import SimpromptError

TOP = 10
FORM_FIELDS = ("image", "name", "top")
HOW = (
    "Send a form with files (curl -F image=@cat.jpg -F name=cat -F name=dog), or JSON: "
    '{"images": ["BASE64"], "names": ["cat", "dog"]} with Content-Type: application/json'
)
MOST_LABEL = 200  # characters of a file's name


class Limits(Settings):
    """What one request, and all together, may ask for."""

    bytes: int = Field(20_000_000, ge=1, description="of a whole request")
    pixels: int = Field(40_000_000, ge=1, description="of an image")
    request_pixels: int = Field(200_000_000, ge=1, description="of all images of a request")
    images: int = Field(16, ge=1, description="in a request")
    names: int = Field(500, ge=1, description="in a request; more if the prompts have more")
    compared: int = Field(500, ge=1, description="names in a request to /similarities")
    name_length: int = Field(200, ge=1, description="characters of a name")
    in_flight: int = Field(64, ge=1, description="requests that are being answered at once")
    seconds: float = Field(30.0, gt=0, description="until a request is given up")
    batch: int = Field(32, ge=1, description="images that go through a tower together; 1: no batch")
    held_bytes: int = Field(200_000_000, ge=1, description="of all requests in memory at once")
    upload_seconds: float = Field(60.0, gt=0, description="until a request's body has to be there")
    idle_seconds: float = Field(10.0, gt=0, description="without a byte, in a header or a body")
    connections: int = Field(256, ge=2, description="open at once; the longest idle one is closed")


class RequestRefusedError(SimpromptError):
    """A request that cannot be answered, and the status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class SentImage:
    """An image of a request: the bytes of its file, or why there are none."""

    label: str
    data: bytes
    error: str = ""


@dataclass
class PredictRequest:
    """What /predict is asked; without `names` the prompts' own are meant."""

    images: list[SentImage] = field(default_factory=list)
    names: list[str] | None = None
    top: int = TOP


class PredictJSON(BaseModel):
    """A request to /predict as JSON."""

    model_config = ConfigDict(extra="forbid")

    images: list[str] = Field(
        min_length=1, description='image files in base64; "data:image/png;base64,..." too'
    )
    names: list[str] | None = Field(None, description="class names; none: the prompts' own")
    top: int = Field(TOP, ge=1, description="choices of each prompt")


class NamesJSON(BaseModel):
    """A request about names alone."""

    model_config = ConfigDict(extra="forbid")

    names: list[str] = Field(min_length=1, description="class names")


_FORM_SCHEMA = {
    "type": "object",
    "required": ["image"],
    "additionalProperties": False,
    "properties": {
        "image": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "minItems": 1,
            "description": "image files",
        },
        "name": {
            "type": "array",
            "items": {"type": "string"},
            "description": "class names; none: the prompts' own",
        },
        "top": {
            "type": "integer",
            "minimum": 1,
            "default": TOP,
            "description": "choices of each prompt",
        },
    },
}
PREDICT_SCHEMA: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _FORM_SCHEMA},
            "application/json": {"schema": PredictJSON.model_json_schema()},
        },
    }
}
NAMES_SCHEMA: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": NamesJSON.model_json_schema()}},
    }
}
"""Both for OpenAPI; these bodies are read here and not by the framework."""


def read_predict(content_type: str, body: bytes, limits: Limits) -> PredictRequest:
    """The request that a body of /predict holds.

    Raises:
        RequestRefusedError: another type, an unknown field, too many of something, not valid.
    """
    kind = _kind(content_type)
    if kind == "multipart/form-data":
        form = _read_form(content_type, body, limits)
    elif _is_json(kind):
        form = _read_json(body, limits)
    elif kind == "application/x-www-form-urlencoded":  # a form that can hold no file
        form = PredictRequest()
    else:
        raise RequestRefusedError(415, f"{HOW}. This request is of type {kind or 'none'!a:.80}.")
    if not form.images:
        raise RequestRefusedError(422, f"The request holds no image. {HOW}.")
    return form


def read_names(content_type: str, body: bytes, limits: Limits) -> list[str]:
    """The names that a body of /similarities holds.

    Raises:
        RequestRefusedError: as `read_predict`.
    """
    kind = _kind(content_type)
    how = '{"names": ["cat", "dog"]} with Content-Type: application/json'
    if kind and not _is_json(kind):
        raise RequestRefusedError(415, f"Send JSON: {how}. This request is of type {kind!a:.80}.")
    values = _json_object(body, ("names",), limits)
    names = _texts(values.get("names"), "names", limits.compared)
    if names is None:
        raise RequestRefusedError(422, f"The request holds no names. Send JSON: {how}.")
    return names


def checked_names(names: Sequence[str], limits: Limits) -> tuple[str, ...]:
    """The class names of a request, as they were sent; two that are one text are refused.

    Raises:
        RequestRefusedError: none, too many, one that is empty, too long, or there twice.
    """
    _at_most(len(names), limits.names, "names")
    for name in names:
        if len(name) > limits.name_length:
            raise RequestRefusedError(
                413, f"A name of {len(name)} characters; at most {limits.name_length} are taken."
            )
        if not name.isascii() and any("\ud800" <= sign <= "\udfff" for sign in name):
            raise RequestRefusedError(422, f"The name {name!a} is no Unicode text.")
    if not names or not all(map(canonical_text, names)):
        raise RequestRefusedError(422, "Give at least one class name, and no empty one.")
    for group in repeated(names):
        raise RequestRefusedError(
            422,
            f"The name {names[group[0]]!r} is there twice, the second time as "
            f"{names[group[1]]!r}: they are one text for the model.",
        )
    return tuple(names)


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_json(kind: str) -> bool:
    return kind == "application/json" or kind.endswith("+json")


def _at_most(number: int, most: int, what: str) -> None:
    if number > most:
        raise RequestRefusedError(413, f"{number} {what}; at most {most} a request.")


def _known_field(name: str, known: Collection[str]) -> None:
    if name not in known:
        raise RequestRefusedError(
            422, f"There is no field {name!a:.80}; the fields are {', '.join(known)}."
        )


def _read_form(content_type: str, body: bytes, limits: Limits) -> PredictRequest:
    """A multipart form."""
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    reader = _FormReader(limits)
    _, options = parse_options_header(content_type)
    try:
        parser = MultipartParser(options.get(b"boundary", b""), reader.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise RequestRefusedError(400, f"The form cannot be read: {error}.") from error
    if not reader.ended:
        raise RequestRefusedError(
            400, "The form is cut off, or its boundary is not the one that Content-Type names."
        )
    if reader.tops:
        reader.form.top = _top(reader.tops[0])
    return reader.form


class _FormReader:
    """What a multipart parser's callbacks have read; they count, so that reading ends at a limit.

    Attributes:
        form: images and names of the parts that are whole.
        tops: the texts of the field top, at most one.
        ended: whether the form's closing boundary was there.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.form = PredictRequest()
        self.tops: list[str] = []
        self.ended = False
        self._header: list[bytes] = [b"", b""]  # name and value of the one that is being read
        self._disposition = b""
        self._field = ""
        self._label: str | None = None  # the file's name
        self._value = bytearray()

    def callbacks(self) -> Any:
        """Methods by the names that `python_multipart.MultipartParser` calls them."""
        return {
            "on_part_begin": self.part_begin,
            "on_part_data": self.part_data,
            "on_part_end": self.part_end,
            "on_header_field": lambda *span: self.add_to_header(0, *span),
            "on_header_value": lambda *span: self.add_to_header(1, *span),
            "on_header_end": self.header_end,
            "on_headers_finished": self.headers_finished,
            "on_end": self.end,
        }

    def part_begin(self) -> None:
        """A field begins, with its headers."""
        self._disposition = b""
        self._field, self._label, self._value = "", None, bytearray()

    def add_to_header(self, index: int, data: bytes, start: int, end: int) -> None:
        """A piece of a header's name (0) or value (1)."""
        self._header[index] += data[start:end]
        if len(self._header[index]) > 8_000:
            raise RequestRefusedError(413, "A part of the form has a header that is too long.")

    def header_end(self) -> None:
        """A header is whole; of all only Content-Disposition says something."""
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = [b"", b""]

    def headers_finished(self) -> None:
        """It is known which field this is, and whether it holds a file."""
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self._disposition)
        name = _text(options.get(b"name", b""))
        _known_field(name, FORM_FIELDS)
        label = _text(options[b"filename"]) if b"filename" in options else None
        if label is None and re.search(rb";\s*filename\*", self._disposition):
            label = ""  # older clients send names that are not ASCII in this form alone
        if name == "image":
            if label is None:
                raise RequestRefusedError(
                    422,
                    "The field image holds a text and no file. With curl, write an @ before "
                    "the file's name: curl -F image=@cat.jpg.",
                )
            _at_most(len(self.form.images) + 1, self.limits.images, "images")
        elif label is not None:
            raise RequestRefusedError(422, f"The field {name} takes a text; a file was sent.")
        elif name == "name":
            _at_most(len(self.form.names or ()) + 1, self.limits.names, "names")
        elif self.tops:
            raise RequestRefusedError(422, "The field top is there twice.")
        self._field, self._label, self._value = name, label, bytearray()

    def part_data(self, data: bytes, start: int, end: int) -> None:
        """A piece of a field's value."""
        # a character takes at most 4 bytes in UTF-8; names are counted in characters later
        most = 4 * self.limits.name_length + 100
        if self._field != "image" and len(self._value) + end - start > most:
            raise RequestRefusedError(
                413,
                f"A text longer than {self.limits.name_length} characters in the field "
                f"{self._field}.",
            )
        self._value += memoryview(data)[start:end]

    def part_end(self) -> None:
        """A field is whole."""
        form = self.form
        if self._field == "image":
            label = (self._label or f"image {len(form.images) + 1}")[:MOST_LABEL]
            form.images.append(SentImage(label, bytes(self._value)))
        elif self._field == "name":
            form.names = [*(form.names or ()), _text(self._value)]
        else:
            self.tops.append(_text(self._value))

    def end(self) -> None:
        """The form is whole."""
        self.ended = True


def _read_json(body: bytes, limits: Limits) -> PredictRequest:
    values = _json_object(body, tuple(PredictJSON.model_fields), limits)
    names = _texts(values.get("names"), "names", limits.names)
    images = _texts(values.get("images"), "images", limits.images) or []
    top = values.get("top")
    return PredictRequest(
        [_decoded(text, f"image {number}") for number, text in enumerate(images, start=1)],
        names,
        TOP if top is None else _top(top),
    )


def _json_object(body: bytes, fields: Sequence[str], limits: Limits) -> dict[str, Any]:
    """A JSON object with these fields at most; commas and brackets are counted first, for a
    value needs one, and takes many times its bytes in memory."""
    signs = limits.images + limits.names * (1 + limits.name_length) + 100
    if any(body.count(sign) > signs for sign in (b",", b"[", b"{")):
        raise RequestRefusedError(
            413,
            f"Too many values; at most {limits.names} names and {limits.images} images a request.",
        )
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else f"{error}"[:120]
        raise RequestRefusedError(422, f"The body is no JSON: {why}.") from None
    if not isinstance(values, dict):
        fields_text = ", ".join(fields)
        raise RequestRefusedError(
            422, f"The body has to be a JSON object with the fields {fields_text}."
        )
    for name in values:
        _known_field(name, fields)
    return values


def _texts(value: Any, name: str, most: int) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise RequestRefusedError(422, f"The field {name} has to be a list of texts.")
    _at_most(len(value), most, name)
    for position, text in enumerate(value):
        if not isinstance(text, str):
            raise RequestRefusedError(
                422, f"{name}[{position}] has to be a text; got {text!a:.60}."
            )
    return value


def _decoded(text: str, label: str) -> SentImage:
    """The file in a text of base64, in lines or not, with the prefix of a data URL or not."""
    if text[:5].lower() == "data:":
        text = text.partition(",")[2]
    signs = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        data = base64.b64decode(signs + "=" * (-len(signs) % 4), validate=True)
    except ValueError:
        return SentImage(label, b"", f"{label}: no base64 of an image file.")
    return SentImage(label, data)


def _top(value: Any) -> int:
    try:
        number = int(value) if isinstance(value, str) and len(value) < 20 else value
    except ValueError:
        number = None
    if type(number) is not int or number < 1:
        raise RequestRefusedError(422, f"top has to be a whole number from 1; got {value!a:.60}.")
    return number


def _text(data: bytes | bytearray) -> str:
    """A text of a form; UTF-8, or what older programs send."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
