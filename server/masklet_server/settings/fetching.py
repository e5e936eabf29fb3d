"""Settings of videos that the server fetches by their URLs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field
from pydantic_settings import NoDecode

from masklet_server.fetching.rules import FetchRules
from masklet_server.settings.types import setting

_FETCH = FetchRules()


class FetchingSettings(BaseModel):
    """From where the server fetches videos."""

    source_schemes: Annotated[tuple[str, ...], NoDecode] = setting(
        (),
        "Fetching videos",
        "Kinds of URLs that the server fetches videos from (config.source_url): http, https, file. Empty: it "
        "fetches nothing.",
    )
    source_hosts: Annotated[tuple[str, ...], NoDecode] = setting(
        (),
        "Fetching videos",
        "Hosts to fetch videos from, by name or by pattern (*.example.org). A host with a private address "
        "must be given by its full name.",
    )
    source_directories: Annotated[tuple[Path, ...], NoDecode] = setting(
        (),
        "Fetching videos",
        "Folders from which video files may be read. Links that lead out of them are not followed.",
    )
    source_timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = setting(
        _FETCH.timeout_seconds, "Fetching videos", "Seconds to fetch a whole video. max_upload_bytes limits its size."
    )
