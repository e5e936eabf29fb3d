"""The store of snapshots at the place that the setting `state_dir` names."""

from __future__ import annotations

from pathlib import Path

from masklet.errors import FailedPrecondition
from masklet_server.snapshots.blobs import BlobStore, DirectoryBlobs


def open_blobs(where: str) -> BlobStore:
    """The store at a place.

    Args:
        where: The path of a folder, which is made if it is not there, or the URL of an object store: ``s3://``,
            ``gs://`` or ``az://``. Keys and regions are taken from the environment, as the provider's tools do.

    Raises:
        InvalidArgument: There is no such kind of store.
        FailedPrecondition: The folder cannot be written, or the package for object stores is not installed.
    """
    if "://" not in where:
        return DirectoryBlobs(Path(where))
    try:
        from masklet_server.snapshots.object_blobs import ObjectBlobs
    except ImportError as error:
        raise FailedPrecondition(
            f"state_dir {where} needs the package obstore: pip install 'masklet[object-store]'"
        ) from error
    return ObjectBlobs.at(where)
