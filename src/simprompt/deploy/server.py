"""`simprompt serve`: a page and an HTTP interface for prompts; see docs/deploy.md.

    POST /predict        images and class names -> probabilities, prompt by prompt
    POST /similarities   class names -> how alike their text features are
    GET  /info           the prompts, their classes, the limits
    GET  /openapi.json, /docs, /healthz, /metrics, /

A request carries bytes and names and never a path. Whatever is wrong with it is answered with a
4xx status and one sentence. All that the page needs comes from here: no other host is asked. The
event loop only passes bytes on: parsing, decoding and answering run in threads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from simprompt._version import __version__
from simprompt.clip.same_text import new_names
from simprompt.data.images import ImageError
from simprompt.deploy.access import Access
from simprompt.deploy.batching import Batcher
from simprompt.deploy.bodies import (
    NAMES_SCHEMA,
    PREDICT_SCHEMA,
    RequestRefusedError,
    SentImage,
    checked_names,
    read_names,
    read_predict,
)
from simprompt.deploy.bodies import Limits as Limits
from simprompt.deploy.budget import Budget
from simprompt.deploy.engine import Engine, Judgement, Names, Picture, Question, pixels_of
from simprompt.deploy.gate import Gate, refusal
from simprompt.deploy.pages import docs_page
from simprompt.errors import SimpromptError

PAGE = Path(__file__).parent / "page"
WORKS = ("/predict", "/similarities")

T = TypeVar("T")


class Choice(BaseModel):
    """A class name and its probability."""

    name: str
    probability: float


class Answer(BaseModel):
    """What one prompt makes of one image."""

    prompt: str
    choices: list[Choice] = Field(description="the likeliest first")
    certainty: float | None = Field(
        description='what a threshold for "none of these" is compared with: the probability of the '
        "first choice with the prompt's own classes among the candidates; null: it cannot be told"
    )


class ImageAnswer(BaseModel):
    """What all prompts make of one image."""

    image: str = Field(description="the file's name, as it was sent")
    width: int = Field(description="pixels; 0 where the image could not be read")
    height: int
    answers: list[Answer] = Field(description="none where the image could not be read")
    error: str | None = Field(None, description="why it could not be read")


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


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Wrong} for status in (400, 403, 405, 408, 413, 415, 422, 429)
}


def app(
    engine: Engine,
    limits: Limits | None = None,
    access: Access | None = None,
    root_path: str = "",
) -> FastAPI:
    """The application, for any ASGI server.

    Args:
        access: which host names and sites are answered; None answers all names, and pages of this
            site only.
        root_path: where a proxy shows it, such as "/app"; the proxy may take this prefix off the
            paths or leave it.
    """
    limits = _with_own_names(limits or Limits(), engine.names)
    registry = CollectorRegistry()
    requests = Counter("simprompt_requests", "Requests", ["path", "status"], registry=registry)
    seconds = Histogram("simprompt_seconds", "Seconds a request", ["path"], registry=registry)
    sizes = Histogram(
        "simprompt_batch", "Images a batch", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
    )
    batcher: Batcher[Question, dict[str, Judgement]] = Batcher(
        engine.answer, limits.batch, sizes.observe
    )
    parsers = ThreadPoolExecutor(2, thread_name_prefix="parsers")
    decoder = _Decoder(engine, limits)

    async def parsed(work: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(parsers, partial(work, *given))

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(batcher.run())
        yield
        task.cancel()
        batcher.close()
        for pool in (parsers, decoder.threads):
            pool.shutdown(wait=False, cancel_futures=True)

    api = FastAPI(
        title="simprompt",
        version=__version__,
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        description="Learned prompts for CLIP: images and class names in, probabilities out.",
    )

    def observe(path: str, status: int, took: float) -> None:
        route = path if path in paths else "other"
        seconds.labels(route).observe(took)
        requests.labels(route, str(status)).inc()

    api.add_middleware(
        Gate,
        access=access or Access(),
        limits=limits,
        works=WORKS,
        root_path=root_path,
        observe=observe,
    )

    _answer_errors(api)

    @api.post("/predict", response_model=Prediction, responses=ERRORS, openapi_extra=PREDICT_SCHEMA)
    async def predict(request: Request) -> Response:
        """Images among class names, known before or not, as a form or as JSON. An image that
        cannot be read has an `error`, and the others their answers."""
        started = time.perf_counter()
        body = await _body(request)
        form = await parsed(read_predict, request.headers.get("content-type", ""), body, limits)
        del body
        names = engine.names
        if form.names is not None:
            names = await parsed(checked_names, form.names, limits)
        labels = [image.label for image in form.images]
        pictures = await decoder.pictures(form.images)
        readable = [picture for picture in pictures if isinstance(picture, Picture)]
        answers = iter(
            await asyncio.gather(*(batcher.ask(Question(picture, names)) for picture in readable))
        )
        rows = [
            (label, picture, next(answers) if isinstance(picture, Picture) else {})
            for label, picture in zip(labels, pictures, strict=True)
        ]
        return _json(await parsed(_prediction, names, rows, form.top, started))

    @api.post(
        "/similarities", response_model=Similarities, responses=ERRORS, openapi_extra=NAMES_SCHEMA
    )
    async def similarities(request: Request) -> Response:
        """How alike class names are to each prompt: cosines of their text features."""
        body, kind = await _body(request), request.headers.get("content-type", "")
        names = checked_names(await parsed(read_names, kind, body, limits), limits)
        matrices = await batcher.call(partial(engine.similarities, names))
        return _json(await parsed(_similarities, names, matrices))

    @api.get("/info", responses=ERRORS)
    async def info() -> Info:
        """The prompts, their classes, and what a request may ask for."""
        about = [
            About(
                name=contender.name,
                method=contender.prompt.card.get("method", "zero-shot"),
                model=contender.learner.clip.name,
                sar=bool(contender.prompt.card.get("sar")),
                classes=list(contender.known),
                unknown=contender.prompt.unknown,
                new_classes=list(new_names(contender.prompt.classes, contender.known)),
            )
            for contender in engine.contenders
        ]
        return Info(
            version=__version__,
            prompts=about,
            names=list(engine.names),
            limits=limits.model_dump(),
        )

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the server answers."""
        return {"status": "ok"}

    @api.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counts and times, in the text format of Prometheus."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    _show_page(api)
    paths = {route.path for route in api.routes if hasattr(route, "path")}
    return api


def _answer_errors(api: FastAPI) -> None:
    """Each error is one sentence with its status."""

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first_error = error.errors()[0]
        location = " of ".join(str(step) for step in reversed(first_error["loc"]))
        return refusal(422, f"{first_error['msg']}: {location}."[:400])

    @api.exception_handler(SimpromptError)
    async def refused(_: Request, error: SimpromptError) -> Response:
        return refusal(getattr(error, "status", 422), str(error)[:1000])

    @api.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        answer = refusal(error.status_code, f"{error.detail}.".replace("..", "."))
        answer.headers.update(error.headers or {})
        return answer


def _show_page(api: FastAPI) -> None:
    """The page, and the documentation of the routes that are there by now."""
    files = {name: (PAGE / name).read_bytes() for name in ("index.html", "page.css", "page.js")}
    documentation = docs_page(api.openapi())

    @api.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(documentation)

    @api.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(files["index.html"])

    @api.get("/page.{kind}", include_in_schema=False)
    async def part(kind: str) -> Response:
        types = {"css": "text/css", "js": "text/javascript"}
        if kind not in types:
            raise HTTPException(404, "There is no such page")
        return Response(files[f"page.{kind}"], media_type=types[kind])


class _Decoder:
    """Images of requests -> what the models look at.

    A photo of 40 million pixels takes hundreds of megabytes while it is decoded, and a few
    kilobytes in a file. So the pixels that are being decoded are counted for all requests, and of
    an image only the size that the models take is kept.
    """

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self.engine, self.limits = engine, limits
        self.threads = ThreadPoolExecutor(2, thread_name_prefix="decoders")
        self.decoding = Budget(limits.pixels)

    async def pictures(self, images: Sequence[SentImage]) -> list[Picture | str]:
        """The pictures, one after the other; in the place of an unreadable one, the reason.

        Raises:
            RequestRefusedError: all are unreadable, or they have too many pixels together.
        """
        sizes = [0 if image.error else await self._size(image) for image in images]
        limit = self.limits.request_pixels
        if sum(sizes) > limit:
            raise RequestRefusedError(
                413,
                f"The images have {sum(sizes):,} pixels; at most {limit:,} a request. "
                "Send fewer at a time, or smaller ones.",
            )
        pictures = [await self._picture(*pair) for pair in zip(images, sizes, strict=True)]
        wrong = [picture for picture in pictures if isinstance(picture, str)]
        if len(wrong) == len(pictures):
            suffix = f" So are {len(wrong) - 1} other images." if len(wrong) > 1 else ""
            raise RequestRefusedError(415, f"{wrong[0]}{suffix}")
        return pictures

    async def _size(self, image: SentImage) -> int:
        """Pixels of an image that may be decoded; else 0, and its error says why."""
        work = partial(pixels_of, image.data, image.label, self.limits.pixels)
        try:
            return await asyncio.get_running_loop().run_in_executor(self.threads, work)
        except ImageError as error:
            image.error = str(error)
            return 0

    async def _picture(self, image: SentImage, pixels: int) -> Picture | str:
        if image.error:
            return image.error
        work = partial(self.engine.picture, image.data, image.label, self.limits.pixels)
        try:
            async with self.decoding.hold(pixels):
                job = self.threads.submit(work)
                try:
                    return await asyncio.shield(asyncio.wrap_future(job))
                except (
                    asyncio.CancelledError
                ):  # a thread cannot be stopped: its pixels stay counted
                    if not job.cancel():
                        await asyncio.wait({asyncio.wrap_future(job)})
                    raise
        except ImageError as error:
            return str(error)
        finally:
            image.data = b""


def _with_own_names(limits: Limits, names: Names) -> Limits:
    """Limits that let a request name all classes of the prompts themselves."""
    longest = max(map(len, names))
    return limits.model_copy(
        update={
            "names": max(limits.names, len(names)),
            "name_length": max(limits.name_length, longest),
        }
    )


async def _body(request: Request) -> bytes:
    """The body of a request without fields in its address."""
    if request.url.query:
        raise RequestRefusedError(
            422,
            "Fields belong into the body, not behind a ? in the address; got "
            f"{request.url.query!a:.80}.",
        )
    # Request.body() would keep it as long as the request lives
    return b"".join([chunk async for chunk in request.stream()])


def _prediction(
    names: Names,
    rows: Sequence[tuple[str, Picture | str, dict[str, Judgement]]],
    top: int,
    started: float,
) -> bytes:
    images = []
    for label, picture, answer in rows:
        answers = [
            Answer(
                prompt=prompt,
                choices=_choices(names, judgement.probabilities, top),
                certainty=judgement.certainty,
            )
            for prompt, judgement in answer.items()
        ]
        width, height, error = 0, 0, None
        if isinstance(picture, Picture):
            width, height = picture.width, picture.height
        else:
            error = picture
        images.append(
            ImageAnswer(image=label, width=width, height=height, answers=answers, error=error)
        )
    duration = round(time.perf_counter() - started, 4)
    return Prediction(names=list(names), images=images, seconds=duration).model_dump_json().encode()


def _similarities(names: Names, matrices: dict[str, list[list[float]]]) -> bytes:
    return Similarities(names=list(names), matrices=matrices).model_dump_json().encode()


def _choices(names: Names, values: Sequence[float], top: int) -> list[Choice]:
    order = sorted(range(len(names)), key=lambda i: -values[i])[:top]
    return [Choice(name=names[i], probability=values[i]) for i in order]


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
