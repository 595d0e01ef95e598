//! Where files are kept.

use std::{fmt, io};

/// Flat names to bytes. Calls do not block for long: a folder on a disk, memory, or (in a browser) memory whose changes are
/// carried to the origin's private file system in the background.
pub trait Storage: Send {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// The bytes of a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Adds to the end of a file, which is made if it is not there. When it returns, the bytes outlive the program.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Replaces a file: afterwards it is the old one or the new one, never half of it.
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Renames a file, over one of that name if need be.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Where the files are, for people; empty: nowhere that outlives the program.
    fn place(&self) -> String;
}

impl fmt::Debug for dyn Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Storage({})", self.place())
    }
}

/// Files in memory: for tests, and where there is no place to keep any.
#[derive(Clone, Debug, Default)]
pub struct Memory {}

/// Files in a folder.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug)]
pub struct Folder {}
