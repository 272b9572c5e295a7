"""`simprompt serve`: a page and an HTTP interface that answer with learned prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simprompt.terminal import say


def serve(
    prompts: Annotated[
        list[Path],
        typer.Argument(help="Saved prompts, such as learned/prompt"),
    ],
    port: Annotated[int, typer.Option(help="0 takes a free one", min=0, max=65535)] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other computers in")
    ] = "127.0.0.1",
    batch: Annotated[
        int, typer.Option(help="Images that go through the model together", min=1)
    ] = 32,
    in_flight: Annotated[int, typer.Option(help="Requests answered at once", min=1)] = 64,
) -> None:
    """Answer on a web page, and over HTTP: drop images, type class names.

    Zero-shot and all PROMPTs answer side by side. Nothing is asked of any other computer.
    """
    import socket

    from simprompt.clip.same_text import unread_warning
    from simprompt.commands import warn
    from simprompt.errors import SimpromptError

    try:
        import uvicorn

        from simprompt.deploy.server import Limits, app
    except ImportError as error:
        raise SimpromptError(
            f"The page needs FastAPI and uvicorn ({error}): `pip install 'simprompt[app]'`."
        ) from None
    from simprompt.deploy.engine import Engine, load_prompts

    try:
        listening = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except (OSError, OverflowError) as error:
        raise SimpromptError(
            f"{host}:{port} cannot be listened on: {error}. Choose another --port or --host."
        ) from None
    with listening:
        # asyncio sets it for sockets that it opens itself; without it each answer waits 40 ms
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        engine = Engine(load_prompts(prompts))
        tokenizers = {id(one.prompt.clip): one.prompt.clip.tokenizer for one in engine.contenders}
        for tokenizer in tokenizers.values():
            warn.tell(unread_warning(engine.names, tokenizer))
        local = host in ("127.0.0.1", "localhost", "::1")
        hosts = ("127.0.0.1", "localhost", "::1", "[::1]") if local else ("*",)
        made = app(engine, Limits(batch=batch, in_flight=in_flight), hosts)
        config = uvicorn.Config(
            made, log_level="warning", timeout_graceful_shutdown=10, server_header=False,
            limit_concurrency=None,
        )  # fmt: skip
        shown = f"[{host}]" if ":" in host else host
        say(f"http://{shown}:{listening.getsockname()[1]}/  (Ctrl+C stops)")
        uvicorn.Server(config).run(sockets=[listening])
