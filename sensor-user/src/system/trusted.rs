//! Whether a directory may be trusted with what the daemon writes, which may be root.
//!
//! A user who can write to a directory, or to one above it, can put a link in the place of a file that is
//! about to be written, or another ledger in the place of the right one.

use nix::unistd::{Uid, User, getegid, geteuid};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Why a directory cannot be trusted; each with the way out.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// It is a link.
    #[error("{} is a symbolic link, which may be turned elsewhere; put what it leads to ({}) in its place, or name that",
        path.display(), target.display())]
    Link {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// It is a file that has other names, too.
    #[error("{} has other names (hard links), which may be another user's; remove it, or put a copy in its place",
        path.display())]
    Names {
        /// The file.
        path: PathBuf,
    },
    /// It is something else.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// What is there.
        path: PathBuf,
    },
    /// Others can write to it, or replace what is in it.
    #[error("other users can write to {} (mode {mode:04o}); forbid it with `chmod {fix} {}`, or give another directory",
        path.display(), path.display())]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// What to take from it.
        fix: &'static str,
    },
    /// It belongs to another user.
    #[error("{} belongs to {owner}, not to {user}; run teiten as {owner}, or `chown {user} {}`, or give another directory",
        path.display(), path.display())]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// Whose it would have to be.
        user: String,
    },
    /// It cannot be looked at.
    #[error("cannot look at {}", path.display())]
    Unseen {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Checks that only this user and root can change what is in `directory`, or put another in its
/// place.
///
/// # Errors
///
/// [`Untrusted`].
pub fn check(directory: &Path) -> Result<(), Untrusted> {
    let unseen = |path: &Path| {
        let path = path.to_owned();
        move |source| Untrusted::Unseen { path, source }
    };
    let own = directory.symlink_metadata().map_err(unseen(directory))?;
    let canonical = directory.canonicalize().map_err(unseen(directory))?;
    if own.is_symlink() {
        return Err(Untrusted::Link { path: directory.to_owned(), target: canonical });
    }
    if !own.is_dir() {
        return Err(Untrusted::NotADirectory { path: directory.to_owned() });
    }
    let user = geteuid();
    if own.uid() != 0 && own.uid() != user.as_raw() {
        let (owner, user) = (name(own.uid()), name(user.as_raw()));
        return Err(Untrusted::Owner { path: directory.to_owned(), owner, user });
    }
    writable(directory, &own)?;
    for parent in canonical.ancestors().skip(1) {
        let metadata = parent.symlink_metadata().map_err(unseen(parent))?;
        let is_sticky = metadata.mode() & libc::S_ISVTX != 0;
        if !is_sticky {
            writable(parent, &metadata)?;
        }
        if !may_hold(&metadata, user) {
            let (owner, user) = (name(metadata.uid()), name(user.as_raw()));
            return Err(Untrusted::Owner { path: parent.to_owned(), owner, user });
        }
    }
    Ok(())
}

/// Checks that what has these names in `directory`, if anything, does not lead elsewhere: others may have
/// been able to write there before.
///
/// # Errors
///
/// [`Untrusted::Link`], [`Untrusted::Names`].
pub fn check_files(directory: &Path, names: &[&str]) -> Result<(), Untrusted> {
    for path in names.iter().map(|name| directory.join(name)) {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.is_symlink() {
            let target = path.read_link().unwrap_or_default();
            return Err(Untrusted::Link { path, target });
        }
        if metadata.is_file() && metadata.nlink() > 1 {
            return Err(Untrusted::Names { path });
        }
    }
    Ok(())
}

/// Whether a directory above may belong to whom it does: root, this user, or who became root by sudo.
fn may_hold(metadata: &Metadata, user: Uid) -> bool {
    let by_sudo = || std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    metadata.uid() == 0
        || metadata.uid() == user.as_raw()
        || (user.is_root() && by_sudo() == Some(metadata.uid()))
}

fn writable(path: &Path, metadata: &Metadata) -> Result<(), Untrusted> {
    let mode = metadata.mode() & 0o7777;
    let own_group = metadata.gid() == getegid().as_raw() || metadata.gid() == 0;
    let fix = match (mode & 0o002 != 0, mode & 0o020 != 0 && !own_group) {
        (false, false) => return Ok(()),
        (true, false) => "o-w",
        (false, true) => "g-w",
        (true, true) => "go-w",
    };
    Err(Untrusted::Writable { path: path.to_owned(), mode, fix })
}

/// A user's name, or number where it has none.
pub fn name(uid: u32) -> String {
    User::from_uid(uid.into()).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, create_dir, set_permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn chmod(path: &Path, mode: u32) {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_directory_of_ones_own_is_trusted_also_below_a_sticky_one() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        create_dir(&state).unwrap();
        check(&state).unwrap();
        chmod(directory.path(), 0o1777);
        check(&state).unwrap();
    }

    #[test]
    fn what_others_can_write_is_refused_with_the_way_out() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        create_dir(&state).unwrap();
        chmod(&state, 0o757);
        let said = check(&state).unwrap_err().to_string();
        assert!(
            said.contains("(mode 0757)") && said.contains(&format!("chmod o-w {}", state.display())),
            "{said}"
        );
        chmod(&state, 0o750);
        // Who can write above it can move it away and make another.
        chmod(directory.path(), 0o777);
        assert!(matches!(check(&state), Err(Untrusted::Writable { path, .. }) if path == directory.path()));
    }

    #[test]
    fn a_link_is_refused_and_its_target_named() {
        let directory = tempfile::tempdir().unwrap();
        let (state, link) = (directory.path().join("state"), directory.path().join("link"));
        create_dir(&state).unwrap();
        symlink(&state, &link).unwrap();
        assert!(matches!(check(&link), Err(Untrusted::Link { target, .. }) if target == state));
        std::fs::write(directory.path().join("file"), "").unwrap();
        assert!(matches!(check(&directory.path().join("file")), Err(Untrusted::NotADirectory { .. })));
    }

    #[test]
    fn files_that_lead_elsewhere_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ledger.sqlite");
        let names = ["ledger.sqlite", "ledger.sqlite-wal"];
        check_files(directory.path(), &names).unwrap();
        std::fs::write(&file, "").unwrap();
        check_files(directory.path(), &names).unwrap();
        std::fs::hard_link(&file, directory.path().join("other")).unwrap();
        assert!(
            matches!(check_files(directory.path(), &names), Err(Untrusted::Names { path }) if path == file)
        );
        std::fs::remove_file(&file).unwrap();
        symlink("other", &file).unwrap();
        assert!(matches!(check_files(directory.path(), &names), Err(Untrusted::Link { .. })));
    }

    #[test]
    fn another_users_directory_is_refused_by_name() {
        if !geteuid().is_root() {
            println!("skipped: only root can give a directory away");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        create_dir(&state).unwrap();
        nix::unistd::chown(&state, Some(65_534.into()), None).unwrap();
        let said = check(&state).unwrap_err().to_string();
        let owner = name(65_534);
        assert!(said.contains(&format!("belongs to {owner}, not to root; run teiten as {owner}")), "{said}");
    }
}
