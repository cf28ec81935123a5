//! The root key's file, and how another root key takes its place.
//!
//! The new one is written beside the old one first (`<root key>.new`), durably, and takes its place once the
//! keystore is under it: so whatever instant a process is killed at, the keystore's root key is in one of both.
//! Both the writing and the move happen while the keystore's write lock is held, so that no other process comes
//! between them, and an opening finishes a move that was cut off.

use super::root::RootKeys;
use super::root_text::Material;
use crate::durable::{AtomicFile, FileSystem as _, OsFileSystem, Overwrite, folder_of, read_key_file, resolve};
use crate::error::{Error, ErrorKind, Result};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whether opening made a root key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RootKeyFile {
    Made,
    NotMade,
}

/// The root key in the file at `path`; `None` if there is no file.
pub(super) fn read_file(path: &Path) -> Result<Option<Material>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io_at("the root key file cannot be opened", path, e)),
    };
    let text = read_key_file(file, path, "the root key file", Material::TEXT_MAX)?;
    Material::parse(&text).map(Some).map_err(|e| {
        Error::new(ErrorKind::NoMatchingKey, "this file holds no root key")
            .with_path(path)
            .with_advice(
                "put the root key's export there: one line, `envelock-root1.` and 70 letters, digits, `-` and `_`",
            )
            .with_source(e)
    })
}

/// Writes a fresh root key, unless somebody else has just done so.
pub(super) fn make_file(path: &Path) -> Result<(Material, RootKeyFile)> {
    let material = Material::generate()?;
    match write(&material, path, Overwrite::Never) {
        Ok(()) => Ok((material, RootKeyFile::Made)),
        Err(error) => match read_file(path) {
            Ok(Some(theirs)) => Ok((theirs, RootKeyFile::NotMade)),
            _ => Err(error),
        },
    }
}

/// Where the root key that is to take the place of the one at `path` is kept until then.
pub(super) fn pending(path: &Path) -> Result<PathBuf> {
    let mut name = resolve(path)?.into_os_string();
    name.push(".new");
    Ok(name.into())
}

/// Makes `new` durable beside the root key at `path`. The keystore's write lock must be held.
///
/// # Errors
/// Kind InvalidInput if another keystore's root key is there, or beside it.
pub(super) fn prepare(path: &Path, new: &Material, current: &RootKeys) -> Result<()> {
    let pending = pending(path)?;
    // One that was cut off after the keystore came under it: the file beside must not be lost.
    finish(path, current)?;
    for there in [&resolve(path)?, &pending] {
        if let Some(material) = read_file(there)?
            && material.keystore_id != new.keystore_id
        {
            return Err(Error::invalid_input("this file holds the root key of another keystore")
                .with_path(there)
                .with_advice("nothing was changed: choose another name for the new root key"));
        }
    }
    write(new, &pending, Overwrite::Replace)
}

/// Puts the root key beside `path` in its place, if the keystore is under it. The keystore's write lock must be
/// held.
pub(super) fn finish(path: &Path, current: &RootKeys) -> Result<()> {
    let (pending, target) = (pending(path)?, resolve(path)?);
    let Some(material) = read_file(&pending)? else { return Ok(()) };
    // Nothing but an older root key of this keystore is replaced.
    let replaceable = match read_file(&target) {
        Ok(there) => there.is_none_or(|there| there.keystore_id == material.keystore_id),
        Err(_) => false,
    };
    if !current.are_of(&material)? || !replaceable {
        return Ok(());
    }
    OsFileSystem
        .rename(&pending, &target)
        .map_err(|e| Error::unchanged("cannot put the new root key in place", &target, e))?;
    OsFileSystem
        .sync_folder(folder_of(&target))
        .map_err(|e| Error::unconfirmed("cannot sync the folder of this file", &target, e))
}

fn write(material: &Material, path: &Path, overwrite: Overwrite) -> Result<()> {
    let text = material.export()?;
    let mut file = AtomicFile::create(Arc::new(OsFileSystem), path, overwrite)?;
    file.write_all(text.expose().as_bytes())?;
    file.write_all(b"\n")?;
    file.commit().map(drop)
}
