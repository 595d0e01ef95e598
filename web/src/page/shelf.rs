//! Models that are kept, and downloads.

use pleiad_app::loading::{Wake, shelf::Shelf};

/// The origin's private file system.
pub struct Opfs;

impl Opfs {
    pub async fn open(_: Wake) -> Option<Box<dyn Shelf>> {
        None
    }
}
