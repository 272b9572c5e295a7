"""`simprompt serve`: a page and an HTTP interface for prompts; see docs/serve.md.

    POST /predict        images and class names -> probabilities, prompt by prompt
    POST /similarities   class names -> how alike their text features are
    GET  /info           the prompts, their classes, the limits
    GET  /openapi.json, /docs, /healthz, /metrics, /

A request carries bytes and names and never a path. Whatever is wrong with it is answered with a
4xx status and one sentence. All that the page needs comes from here: no other host is asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from simprompt import __version__
from simprompt.clip.same_text import new_names, repeated
from simprompt.config import Settings
from simprompt.data.images import ImageError, read_image
from simprompt.deploy.batching import Batcher
from simprompt.deploy.engine import Engine, Names, Question
from simprompt.deploy.pages import docs_page
from simprompt.errors import SimpromptError

PAGE = Path(__file__).parent / "page"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; media-src 'self' blob:; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Limits(Settings):
    """What one request, and all together, may ask for."""

    bytes: int = Field(20_000_000, ge=1, description="of a whole request")
    pixels: int = Field(40_000_000, ge=1, description="of an image")
    images: int = Field(16, ge=1, description="in a request")
    names: int = Field(500, ge=1, description="in a request")
    name_length: int = Field(200, ge=1, description="characters of a name")
    in_flight: int = Field(64, ge=1, description="requests that are being answered at once")
    seconds: float = Field(30.0, gt=0, description="until a request is given up")
    batch: int = Field(32, ge=1, description="images that go through a tower together; 1: no batch")


class Choice(BaseModel):
    """A class name and its probability."""

    name: str
    probability: float


class Answer(BaseModel):
    """What one prompt makes of one image."""

    prompt: str
    choices: list[Choice] = Field(description="the likeliest first")


class ImageAnswer(BaseModel):
    """What all prompts make of one image."""

    image: str = Field(description="the file's name, as it was sent")
    width: int
    height: int
    answers: list[Answer]


class Prediction(BaseModel):
    """The answer to images and names."""

    names: list[str]
    images: list[ImageAnswer]
    seconds: float


class Similarities(BaseModel):
    """Cosines between the names, under each prompt."""

    names: list[str]
    matrices: dict[str, list[list[float]]] = Field(description="prompt -> cosines [C][C]")


class Wrong(BaseModel):
    """The answer to a request that cannot be met."""

    detail: str = Field(description="one sentence: what was wrong and what to do")


class About(BaseModel):
    """A prompt that is served."""

    name: str
    method: str
    model: str
    sar: bool
    classes: list[str]
    new_classes: list[str]
    unknown: float = Field(description='its threshold for "none of these"; 0: not calibrated')


class Info(BaseModel):
    """What is served, and its limits."""

    version: str
    prompts: list[About]
    names: list[str] = Field(description="what the page begins with")
    limits: dict[str, float]


Name = Annotated[str, Field(min_length=1, description="a class name")]


class NamesBody(BaseModel):
    """A request about names alone."""

    names: list[Name] = Field(min_length=1)


class RequestRefusedError(SimpromptError):
    """A request that cannot be answered, and the status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Wrong} for status in (400, 403, 405, 413, 415, 422, 429)
}


def app(engine: Engine, limits: Limits | None = None, hosts: Sequence[str] = ("*",)) -> FastAPI:
    """The application, for any ASGI server.

    Args:
        hosts: values of the Host header that are answered, ports left out; "*" answers all. A
            server on loopback answers to its own names only, so that no web page can reach it
            under a name of its own.
    """
    limits = limits or Limits()
    registry = CollectorRegistry()
    requests = Counter("simprompt_requests", "Requests", ["path", "status"], registry=registry)
    seconds = Histogram("simprompt_seconds", "Seconds a request", ["path"], registry=registry)
    sizes = Histogram(
        "simprompt_batch", "Images a batch", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
    )
    batcher: Batcher[Question, dict[str, list[float]]] = Batcher(
        engine.answer, limits.batch, sizes.observe
    )

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(batcher.run())
        yield
        task.cancel()
        batcher.close()

    api = FastAPI(
        title="simprompt", version=__version__, lifespan=life, docs_url=None, redoc_url=None,
        description="Learned prompts for CLIP: images and class names in, probabilities out.",
    )  # fmt: skip

    async def within_limits(
        request: Request, proceed: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        started = time.perf_counter()
        route = request.url.path if request.url.path in {r.path for r in routes} else "other"
        response = await _guarded(request, proceed)
        response.headers.update(HEADERS)
        seconds.labels(route).observe(time.perf_counter() - started)
        requests.labels(route, str(response.status_code)).inc()
        return response

    busy = 0

    async def _guarded(
        request: Request, proceed: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        nonlocal busy
        if "*" not in hosts and (request.url.hostname or "") not in hosts:
            return _wrong(403, "This server answers to its own address only.")
        origin = request.headers.get("origin")
        if origin and origin != f"{request.url.scheme}://{request.url.netloc}":
            return _wrong(403, "Pages of other sites may not ask this server.")
        if busy >= limits.in_flight:
            return _wrong(429, "Too many requests at once; ask again in a moment.", 1)
        busy += 1
        try:
            return await asyncio.wait_for(proceed(request), limits.seconds)
        except TimeoutError:
            return _wrong(429, f"No answer within {limits.seconds:g} s; ask again later.", 5)
        finally:
            busy -= 1

    api.middleware("http")(within_limits)
    api.add_middleware(_Body, most=limits.bytes)

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = " of ".join(str(part) for part in reversed(first["loc"]))
        return _wrong(422, f"{first['msg']}: {place}."[:400])

    @api.exception_handler(SimpromptError)
    async def refused(_: Request, error: SimpromptError) -> Response:
        return _wrong(getattr(error, "status", 422), str(error)[:1000])

    @api.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        answer = _wrong(error.status_code, f"{error.detail}.".replace("..", "."))
        answer.headers.update(error.headers or {})
        return answer

    @api.post("/predict", responses=ERRORS)
    async def predict(
        image: Annotated[list[UploadFile], File(description="image files")],
        name: Annotated[
            list[Name] | None, Form(description="class names; none: the prompts' own")
        ] = None,
        top: Annotated[int, Form(ge=1, description="choices of each prompt")] = 10,
    ) -> Prediction:
        """Images among class names, known before or not."""
        started = time.perf_counter()
        names = _names(name or engine.names, limits)
        if len(image) > limits.images:
            raise RequestRefusedError(
                413, f"{len(image)} images; at most {limits.images} a request."
            )
        pictures = []
        for number, one in enumerate(image, start=1):
            data = await one.read()
            label = (one.filename or f"image {number}")[:200]
            pictures.append((label, await asyncio.to_thread(_picture, data, label, limits)))
        questions = [Question(picture, names) for _, picture in pictures]
        made = await asyncio.gather(*(batcher.ask(question) for question in questions))
        images = [
            ImageAnswer(
                image=label, width=picture.width, height=picture.height,
                answers=[
                    Answer(prompt=prompt, choices=_choices(names, values, top))
                    for prompt, values in answer.items()
                ],
            )
            for (label, picture), answer in zip(pictures, made, strict=True)
        ]  # fmt: skip
        took = round(time.perf_counter() - started, 4)
        return Prediction(names=list(names), images=images, seconds=took)

    @api.post("/similarities", responses=ERRORS)
    async def similarities(body: NamesBody) -> Similarities:
        """How alike class names are to each prompt: cosines of their text features."""
        names = _names(body.names, limits)
        return Similarities(
            names=list(names), matrices=await asyncio.to_thread(engine.similarities, names)
        )

    @api.get("/info", responses=ERRORS)
    async def info() -> Info:
        """The prompts, their classes, and what a request may ask for."""
        about = [
            About(
                name=one.name, method=one.prompt.card.get("method", "zero-shot"),
                model=one.learner.clip.name, sar=bool(one.prompt.card.get("sar")),
                classes=list(one.known), unknown=one.prompt.unknown,
                new_classes=list(new_names(one.prompt.classes, one.known)),
            )
            for one in engine.contenders
        ]  # fmt: skip
        return Info(
            version=__version__, prompts=about, names=list(engine.names),
            limits=limits.model_dump(),
        )  # fmt: skip

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the server answers."""
        return {"status": "ok"}

    @api.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counts and times, in the text format of Prometheus."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @api.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(docs_page(api.openapi()))

    @api.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", media_type="text/html")

    @api.get("/page.{kind}", include_in_schema=False)
    async def part(kind: str) -> FileResponse:
        types = {"css": "text/css", "js": "text/javascript"}
        if kind not in types:
            raise HTTPException(404, "There is no such page")
        return FileResponse(PAGE / f"page.{kind}", media_type=types[kind])

    routes: list[Any] = [route for route in api.routes if hasattr(route, "path")]
    return api


def _names(given: Sequence[str], limits: Limits) -> Names:
    """The names of a request without blanks around them.

    Raises:
        RequestRefusedError: none, too many, one that is empty, too long or there twice.
    """
    names = tuple(" ".join(name.split()) for name in given)
    if len(names) > limits.names:
        raise RequestRefusedError(413, f"{len(names)} names; at most {limits.names} a request.")
    if not names or not all(names):
        raise RequestRefusedError(422, "Give at least one class name, and no empty one.")
    long = [name for name in names if len(name) > limits.name_length]
    if long:
        raise RequestRefusedError(
            413, f"A name of {len(long[0])} characters; at most {limits.name_length} are taken."
        )
    for same in repeated(names):
        raise RequestRefusedError(422, f"The name {names[same[0]]!r} is there twice.")
    return names


def _picture(data: bytes, label: str, limits: Limits) -> Any:
    try:
        return read_image(data, upright=True, name=label, most_pixels=limits.pixels)
    except ImageError as error:
        raise RequestRefusedError(415, str(error)) from error


def _choices(names: Names, values: Sequence[float], top: int) -> list[Choice]:
    order = sorted(range(len(names)), key=lambda i: -values[i])[:top]
    return [Choice(name=names[i], probability=values[i]) for i in order]


def _wrong(status: int, message: str, retry: int | None = None) -> JSONResponse:
    headers = {"Retry-After": str(retry)} if retry else None
    return JSONResponse({"detail": message}, status, headers)


class _Body:
    """Refuses a request whose body is longer than `most` bytes, before it is read whole."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        too_long = _wrong(413, f"The request is longer than {self.most:,} bytes.")
        too_long.headers.update(HEADERS)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self.most:
            await too_long(scope, receive, send)
            return
        got, started, over = 0, False, False

        async def counted() -> Message:
            nonlocal got, over
            message = await receive()
            got += len(message.get("body", b""))
            if got > self.most:
                over = True
                raise RequestRefusedError(413, "too long")
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            if not over:  # what the application makes of half a body is of no interest
                started = True
                await send(message)

        try:
            await self.app(scope, counted, watched)
        except Exception:
            if not over:
                raise
        if over and not started:
            await too_long(scope, receive, send)
