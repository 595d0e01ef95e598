//! Files in a folder.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use super::{Storage, check_name};

/// What a half-written file is called until it is whole: `.NAME.PROCESS-COUNT.part`. No other name begins with a point.
const PART: &str = ".part";
/// Half-written files older than this were left behind by a program that ended.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 3600);

/// Files in a folder, which is made when the first file is. Several programs may use it at once: bytes are appended by one
/// call of the system, so that lines of two programs do not mix, and no file is ever open between calls.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The files in that folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, name: &str) -> io::Result<PathBuf> {
        check_name(name)?;
        Ok(self.path.join(name))
    }

    /// Does something, and does it again once the folder is there if it was not.
    fn in_folder<T>(&self, act: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match act() {
            Err(e) if e.kind() == io::ErrorKind::NotFound && !self.path.is_dir() => {
                fs::create_dir_all(&self.path)?;
                act()
            }
            result => result,
        }
    }

    /// Removes half-written files that another run left behind.
    fn tidy(&self, path: &Path) {
        let age = fs::metadata(path).and_then(|m| m.modified()).ok().and_then(|t| SystemTime::now().duration_since(t).ok());
        if age.is_some_and(|age| age > LEFT_BEHIND) {
            // It will be tried again the next time.
            let _ = fs::remove_file(path);
        }
    }
}

impl Storage for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') && name.ends_with(PART) {
                self.tidy(&entry.path());
            } else if check_name(&name).is_ok() && fs::metadata(entry.path()).is_ok_and(|m| m.is_file()) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.file(name)?)
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.file(name)?)?.len())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.file(name)?;
        // Opened anew each time: another program may have replaced the file.
        self.in_folder(|| OpenOptions::new().append(true).create(true).open(&path))?.write_all(bytes)
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let path = self.file(name)?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let part = self.path.join(format!(".{name}.{}-{count}{PART}", process::id()));
        let written = self.in_folder(|| File::create(&part)).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        let done = written.and_then(|()| fs::rename(&part, &path));
        if done.is_err() {
            // The first failure is the one to tell.
            let _ = fs::remove_file(&part);
        } else if let Ok(folder) = File::open(&self.path) {
            // The name outlives a power cut where folders can be synchronised; the bytes do anyway.
            let _ = folder.sync_all();
        }
        done
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.file(from)?, self.file(to)?)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.file(name)?)
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    /// A folder that goes when the test does.
    struct Fresh(PathBuf);

    impl Fresh {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pleiad-folder-{name}-{}", process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Fresh {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_folder_is_a_storage() {
        let fresh = Fresh::new("storage");
        let mut folder = Folder::new(fresh.0.join("made/on/demand"));
        assert!(folder.place().ends_with("demand"));
        super::super::tests::behaves(&mut folder);
        assert!(folder.path().is_dir());
    }

    #[test]
    fn a_folder_is_made_for_a_whole_file_too_and_nothing_is_left_behind() {
        let fresh = Fresh::new("whole");
        let mut folder = Folder::new(&fresh.0);
        folder.write("a.json", b"{}").unwrap();
        folder.write("a.json", b"{\"b\":1}").unwrap();
        let names: Vec<_> = fs::read_dir(&fresh.0).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["a.json"]);
        assert_eq!(folder.read("a.json").unwrap(), b"{\"b\":1}");
    }

    #[test]
    fn failures_leave_the_old_file() {
        let fresh = Fresh::new("fails");
        fs::create_dir_all(fresh.0.join("a")).unwrap();
        let mut folder = Folder::new(&fresh.0);
        // A folder is where the file should be.
        assert!(folder.write("a", b"x").is_err() && folder.append("a", b"x").is_err());
        assert_eq!(fs::read_dir(&fresh.0).unwrap().count(), 1);
        assert_eq!(folder.list().unwrap(), Vec::<String>::new());
        // A file is where the folder should be.
        fs::write(fresh.0.join("file"), b"").unwrap();
        let mut blocked = Folder::new(fresh.0.join("file"));
        assert!(blocked.write("a", b"x").is_err() && blocked.append("a", b"x").is_err() && blocked.list().is_err());
    }

    #[test]
    fn half_written_files_are_not_listed_and_go_when_old() {
        let fresh = Fresh::new("half");
        fs::create_dir_all(&fresh.0).unwrap();
        let (old, new) = (fresh.0.join(".a.1-1.part"), fresh.0.join(".a.2-2.part"));
        fs::write(&old, b"x").unwrap();
        fs::write(&new, b"x").unwrap();
        let then = SystemTime::now() - 2 * LEFT_BEHIND;
        File::options().write(true).open(&old).unwrap().set_modified(then).unwrap();
        assert_eq!(Folder::new(&fresh.0).list().unwrap(), Vec::<String>::new());
        assert!(!old.exists() && new.exists());
    }
}
