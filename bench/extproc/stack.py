"""What one cell measures: an arm's server, and the Envoy in front of it, started afresh and known to answer."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import yaml

from bench.extproc import envoy
from bench.extproc.arms import LABELS, Arm, Kind, fill
from bench.extproc.bodies import chat_bodies, http_request
from bench.extproc.envoy import Ports
from bench.extproc.lab import Lab
from bench.extproc.workloads import Workload
from bench.http import get, request
from bench.ports import HOST, free_ports
from bench.processes import Child, Failed, python


class Stack:
    """`async with Stack(lab, arm, workload) as stack`. Raises Failed when something does not come up within 20 s."""

    def __init__(self, lab: Lab, arm: Arm, workload: Workload, *, watch: bool = True) -> None:
        """`watch`: our own servers run under `bench.extproc.watched`."""
        self.arm = arm
        self.is_watched = watch and arm.kind in (Kind.PICKER, Kind.ECHO)
        self.ports = Ports(*free_ports(5))
        self._workload = workload
        self._exit = AsyncExitStack()
        self._lab = lab
        self.server = self._server()
        self.envoy = None if workload.idle else Child("envoy", envoy.command(lab.envoy_path, lab.bootstrap(arm), self.ports), lab.folder)

    def _server(self) -> Child | None:
        arm, lab, ports = self.arm, self._lab, self.ports
        endpoints = lab.endpoints(self._workload.endpoints)
        listed = ",".join(endpoints)
        flags = [f"--grpc-port={ports.grpc}", f"--grpc-health-port={ports.health}"]
        match arm.kind:
            case Kind.PLAIN:
                return None
            case Kind.PEER:
                values = {"grpc_port": ports.grpc, "health_port": ports.health, "metrics_port": ports.metrics, "endpoints": listed}
                return Child(arm.name, fill(arm.command, {k: str(v) for k, v in values.items()}), lab.folder, is_tree=True)
            case Kind.ECHO:
                flags.append(f"--endpoints={listed}")
                return self._own("bench.extproc.echo", flags)
            case Kind.PICKER:
                flags += [f"--metrics-port={ports.metrics}", f"--host={HOST}", "--secure-serving=false", "--drain-timeout=0", *arm.flags]
                flags += [f"--config-text={arm.config}"] if arm.config is not None else []
                if arm.labels:
                    path = lab.folder / "endpoints.yaml"
                    path.write_text(yaml.safe_dump({"endpoints": [_labelled(i, text) for i, text in enumerate(endpoints)]}))
                    flags.append(f"--endpoints-file={path}")
                else:
                    flags.append(f"--endpoints={listed}")
                return self._own("picker.__main__", flags)

    def _own(self, module: str, flags: list[str]) -> Child:
        command = python("bench.extproc.watched", module, *flags) if self.is_watched else python(module, *flags)
        return Child(self.arm.name, command, self._lab.folder, pipes=self.is_watched)

    async def __aenter__(self) -> Stack:
        try:
            if self.server is not None:
                await self._exit.enter_async_context(self.server)
                await self.server.until(self._server_listens, "it serves")
            if self.envoy is not None:
                await self._exit.enter_async_context(self.envoy)
                await self.envoy.until(self._passes, "a request passes")
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exit.aclose()

    def check(self) -> None:
        """Raises Failed when a process has ended, or has logged an error of its own."""
        for child in (self.server, self.envoy):
            if child is not None:
                child.check()
        if self.arm.kind is Kind.PICKER and self.server is not None and "Traceback" in self.server.log():
            raise Failed(f"{self.server.name} has logged a traceback: {self.server.tail()}")

    async def _server_listens(self) -> str | None:
        if self.arm.kind is Kind.PICKER:
            status, body = await request(self.ports.metrics, get("/readyz"))
            return None if status == 200 else f"readyz says {status}: {body.decode(errors='replace')}"
        _, writer = await asyncio.open_connection(HOST, self.ports.grpc)
        writer.close()
        return None

    async def _passes(self) -> str | None:
        body = chat_bodies(2_000, 1, stream=False)[0]
        status, answer = await request(self.ports.listen, http_request(f"{HOST}:{self.ports.listen}", body))
        return None if status == 200 and answer else f"status {status}: {answer[:200].decode(errors='replace')}"


def _labelled(index: int, address: str) -> dict[str, object]:
    host, _, port = address.rpartition(":")
    return {"name": f"server-{index}", "address": host, "port": int(port), "labels": LABELS}
