"""The file `DATA_DIR/installation`: what still knows us when store and bus are both gone."""

import os
from pathlib import Path

from navarch_common.ids import is_id
from navarch_common.store.base import StoreError


def read_installation(data_dir: Path) -> str:
    """The id in the file; empty where there is none. Raises `StoreError` on anything else."""
    file = data_dir / "installation"
    try:
        text = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{file} cannot be read: {error}") from error
    if not is_id(text):
        raise StoreError(f"{file} holds {text!r:.80}, which is no installation id; correct or remove it")
    return text


def write_installation(data_dir: Path, installation: str) -> None:
    """Whole or not at all: a half-written id would be another one."""
    file = data_dir / "installation"
    half = file.with_name(f".installation.{os.getpid()}")
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        half.write_text(installation + "\n", encoding="utf-8")
        half.replace(file)
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error}") from error
