//! Models that are kept for a page: downloads, what they take, and what room there is. A desktop has files instead, and no shelf.

use super::Source;

/// A model that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptFile {
    /// Its name, unique on the shelf.
    pub name: String,
    /// Bytes of it that are here.
    pub bytes: u64,
    /// Bytes of the whole file; `None`: not known.
    pub total: Option<u64>,
    /// Where it comes from; empty: it was copied from a file.
    pub url: String,
}

impl KeptFile {
    /// Whether all of it is here.
    pub fn is_complete(&self) -> bool {
        self.total == Some(self.bytes)
    }
}

/// A download, or a copy, under way.
#[derive(Clone, Debug, PartialEq)]
pub struct Download {
    /// The name that it will have on the shelf.
    pub name: String,
    /// Bytes that are here.
    pub done: u64,
    /// Bytes in all; `None`: the server does not say.
    pub total: Option<u64>,
    /// Bytes a second, lately.
    pub speed: f64,
    /// It is held in memory: it is gone when the page is closed.
    pub in_memory: bool,
}

/// What room there is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What this page's files take.
    pub used: u64,
    /// What the browser allows them to.
    pub quota: u64,
    /// The browser has promised not to clear them by itself.
    pub lasting: bool,
}

/// What has happened since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShelfNews {
    /// A model is here and can be opened.
    Ready(Source),
    /// Something that a person should know.
    Notice(String),
    /// What went wrong, in words.
    Failed(String),
}

/// The shelf. Nothing here waits: [`Shelf::poll`] tells what has happened.
pub trait Shelf {
    /// What has happened.
    fn poll(&mut self) -> Vec<ShelfNews>;
    /// What is kept, by name, what is being downloaded left out.
    fn files(&self) -> &[KeptFile];
    /// What is on its way.
    fn downloads(&self) -> &[Download];
    /// What room there is; `None`: the browser does not say, or does not keep files: downloads stay in memory.
    fn room(&self) -> Option<Room>;
    /// Downloads a model, or goes on with a download that was stopped.
    fn download(&mut self, url: &str);
    /// Keeps a copy of a file that was opened.
    fn keep(&mut self, source: &Source);
    /// Stops a download; what is here stays.
    fn stop(&mut self, name: &str);
    /// Removes a model.
    fn remove(&mut self, name: &str);
}
