//! Models that are kept, and downloads. Workers fetch and write; the page only lists what is here.

mod fetching;
mod names;

use std::{cell::RefCell, rc::Rc};

use pleiad_app::loading::{
    Source, Wake,
    shelf::{Download, KeptFile, Room, Shelf, ShelfNews},
};
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::spawn_local;

use self::fetching::{Errand, Fetching};
use crate::{
    kept::{self, Folder},
    link,
    page::{
        loader::{Helper, Said},
        opened,
    },
    scope::sleep,
};

/// How often it is tried to remove a file that is still held by a worker that has just ended.
const TRIES: usize = 10;
/// Between two tries, in milliseconds.
const BETWEEN: f64 = 200.0;

/// The shelf in the browser's private file system.
pub struct Opfs {
    shared: Rc<Shared>,
    files: Vec<KeptFile>,
    downloads: Vec<Download>,
    room: Option<Room>,
}

/// What tasks and the shelf have in common.
struct Shared {
    wake: Wake,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// All that lies in the folder.
    files: Vec<KeptFile>,
    fetching: Vec<Fetching>,
    /// Being removed.
    leaving: Vec<String>,
    room: Option<Room>,
    news: Vec<ShelfNews>,
}

impl State {
    fn fetching(&mut self, name: &str) -> Option<&mut Fetching> {
        self.fetching.iter_mut().find(|f| f.download.name == name)
    }
}

impl Shared {
    /// Works on what is shared. Nothing may be shared again meanwhile.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.borrow_mut())
    }

    fn wake(&self) {
        (self.wake)();
    }

    fn tell(&self, news: ShelfNews) {
        self.with(|state| state.news.push(news));
        self.wake();
    }

    /// Looks at what is here.
    async fn look(&self) {
        let files = match Folder::open().await {
            Ok(folder) => list(&folder).await,
            Err(_) => Vec::new(),
        };
        let room = kept::room().await;
        self.with(|state| (state.files, state.room) = (files, room));
        self.wake();
    }
}

/// What lies in the folder.
async fn list(folder: &Folder) -> Vec<KeptFile> {
    let mut files = Vec::new();
    for name in folder.names().await {
        // It may have been removed meanwhile, here or in another tab.
        let Ok(file) = folder.file(&name).await else { continue };
        let (bytes, label) = (file.size() as u64, folder.label(&name).await);
        // What nobody has looked at is not complete, however long it is.
        let total = label.total.filter(|&t| label.complete || t != bytes);
        files.push(KeptFile { name, bytes, total, url: label.url });
    }
    files
}

impl Opfs {
    /// Looks at what is kept; `wake` is called when something has changed. Where the browser keeps no files, the shelf is empty,
    /// and downloads are held in memory.
    pub async fn open(wake: Wake) -> Option<Box<dyn Shelf>> {
        let shared = Rc::new(Shared { wake, state: RefCell::default() });
        shared.look().await;
        let mut shelf = Self { shared, files: Vec::new(), downloads: Vec::new(), room: None };
        shelf.show();
        Some(Box::new(shelf))
    }

    /// Shows what is shared as it is now.
    fn show(&mut self) {
        let state = self.shared.state.borrow();
        let hidden =
            |name: &str| state.leaving.iter().any(|n| n == name) || state.fetching.iter().any(|f| f.download.name == name);
        self.files = state.files.iter().filter(|f| !hidden(&f.name)).cloned().collect();
        self.downloads = state.fetching.iter().map(|f| f.download.clone()).collect();
        self.room = state.room;
    }

    /// Sends a worker for something.
    fn send(&mut self, errand: Errand, url: String, done: u64, total: Option<u64>) {
        let helper = match Helper::start() {
            Ok(helper) => Rc::new(helper),
            Err(why) => return self.shared.tell(ShelfNews::Failed(format!("{}: {why}", errand.name))),
        };
        let download = Download { name: errand.name.clone(), done, total, speed: 0.0, in_memory: false };
        let fetching = Fetching { download, url, helper: Rc::clone(&helper), remove: false };
        self.shared.with(|state| state.fetching.push(fetching));
        self.show();
        let shared = Rc::clone(&self.shared);
        spawn_local(async move {
            kept::ask_to_last().await;
            let name = errand.name.clone();
            let news = fetching::serve(&shared, &helper, errand).await;
            helper.end();
            let unwanted = shared.with(|state| state.fetching(&name).is_some_and(|f| f.remove));
            if unwanted {
                shared.with(|state| state.leaving.push(name.clone()));
            }
            // What is here is looked at before the download is gone from the list: it is shown in one of the two.
            shared.look().await;
            shared.with(|state| state.fetching.retain(|f| f.download.name != name));
            match news {
                _ if unwanted => remove(&shared, &name).await,
                Some(news) => shared.tell(news),
                None => shared.wake(),
            }
        });
    }

    /// A name for something new.
    fn name(&self, wish: &str) -> String {
        self.shared.with(|state| {
            names::unique(wish, |n| {
                let file = state.files.iter().any(|f| f.name.eq_ignore_ascii_case(n));
                file || state.fetching.iter().any(|f| f.download.name.eq_ignore_ascii_case(n))
            })
        })
    }
}

/// Removes a model. A worker that has just ended may hold it for a moment.
async fn remove(shared: &Shared, name: &str) {
    let removed = async {
        let folder = Folder::open().await?;
        let mut removed = folder.remove(name).await;
        for _ in 1..TRIES {
            if removed.is_ok() {
                break;
            }
            sleep(BETWEEN).await;
            removed = folder.remove(name).await;
        }
        removed
    };
    let removed = removed.await;
    shared.look().await;
    shared.with(|state| state.leaving.retain(|n| n != name));
    match removed {
        Ok(()) => shared.wake(),
        Err(why) => shared.tell(ShelfNews::Failed(format!("{name} was not removed: {why}"))),
    }
}

impl Shelf for Opfs {
    fn poll(&mut self) -> Vec<ShelfNews> {
        self.show();
        self.shared.with(|state| std::mem::take(&mut state.news))
    }

    fn files(&self) -> &[KeptFile] {
        &self.files
    }

    fn downloads(&self) -> &[Download] {
        &self.downloads
    }

    fn room(&self) -> Option<Room> {
        self.room
    }

    fn download(&mut self, url: &str) {
        let url = match names::address(url) {
            Ok(url) => url,
            Err(why) => return self.shared.tell(ShelfNews::Failed(why)),
        };
        if self.shared.with(|state| state.fetching.iter().any(|f| f.url == url)) {
            return;
        }
        let here = self.shared.with(|state| state.files.iter().find(|f| f.url == url).cloned());
        let (name, done, total) = match here {
            Some(file) if file.is_complete() => return self.shared.tell(ShelfNews::Ready(Source::Kept(file.name))),
            Some(file) => (file.name, file.bytes, file.total),
            None => (self.name(&names::of_address(&url)), 0, None),
        };
        self.send(Errand { kind: link::DOWNLOAD, file: url.as_str().into(), name }, url, done, total);
    }

    fn keep(&mut self, source: &Source) {
        let Source::Opened(number, name) = source else { return };
        let Some(file) = opened::get(*number, name) else {
            return self.shared.tell(ShelfNews::Failed(format!("{name} was opened in an earlier visit; open it again")));
        };
        let (name, total) = (self.name(&names::clean(name)), file.size() as u64);
        self.send(Errand { kind: link::COPY, file: file.into(), name }, String::new(), 0, Some(total));
    }

    fn stop(&mut self, name: &str) {
        let helper = self.shared.with(|state| state.fetching(name).map(|f| Rc::clone(&f.helper)));
        // A text can always be copied.
        helper.into_iter().for_each(|h| drop(h.post(&JsValue::from_str(link::STOP))));
    }

    fn remove(&mut self, name: &str) {
        let shared = Rc::clone(&self.shared);
        let under_way = shared.with(|state| {
            let fetching = state.fetching(name);
            let helper = fetching.map(|f| {
                f.remove = true;
                Rc::clone(&f.helper)
            });
            if helper.is_none() {
                state.leaving.push(name.to_owned());
            }
            helper
        });
        match under_way {
            // What is under way ends first, then it is removed.
            Some(helper) => {
                helper.end();
                helper.inbox().push(Said::Ended);
            }
            None => {
                let name = name.to_owned();
                spawn_local(async move { remove(&shared, &name).await });
            }
        }
        self.show();
    }
}
