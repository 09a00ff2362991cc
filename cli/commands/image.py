"""`image ...`: the image cache of this machine, which all clusters share: what is in it, filled and cleared.

No service owns the cache, so its files are used as they are, under the locks that placematd takes too.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import typer

from placematd.errors import StepError
from placematd.facts import Settings
from placematd.image import ImageInfo, Images, Surroundings, list_images
from placematd.image import prune as prune_cache
from placematd.load import load as load_files
from placematd.plan.volumes import cached_images
from placematd.resources import CachedImage

from ..answers import Event
from ..clusters import Target
from ..follow import now
from ..progress import Display, amount, display
from ..session import JSON_OPTION, NAME_OPTION, TARGET_ARGUMENT, Commands, Session, session_of
from ..table import print_json, print_table
from .read import load, observe, show_warnings

PARALLEL = 4

app = typer.Typer(help="Downloaded images: list, pull, prune.", cls=Commands, no_args_is_help=True)

HEADER = ("IMAGE", "STORED", "FETCHED", "CLUSTERS", "DISKS", "SOURCE")


def image_json(image: ImageInfo) -> dict[str, Any]:
    """An image of the cache; `volumes` are the copy-on-write disks that stand on it, `source` null if it is damaged."""
    record = image.record
    return {
        "path": str(image.path),
        "size": image.size,
        "stored_bytes": image.stored_bytes,
        "source": record.source if record else None,
        "compression": record.compression if record else "",
        "sha256": record.sha256 if record else "",
        "fetched": record.fetched if record else "",
        "clusters": {cluster: sorted(names) for cluster, names in record.used_by.items()} if record else {},
        "volumes": [str(path) for path in image.users],
    }


def image_row(image: ImageInfo) -> tuple[str, ...]:
    """An image as a row under `HEADER`."""
    record = image.record
    source = record.source if record else "damaged: it is fetched anew when it is used"
    clusters = " ".join(sorted(record.used_by)) if record else ""
    fetched = record.fetched if record else "-"
    stored = amount(image.stored_bytes, None)
    return image.path.name[:12], stored, fetched, clusters or "-", str(len(image.users)), source


@app.command("list")
def list_command(context: typer.Context, as_json: bool = JSON_OPTION) -> None:
    """List the images in the cache, with the clusters that used them and the number of disks that stand on them."""
    images = list_images(cache_dir(session_of(context)))
    if as_json:
        print_json([image_json(image) for image in images])
    else:
        print_table(HEADER, [image_row(image) for image in images])


@app.command("pull")
def pull(
    context: typer.Context,
    target: list[str] = TARGET_ARGUMENT,
    name: str = NAME_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Download the images of a cluster beforehand, or look whether there are newer ones. Needs root."""
    chosen = session_of(context).target(target, name)
    cluster, warnings = load(chosen)
    show_warnings(warnings)
    images = list(cached_images(cluster, observe(chosen, cluster), chosen.settings))
    with display(f"pulling images of {chosen.name}") as screen:
        fetch(chosen, images, screen)
    wanted = {image.path for image in images}
    pulled = [image for image in list_images(chosen.settings.cache_dir) if image.path in wanted]
    if as_json:
        print_json([image_json(image) for image in pulled])
        return
    for image in images:
        size = next(info.stored_bytes for info in pulled if info.path == image.path)
        typer.echo(f"{image.name}: {amount(size, None)}")
    if not images:
        typer.echo(f"{chosen.name} uses no image that is cached")


def fetch(target: Target, images: list[CachedImage], screen: Display) -> None:
    """Fetch images side by side; raises the first StepError when all have ended. Ctrl-C ends them at once."""
    cancelled, one_at_a_time = threading.Event(), threading.Lock()

    def progress(item: str, done: int, total: int | None) -> None:
        with one_at_a_time:
            screen.show(Event(time=now(), kind="progress", message=item, item=item, done=done, total=total))

    def warn(message: str) -> None:
        with one_at_a_time:
            screen.show(Event(time=now(), kind="warning", message=message))

    cache = Images(target.settings.cache_dir, Surroundings(progress=progress, warn=warn, cancelled=cancelled))
    with ThreadPoolExecutor(PARALLEL) as threads:
        jobs = [threads.submit(cache.create, image, target.name) for image in images]
        try:
            errors = [error for job in jobs if (error := job.exception())]
        except KeyboardInterrupt:
            cancelled.set()
            raise
    if errors:
        raise errors[0]


@app.command("prune")
def prune(context: typer.Context, as_json: bool = JSON_OPTION) -> None:
    """Delete the images that no cluster of this machine uses. Needs root.

    An image stays if a cluster that is configured in /etc/placemat, or was brought up from files and still runs, has
    it, or if a copy-on-write disk stands on it, also one of a cluster that is down.
    """
    session = session_of(context)
    cache = cache_dir(session)
    directory = cache / "images"
    if directory.exists() and not os.access(directory, os.W_OK):
        raise StepError(f"prune {directory}", "permission denied", "be root")
    removed = prune_cache(cache, used_images(session))
    if as_json:
        print_json([image_json(image) for image in removed])
        return
    freed = amount(sum(image.stored_bytes for image in removed), None)
    for image in removed:
        typer.echo(f"removed {image.record.source if image.record else image.path}")
    typer.echo(f"{freed} freed")


def used_images(session: Session) -> set[Path]:
    """The places in the cache of the images that the known clusters' files name now."""
    used: set[Path] = set()
    for name in session.places.known():
        settings = session.places.settings(name)
        files = session.places.files(name, settings)
        cluster = load_files(files, name).cluster
        used |= {image.path for image in cached_images(cluster, observe(Target(name, settings), cluster), settings)}
    return used


def cache_dir(session: Session) -> Path:
    """The cache of the chosen cluster, or of all that do not have one of their own."""
    places, name = session.places, session.cluster
    if name in places.known():
        return places.settings(name).cache_dir
    return Path(dict(places.overrides).get("PLACEMAT_CACHE_DIR", Settings(cluster=name).cache_dir))
