"""`touchline triton`: the local CPU Triton in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.terminal import CommandError, aside
from local.triton import DEFAULT_REPOSITORY, LocalTriton, LocalTritonError, Ports


def command(
    repository: Annotated[
        Path | None, typer.Option(help="Folder of model directories. Default: the bundled one.")
    ] = None,
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for gRPC.")] = 8001,
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for HTTP.")] = 8000,
    metrics_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for Prometheus metrics.")] = 8002,
) -> None:
    """Run the local CPU Triton in the foreground, on the loopback address."""
    ports = Ports(grpc=grpc_port, http=http_port, metrics=metrics_port)
    if len({grpc_port, http_port, metrics_port}) < 3:
        raise CommandError("--grpc-port, --http-port and --metrics-port must be three different ports")
    try:
        with LocalTriton(repository or DEFAULT_REPOSITORY, ports=ports) as server:
            server.wait_ready()
            aside.print(f"[green]Triton is ready[/] for `touchline serve` with TRITON_URLS={server.grpc_url}")
            status = server.wait()
    except LocalTritonError as error:
        raise CommandError(str(error)) from error
    raise typer.Exit(status)
