"""`touchline triton`: the local CPU Triton in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.terminal import CommandError, aside
from gateway.doctor.host import owner_of
from gateway.doctor.probes import Host
from gateway.errors import StartupError
from gateway.listening import bind
from local.progress import spinner
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
        raise CommandError("--grpc-port, --http-port and --metrics-port must differ; name three ports")
    for option, port in (("--grpc-port", grpc_port), ("--http-port", http_port), ("--metrics-port", metrics_port)):
        try:
            for taken in bind("127.0.0.1", port):
                taken.close()
        except StartupError as error:
            owner = owner_of(Host(), port)
            raise CommandError(f"{option} {port} is taken{f' by {owner}' if owner else ''}; name a free one") from error
    try:
        with LocalTriton(repository or DEFAULT_REPOSITORY, ports=ports) as server:
            with spinner(aside, "starting Triton"):
                server.wait_ready()
            aside.print(f"[green]Triton is ready[/] for `touchline serve` with TRITON_URLS={server.grpc_url}")
            try:
                status = server.wait()
            finally:
                server.stop()  # in order, for a gateway that it is answering
    except LocalTritonError as error:
        raise CommandError(str(error)) from error
    raise typer.Exit(status)
