//! What a file keeps of the one whose place it takes.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, fchown};

/// Gives `new` the owner, the group and the extended attributes of `old`, access lists among them, and takes those
/// that it has beyond that, by the folder's default for one.
///
/// # Errors
/// Where that is not permitted, and they are not the same by themselves.
pub(super) fn keep(new: &File, old: &File) -> io::Result<()> {
    let (is, was) = (new.metadata()?, old.metadata()?);
    let owner = (is.uid() != was.uid()).then_some(was.uid());
    let group = (is.gid() != was.gid()).then_some(was.gid());
    if owner.is_some() || group.is_some() {
        fchown(new, owner, group)?;
    }
    attributes::keep(new, old)
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
mod attributes {
    use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr};
    use rustix::io::{Errno, Result};
    use std::fs::File;
    use std::io;

    pub(super) fn keep(new: &File, old: &File) -> io::Result<()> {
        let (are, were) = (names(new)?, names(old)?);
        // Labels of the system stay where it has given one.
        for name in are.iter().filter(|name| !were.contains(name) && !name.starts_with(b"security.")) {
            fremovexattr(new, name.as_slice())?;
        }
        for name in were.iter().filter(|name| !OF_THE_CONTENT.contains(&name.as_slice())) {
            let was = value(old, name)?;
            if !are.contains(name) || value(new, name)? != was {
                fsetxattr(new, name.as_slice(), &was, XattrFlags::empty())?;
            }
        }
        Ok(())
    }

    fn names(file: &File) -> Result<Vec<Vec<u8>>> {
        let mut list = vec![0; LEN_MAX];
        let len = match flistxattr(file, list.as_mut_slice()) {
            Ok(len) => len,
            Err(Errno::NOTSUP | Errno::NOSYS) => 0,
            Err(errno) => return Err(errno),
        };
        list.truncate(len);
        Ok(list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
    }

    fn value(file: &File, name: &[u8]) -> Result<Vec<u8>> {
        let mut value = vec![0; LEN_MAX];
        let len = fgetxattr(file, name, value.as_mut_slice())?;
        value.truncate(len);
        Ok(value)
    }

    /// What Linux has of names, or of one value, at the most. More is an error of the call.
    const LEN_MAX: usize = 1 << 16;
    /// Rights that a file loses with every write, and sums of what is in it.
    const OF_THE_CONTENT: [&[u8]; 3] = [b"security.capability", b"security.ima", b"security.evm"];
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
mod attributes {
    pub(super) fn keep(_new: &std::fs::File, _old: &std::fs::File) -> std::io::Result<()> {
        Ok(())
    }
}
