"""`simprompt serve`: a page and an HTTP interface that answer with learned prompts."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Annotated

import typer

from simprompt.cli.options import with_options
from simprompt.errors import SimpromptError, install
from simprompt.utils.options import PromptModelOptions
from simprompt.utils.terminal import say

if TYPE_CHECKING:
    from simprompt.deploy.access import Access


@with_options
def serve(
    prompts: Annotated[
        list[str],
        typer.Argument(help="Saved prompts, such as learned/prompt or hf://USER/NAME"),
    ],
    model: PromptModelOptions,
    port: Annotated[int, typer.Option(help="0 takes a free one", min=0, max=65535)] = 8000,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on; 0.0.0.0 lets other computers in. On loopback only its own "
            "names are answered, elsewhere IP addresses and this computer's name"
        ),
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A host name to answer to besides, such as a proxy's; * answers to all; may be "
            "repeated"
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Another site whose pages may ask, such as https://my.site.org (CORS); may be "
            "repeated"
        ),
    ] = None,
    root_path: Annotated[
        str, typer.Option(help="Path below which a proxy shows this server, such as /app")
    ] = "",
    batch_size: Annotated[int, typer.Option(help="Images per forward pass", min=1)] = 32,
    max_concurrent: Annotated[int, typer.Option(help="Requests answered at once", min=1)] = 64,
) -> None:
    """Serve a web page and an HTTP interface that classify images with one or more prompts.

    Zero-shot and all PROMPTs answer side by side. The server asks no other computer.
    """
    from simprompt.cli import warn
    from simprompt.clip.same_text import unread_warning

    try:
        import uvicorn

        from simprompt.deploy.connection import connection_class
        from simprompt.deploy.server import Limits, app
    except ImportError as error:
        raise SimpromptError(
            f"The page needs FastAPI and uvicorn ({error}): {install('app')}."
        ) from None
    from simprompt.deploy.access import access_to
    from simprompt.deploy.engine import Engine, load_prompts

    with _listening(host, port) as listening:
        address, number = listening.getsockname()[:2]
        access = access_to(address, host, allow_host or (), allow_origin or ())
        root = "/" + root_path.strip("/") if root_path.strip("/") else ""
        engine = Engine(load_prompts(prompts, model.model, model.tokenizer))
        clips = {
            id(contender.prompt.clip): contender.prompt.clip for contender in engine.contenders
        }
        for clip in clips.values():
            warn.tell(unread_warning(engine.names, clip.tokenizer))
        limits = Limits(batch=batch_size, in_flight=max_concurrent)
        config = uvicorn.Config(
            app(engine, limits, access, root),
            log_level="warning",
            timeout_graceful_shutdown=10,
            server_header=False,
            limit_concurrency=None,
            ws="none",
            http=connection_class(limits.connections, limits.idle_seconds),
        )
        say(f"{_url(host, address, number)}  (Ctrl+C stops)")
        if access.addresses:
            say(_open_to_others(access, address), err=True)
        uvicorn.Server(config).run(sockets=[listening])


def _url(host: str, address: str, port: int) -> str:
    """What a browser on this computer opens."""
    from simprompt.deploy.access import is_any

    if is_any(address):  # not every browser opens 0.0.0.0 or ::
        host = "::1" if ":" in address else "127.0.0.1"
    if ":" in host and "[" not in host:
        host = f"[{host}]"
    return f"http://{host}:{port}/"


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        SimpromptError: the address or port cannot be had.
    """
    try:
        listening = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except (OSError, OverflowError, UnicodeError) as error:
        raise SimpromptError(
            f"{host}:{port} cannot be listened on: {error}. Choose another --port or --host."
        ) from None
    # asyncio sets it for sockets that it opens itself; without it each answer waits 40 ms
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _open_to_others(access: Access, address: str) -> str:
    """What a user should know of a server that other computers reach."""
    from simprompt.deploy.access import ANY

    names = sorted({*access.hosts, *access.sites} - {address})
    answered = "every host name" if ANY in names else f"IP addresses and {', '.join(names)}"
    return (
        f"Other computers can reach this server at {address}: it asks for no password and encrypts "
        f"nothing. It answers to {answered}; --allow-host adds a name."
    )
