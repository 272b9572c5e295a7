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
from starlette.exceptions import HTTPException

from simprompt._version import __version__
from simprompt.clip.same_text import new_names
from simprompt.data.image_files import ImageError
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
from simprompt.deploy.schemas import (
    About,
    Answer,
    Choice,
    ImageAnswer,
    Info,
    Prediction,
    Similarities,
    Wrong,
)
from simprompt.errors import SimpromptError

PAGE = Path(__file__).parent / "page"
WORKS = ("/predict", "/similarities")

T = TypeVar("T")


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
    metrics = _Metrics()
    service = _Service(engine, limits, metrics)
    api = FastAPI(
        title="simprompt",
        version=__version__,
        lifespan=service.lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        description="Learned prompts for CLIP: images and class names in, probabilities out.",
    )
    api.add_middleware(
        Gate,
        access=access or Access(),
        limits=limits,
        works=WORKS,
        root_path=root_path,
        observe=metrics.observe,
    )
    _answer_errors(api)
    _add_routes(api, service, metrics)
    _show_page(api)
    metrics.paths |= {route.path for route in api.routes if hasattr(route, "path")}
    return api


class _Metrics:
    """Counts and times of this server, for Prometheus.

    Attributes:
        paths: those that are counted by their name, all others as one: a client may ask for any
            number of paths, and each name is kept in memory.
    """

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "simprompt_requests", "Requests", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "simprompt_seconds", "Seconds a request", ["path"], registry=self.registry
        )
        self.sizes = Histogram(
            "simprompt_batch",
            "Images a batch",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        route = path if path in self.paths else "other"
        self.seconds.labels(route).observe(seconds)
        self.requests.labels(route, str(status)).inc()

    def text(self) -> bytes:
        """All of them, in the text format of Prometheus."""
        return generate_latest(self.registry)


class _Service:
    """The engine behind the routes: parsing and decoding in threads, images in batches."""

    def __init__(self, engine: Engine, limits: Limits, metrics: _Metrics) -> None:
        self.engine, self.limits = engine, limits
        self.batcher: Batcher[Question, dict[str, Judgement]] = Batcher(
            engine.answer, limits.batch, metrics.sizes.observe
        )
        self.parsers = ThreadPoolExecutor(2, thread_name_prefix="parsers")
        self.decoder = _Decoder(engine, limits)

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Batches are answered in here; afterwards the threads end."""
        task = asyncio.create_task(self.batcher.run())
        yield
        task.cancel()
        self.batcher.close()
        for pool in (self.parsers, self.decoder.threads):
            pool.shutdown(wait=False, cancel_futures=True)

    async def parsed(self, work: Callable[..., T], *arguments: Any) -> T:
        """What this function returns; it runs in a thread of the parsers."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.parsers, partial(work, *arguments))

    async def prediction(self, request: Request) -> bytes:
        """The answer to images and names, as JSON."""
        started = time.perf_counter()
        body, kind = await _body(request), request.headers.get("content-type", "")
        form = await self.parsed(read_predict, kind, body, self.limits)
        del body  # it may be large, and the images have their own bytes by now
        names = self.engine.names
        if form.names is not None:
            names = await self.parsed(checked_names, form.names, self.limits)
        labels = [image.label for image in form.images]
        pictures = await self.decoder.pictures(form.images)
        questions = [
            Question(picture, names) for picture in pictures if isinstance(picture, Picture)
        ]
        answers = iter(await asyncio.gather(*map(self.batcher.ask, questions)))
        rows = [
            (label, picture, next(answers) if isinstance(picture, Picture) else {})
            for label, picture in zip(labels, pictures, strict=True)
        ]
        return await self.parsed(_prediction, names, rows, form.top, started)

    async def similarities(self, request: Request) -> bytes:
        """Cosines between the names of a request, as JSON."""
        body, kind = await _body(request), request.headers.get("content-type", "")
        names = checked_names(await self.parsed(read_names, kind, body, self.limits), self.limits)
        matrices = await self.batcher.call(partial(self.engine.similarities, names))
        return await self.parsed(_similarities, names, matrices)

    def info(self) -> Info:
        """The prompts and the limits."""
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
            for contender in self.engine.contenders
        ]
        return Info(
            version=__version__,
            prompts=about,
            names=list(self.engine.names),
            limits=self.limits.model_dump(),
        )


def _add_routes(api: FastAPI, service: _Service, counts: _Metrics) -> None:
    """The routes that answer programs; their docstrings are what /docs says of them."""

    @api.post("/predict", response_model=Prediction, responses=ERRORS, openapi_extra=PREDICT_SCHEMA)
    async def predict(request: Request) -> Response:
        """Images among class names, known before or not, as a form or as JSON. An image that
        cannot be read has an `error`, and the others their answers."""
        return _json(await service.prediction(request))

    @api.post(
        "/similarities", response_model=Similarities, responses=ERRORS, openapi_extra=NAMES_SCHEMA
    )
    async def similarities(request: Request) -> Response:
        """How alike class names are to each prompt: cosines of their text features."""
        return _json(await service.similarities(request))

    @api.get("/info", responses=ERRORS)
    async def info() -> Info:
        """The prompts, their classes, and what a request may ask for."""
        return service.info()

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the server answers."""
        return {"status": "ok"}

    @api.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counts and times, in the text format of Prometheus."""
        return Response(counts.text(), media_type=CONTENT_TYPE_LATEST)


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
                except asyncio.CancelledError:
                    # a thread cannot be stopped: its pixels stay counted until it ends
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
