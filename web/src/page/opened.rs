//! Files that were opened in this page, by number: what a [`Source::Opened`] means.

use std::cell::RefCell;

use pleiad_app::loading::Source;

thread_local! {
    static FILES: RefCell<Vec<web_sys::File>> = const { RefCell::new(Vec::new()) };
}

/// Remembers a file.
pub fn add(file: web_sys::File) -> Source {
    FILES.with_borrow_mut(|files| {
        let name = file.name();
        files.push(file);
        Source::Opened(files.len() as u32 - 1, name)
    })
}

/// The file of a number and a name; `None`: it was opened in an earlier visit.
pub fn get(number: u32, name: &str) -> Option<web_sys::File> {
    FILES.with_borrow(|files| files.get(number as usize).filter(|f| f.name() == name).cloned())
}
