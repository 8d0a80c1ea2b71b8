"""MONAI Label's folder of images and labels, made safe for threads, against crashes and against foreign paths.

Differences from `LocalDatastore`:
* a replaced label is kept as `labels/versions/<tag>/<image>/<UTC time>-<n><ext>`, with its record;
* labels and the index `datastore_v2.json` are replaced atomically, so a crash leaves the old or the new one;
* an index that cannot be read is set aside and rebuilt from the files;
* ids and tags that would lead out of the folder are refused; links that do, and macOS' `._*` files, are not listed;
* every method holds one lock, because requests run in threads and so does the folder's watcher;
* what changes the index begins with the one on disk, in one process at a time: commands may run beside a server.
"""

import copy
import filecmp
import functools
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock
from monailabel.datastore.local import DataModel, LocalDatastore, LocalDatastoreModel

from slicecast.errors import Conflict, InputError, NotFound, UnknownImage
from slicecast.files import place_file, sync_folder, write_atomically

logger = logging.getLogger(__name__)

WRITE_WITHIN_S = 1.0
"""Image info is written to the index after this delay, many changes at once; labels are written immediately."""

INDEX_LOCK = ".index.lock"  # Held by the process that changes the index; stock's own lock is not held long enough
VERSIONS = "versions"  # Folder of the versions, among the tags' folders; hence no tag may have this name
NAME = re.compile(r"[^/\\\x00-\x1f]{1,200}")  # An id or tag: one file name, no path


def safe_name(name: str, what: str) -> str:
    """Return `name` if it is a plain file name.

    Raises:
        InputError: it is empty, a path, hidden, or has control characters.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.startswith("."):
        raise InputError(f"The {what} {name!r} is not a plain name. Use one without slashes, not starting with a dot.")
    return name


def locked(method: Callable[..., Any]) -> Callable[..., Any]:
    """Hold the store's lock during a method."""

    @functools.wraps(method)
    def guarded(self: "SafeDatastore", *args: Any, **named: Any) -> Any:
        with self._guard:
            return method(self, *args, **named)

    return guarded


def changing(method: Callable[..., Any]) -> Callable[..., Any]:
    """Hold the store's lock, in this and all other processes, during a method that changes the index."""

    @functools.wraps(method)
    def guarded(self: "SafeDatastore", *args: Any, **named: Any) -> Any:
        with self.alone():
            return method(self, *args, **named)

    return guarded


class SafeDatastore(LocalDatastore):
    """A safe `LocalDatastore`; see the module's docstring.

    Args:
        datastore_path: the studies.
        follow_links: list links that lead out of the studies' folder.
        clock: the time, for the names of versions.
    """

    _config_ts: tuple[int, int] | None  # stamp of the index as this process read or wrote it

    def __init__(
        self,
        datastore_path: str,
        *,
        follow_links: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        **options: Any,
    ) -> None:
        self._guard = threading.RLock()
        self._across = FileLock(Path(datastore_path) / INDEX_LOCK, thread_local=False)
        self._write_later: threading.Timer | None = None
        self._notes: dict[str, dict[str, Any]] = {}
        self._follow_links = follow_links
        self._clock = clock
        self._refused: frozenset[Path] = frozenset()
        _set_aside_if_damaged(Path(datastore_path) / "datastore_v2.json", clock)
        super().__init__(datastore_path, **options)
        if options.get("auto_reload"):
            self._handler.on_moved = self._on_moved

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let nobody else change the index while the block lasts, which begins with what others wrote."""
        with self._guard, self._across:
            self._init_from_datastore_file()
            yield

    @changing
    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Save a label; the one it replaces is kept as a version."""
        record = self._datastore.objects.get(image_id)
        if record is None:
            raise UnknownImage(f"There is no image '{image_id}' to label. Ask for the list of images again.")
        tag = safe_tag(label_tag)
        folder = Path(self._datastore.label_path(tag))
        self._refuse_twin(tag)
        _, extension = self._to_id(Path(label_filename).name)
        self.refuse_way_out(folder, folder.with_name(VERSIONS))
        folder.mkdir(parents=True, exist_ok=True)
        with self.all_or_nothing(image_id, tag):
            self._keep(image_id, tag)
            target = folder / self._filename(image_id, extension)
            place_file(Path(label_filename), target)
            self._remove_other_extension(image_id, tag, target)
            info = {**(label_info or {}), "ts": int(self._clock().timestamp()), "name": target.name}
            record.labels[tag] = DataModel(info=info, ext=extension)
            self._update_datastore_file()
        return image_id

    @contextmanager
    def all_or_nothing(self, image_id: str, tag: str) -> Iterator[None]:
        """Put an image's label back as it was where the block fails, without needing room on the disk."""
        self._init_from_datastore_file()
        record = self._datastore.objects.get(image_id)
        if record is None:
            yield  # and says that there is no such image
            return
        before = copy.deepcopy(record.labels.get(tag))
        folder = Path(self._datastore.label_path(tag))
        file = folder / self._filename(image_id, before.ext) if before else None
        spare = file and _spare(file)
        versions = folder.with_name(VERSIONS) / tag / image_id
        kept = set(versions.glob("*"))
        try:
            yield
        except BaseException:
            self._put_back(image_id, tag, before, spare)
            for file in set(versions.glob("*")) - kept:
                file.unlink()
            raise
        finally:
            if spare is not None:
                spare.unlink(missing_ok=True)

    @changing
    def _put_back(self, image_id: str, tag: str, before: DataModel | None, spare: Path | None) -> None:
        record, folder = self._datastore.objects[image_id], Path(self._datastore.label_path(tag))
        name = self._filename(image_id, before.ext) if before else ""
        record.labels.pop(tag, None)
        if before is not None:
            record.labels[tag] = before
            if spare is not None:
                spare.replace(folder / name)
        for file in folder.glob("[!.]*"):
            if file.name != name and self._to_id(file.name)[0] == image_id:
                file.unlink(missing_ok=True)
        try:
            self._update_datastore_file()
        except OSError as error:  # the index in memory is right, and the next change writes it
            logger.warning("The index of labels could not be written: %s", error)

    def label_folder(self, tag: str) -> Path:
        """Return where the labels of a tag lie."""
        return Path(self._datastore.label_path(tag))

    @changing
    def refuse_labels(self, files: Collection[Path]) -> None:
        """Read the folders again, in which these files are no labels; those refused before may be some again."""
        self._refused = frozenset(files)
        self.refresh()
        for file in files:
            image, tag = self._to_id(file.name)[0], file.parent.name
            label = self._datastore.label(image, tag)
            if label is not None and self._filename(image, label.ext) == file.name:
                del self._datastore.objects[image].labels[tag]
        if files:
            self._update_datastore_file()

    def _refuse_twin(self, tag: str) -> None:
        """Refuse a tag that is another one but for upper and lower case: some file systems hold them as one folder."""
        labels = Path(self._datastore.label_path(None))
        known = {"final", "original", VERSIONS, *(path.name for path in labels.glob("*"))}
        twin = next((name for name in sorted(known) if name != tag and name.casefold() == tag.casefold()), None)
        if twin is not None:
            raise InputError(f"The tag '{tag}' differs from '{twin}' only in case. Use '{twin}', or another name.")

    @changing
    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label; it is kept as a version."""
        tag = safe_tag(label_tag)
        folder = Path(self._datastore.label_path(tag))
        self.refuse_way_out(folder, folder.with_name(VERSIONS))
        with self.all_or_nothing(label_id, tag):
            self._keep(label_id, tag)
            super().remove_label(label_id, tag)
        self.refresh()

    @changing
    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Add an image; the same file sent twice is stored once. Another one would not fit the id's labels."""
        name = safe_name(image_id or self._to_id(Path(image_filename).name)[0], "image id")
        present = self.get_image_uri(name)
        if not present:
            target = self._refuse_hidden(name, image_filename)
            try:
                return super().add_image(name, image_filename, image_info)
            except OSError:  # such as a full disk: half a file would be listed as an image
                self._datastore.objects.pop(name, None)
                target.unlink(missing_ok=True)
                raise
        if filecmp.cmp(present, image_filename, shallow=False):
            return name
        raise Conflict(f"There is already another image '{name}'. Choose another id, or remove that image first.")

    def _refuse_hidden(self, name: str, image_filename: str) -> Path:
        """Return where an image goes; refuse to overwrite a file that is not listed: a link would redirect it."""
        target = Path(self._datastore.image_path()) / self._filename(name, self._to_id(Path(image_filename).name)[1])
        if target.is_symlink() or target.exists():
            raise Conflict(f"The studies hold '{target.name}', which is not listed as an image. Choose another id.")
        return target

    @locked
    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Pack the labelled images into a ZIP file."""
        if not self.get_labeled_images():
            raise NotFound("No image has a final label yet, so there is nothing to pack. Submit a label first.")
        return super().get_dataset_archive(limit_cases)

    @locked
    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Return an image's info; without touching the file, because strategies ask for the info of every image."""
        record = self._datastore.objects.get(image_id)
        if record is None:
            return {}
        return copy.deepcopy(record.image.info)

    @locked
    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Update an image's info; the index on disk follows within a second.

        Writing at once would rewrite the whole index each time: a quarter of a second with ten thousand images.
        """
        record = self._datastore.objects.get(image_id)
        if record is None:
            raise UnknownImage(f"There is no image '{image_id}'. Ask for the list of images again.")
        record.image.info.update(info)
        self._notes.setdefault(image_id, {}).update(info)
        if self._write_later is None:
            # No daemon thread: a server that shuts down waits for it.
            self._write_later = threading.Timer(WRITE_WITHIN_S, self._write_notes)
            self._write_later.start()

    @changing
    def save_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Update an image's info and write the index at once; nothing has changed where that fails."""
        before = self.get_image_info(image_id)
        self.update_image_info(image_id, info)
        try:
            self._update_datastore_file()
        except OSError:
            self._datastore.objects[image_id].image.info = before
            raise

    @locked
    def _write_notes(self) -> None:
        self._write_later, notes, self._notes = None, self._notes, {}
        if not Path(self._datastore_path).is_dir():  # the studies may have been removed meanwhile
            return
        try:
            with self.alone():
                for image in notes.keys() & self._datastore.objects.keys():
                    self._datastore.objects[image].image.info.update(notes[image])
                self._update_datastore_file()
        except OSError as error:  # such as a full disk; the next change writes the index
            logger.warning("The index of images could not be written: %s", error)

    remove_image = changing(LocalDatastore.remove_image)
    update_label_info = changing(LocalDatastore.update_label_info)
    _reconcile_datastore = changing(LocalDatastore._reconcile_datastore)
    list_images = locked(LocalDatastore.list_images)
    get_labeled_images = locked(LocalDatastore.get_labeled_images)
    get_unlabeled_images = locked(LocalDatastore.get_unlabeled_images)
    datalist = locked(LocalDatastore.datalist)
    status = locked(LocalDatastore.status)
    json = locked(LocalDatastore.json)

    @locked
    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        """Read the index unless it is as this process read or wrote it; stock goes by its time alone."""
        index = Path(self._datastore_config_path)
        stamp = _stamp(index)
        if stamp in (None, self._config_ts):
            return
        try:
            self._datastore = LocalDatastoreModel.model_validate_json(index.read_bytes())
        except ValueError as error:
            if throw_exception:
                raise
            logger.error("%s cannot be read, and what is known of it is used: %s", index, error)
            return
        self._datastore.base_path, self._config_ts = self._datastore_path, stamp

    @locked
    def _update_datastore_file(self, lock: bool = True) -> None:
        # No indent: with one, Python's slow encoder is used, which takes a second for ten thousand images.
        content = json.dumps(self._datastore.model_dump(exclude={"base_path"}), default=str)
        write_atomically(Path(self._datastore_config_path), content.encode())
        self._config_ts = _stamp(Path(self._datastore_config_path))

    def _on_moved(self, event: Any) -> None:
        """Read an index that another process has replaced; our own writes are recognised by their time stamp."""
        if event.dest_path == self._datastore_config_path:
            self._init_from_datastore_file()

    def _list_files(self, path: str, patterns: list[str]) -> dict[str, str]:
        files = super()._list_files(path, patterns)
        return {name: file for name, file in files.items() if self._is_ours(Path(path) / file)}

    def _is_ours(self, file: Path) -> bool:
        if file.name.startswith(".") or file in self._refused:
            return False
        if not file.exists():
            logger.warning("%s is a link that leads nowhere and is not listed", file)
            return False
        if self._follow_links or file.resolve().parent == file.parent.resolve():
            return True
        logger.warning("%s leads to another folder and is not listed; start with --conf follow_links true", file)
        return False

    def refuse_way_out(self, *folders: Path) -> None:
        """Refuse to write into folders that are links out of the studies, unless these are followed.

        Raises:
            Conflict: one is.
        """
        root = Path(self._datastore_path).resolve()
        for folder in folders:
            if not self._follow_links and not folder.resolve().is_relative_to(root):
                raise Conflict(
                    f"The folder '{folder.name}' in the studies is a link that leads out of them; nothing is written "
                    "there. Replace it by a folder, or start with --conf follow_links=true."
                )

    def _keep(self, image_id: str, tag: str) -> None:
        label = self._datastore.label(image_id, tag)
        if label is not None:
            labels = Path(self._datastore.label_path(None))
            current = labels / tag / self._filename(image_id, label.ext)
            folder = labels / VERSIONS / tag / image_id
            keep_version(current, folder, extension=label.ext, info=label.info, now=self._clock())

    def _remove_other_extension(self, image_id: str, tag: str, target: Path) -> None:
        previous = self._datastore.label(image_id, tag)
        if previous is not None and self._filename(image_id, previous.ext) != target.name:
            target.with_name(self._filename(image_id, previous.ext)).unlink(missing_ok=True)


def _stamp(index: Path) -> tuple[int, int] | None:
    """Return what changes whenever the index is replaced; None where there is none."""
    try:
        state = index.stat()
    except FileNotFoundError:
        return None
    return state.st_mtime_ns, state.st_ino


def _spare(file: Path) -> Path | None:
    """Give a file a second, hidden name, under which it outlives being replaced; None where there is no such file."""
    spare = file.with_name(f".before-{uuid4().hex}")
    try:
        os.link(file, spare)
    except FileNotFoundError:
        return None
    except OSError:  # a file system without links
        place_file(file, spare)
    return spare


def safe_tag(tag: str) -> str:
    """Return a label's tag as text; raises InputError if it is no plain name, or the folder of versions."""
    plain = str(tag.value) if isinstance(tag, Enum) else tag
    if safe_name(plain, "label tag") == VERSIONS:
        raise InputError(f"'{VERSIONS}' holds earlier labels and cannot be a label tag. Choose another tag.")
    return plain


def _set_aside_if_damaged(index: Path, clock: Callable[[], datetime]) -> None:
    """Set an index aside that is not JSON, such as after a kill of stock MONAI Label; it is rebuilt from the files."""
    if not index.is_file():
        return
    try:
        json.loads(index.read_bytes())
    except ValueError:
        aside = index.with_name(f"{index.name}.damaged-{clock().strftime('%Y%m%dT%H%M%SZ')}")
        index.replace(aside)
        logger.warning("%s was damaged; it is now %s, and the list is rebuilt from the files", index, aside.name)


def keep_version(current: Path, folder: Path, *, extension: str, info: Mapping[str, Any], now: datetime) -> Path | None:
    """Keep `current` in `folder` under a new name; None when there is no such file.

    The file is linked, not moved, so it stays in place until it is replaced: a crash in between leaves one version too
    many, never one too few.
    """
    if not current.is_file():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    target = _free_name(folder, now.strftime("%Y%m%dT%H%M%SZ"), extension)
    try:
        os.link(current, target)
        sync_folder(folder)
    except OSError:  # another file system, or one without links
        place_file(current, target)
    write_atomically(target.with_name(target.name + ".json"), json.dumps(dict(info), indent=2, default=str).encode())
    return target


def _free_name(folder: Path, stem: str, suffix: str) -> Path:
    taken = {path.name for path in folder.iterdir()}
    number = next(n for n in range(1, len(taken) + 2) if f"{stem}-{n}{suffix}" not in taken)
    return folder / f"{stem}-{number}{suffix}"
