"""Registers and opens the service as ADK's servers do, and prints what came of it as JSON.

Run as a program by the Python that ``adk`` runs on, which may lack this package. An exception ends the program, and
its traceback is the answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from logging.handlers import BufferingHandler
from typing import Any
from urllib.parse import urlsplit


def probe(agents_dir: str, uri: str, kind: str) -> dict[str, Any]:
    """Opens ``uri`` with what is registered in ``agents_dir`` for services of a type, ``session`` or ``memory``.

    Returns:
        ``missing``, if this package cannot be imported: why. Otherwise ``warnings`` of ADK; ``origins``, one for each
        registration of the scheme: true for YAML, false for services.py; ``service``, the class of the service, None
        if nothing is registered; and ``is_own``, whether that is this package's.
    """
    try:
        from sessiondb import DatabaseSessionService, MemoryService
    except ImportError as error:
        return {"missing": str(error)}
    from google.adk.cli.service_registry import get_service_registry, load_services_module

    # ADK goes on without files that it cannot load, and says so in its log only.
    captured = BufferingHandler(sys.maxsize)
    captured.setLevel(logging.WARNING)
    logging.getLogger("google_adk").addHandler(captured)
    registry = get_service_registry()
    register = getattr(registry, f"register_{kind}_service")
    origins: list[bool] = []

    def note(scheme: str, factory: Any) -> None:
        if scheme == urlsplit(uri).scheme:
            origins.append(getattr(factory, "__module__", None) == load_services_module.__module__)
        register(scheme, factory)

    setattr(registry, f"register_{kind}_service", note)  # of this object, for a moment
    load_services_module(agents_dir)
    service = getattr(registry, f"create_{kind}_service")(uri, agents_dir=agents_dir)
    if is_own := isinstance(service, MemoryService if kind == "memory" else DatabaseSessionService):
        asyncio.run(service.close())
    found = type(service)
    return {
        "warnings": [record.getMessage() for record in captured.buffer],
        "origins": origins,
        "service": None if service is None else f"{found.__module__}.{found.__qualname__}",
        "is_own": is_own,
    }


if __name__ == "__main__":
    answer, sys.stdout = sys.stdout, sys.stderr  # what services.py prints is no answer
    print(json.dumps(probe(*sys.argv[1:])), file=answer, flush=True)
