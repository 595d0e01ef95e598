//! Conversations and settings, in the browser's database.
//!
//! Files lie in memory, where they are read and changed without waiting; every change is carried to the database in the
//! background, in order, those of one turn together ([`database`]). Other tabs of the site use the same files, as two windows of
//! the desktop use the same folder: what one has kept is told to the others ([`tabs`]).
//!
//! What could not be carried stays in memory and is tried again. Until that succeeds, further changes are refused with the
//! reason, so that those who write know; [`news`] has it where nobody wrote.

mod database;
mod tabs;

use std::{cell::RefCell, collections::VecDeque, io, rc::Rc};

use pleiad_app::chats::storage::{Memory, Storage};
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::spawn_local;

use self::{database::Database, tabs::Tabs};
use crate::js;

/// How often what could not be carried is tried again, in milliseconds.
const RETRY: i32 = 3000;
/// Milliseconds after which trouble is told that no change has met.
const UNTOLD: f64 = 2000.0;

/// A part of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Area {
    Chats,
    Settings,
}

impl Area {
    const ALL: [Self; 2] = [Self::Chats, Self::Settings];

    /// What its object store is called.
    fn name(self) -> &'static str {
        match self {
            Self::Chats => "chats",
            Self::Settings => "settings",
        }
    }
}

/// A change of the files.
#[derive(Clone, Debug)]
enum Change {
    Append(Area, String, Vec<u8>),
    Write(Area, String, Vec<u8>),
    Remove(Area, String),
    Rename(Area, String, String),
    /// The pieces of a file become one.
    Merge(Area, String),
}

impl Change {
    /// Whether it has to read before it writes.
    fn reads(&self) -> bool {
        matches!(self, Self::Rename(..) | Self::Merge(..))
    }
}

/// Why changes cannot be carried.
#[derive(Debug)]
struct Trouble {
    kind: io::ErrorKind,
    words: String,
    /// When it began, in milliseconds.
    since: f64,
    /// Somebody has heard of it.
    told: bool,
}

#[derive(Default)]
struct State {
    /// The files, by [`Area`].
    files: [Memory; 2],
    database: Option<Rc<Database>>,
    tabs: Option<Tabs>,
    waiting: VecDeque<Change>,
    /// Changes are being carried.
    carrying: bool,
    trouble: Option<Trouble>,
    /// [`news`] has told of trouble.
    news_told: bool,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// What the page keeps things in.
pub struct Opened {
    /// Conversations.
    pub chats: Box<dyn Storage>,
    /// Settings.
    pub settings: Box<dyn Storage>,
    /// Why nothing outlives the page, in words, if so.
    pub problem: Option<String>,
}

/// Opens the database and reads all that is in it. Where it cannot be had, files last as long as the page.
pub async fn open() -> Opened {
    let files = [Memory::default(), Memory::default()];
    let read = async {
        let (database, _) = Database::open().await?;
        for (area, name, bytes) in database.read().await? {
            // A name that can be no file's was not written here.
            let _ = files[area as usize].clone().write(&name, &bytes);
        }
        Ok::<_, JsValue>(database)
    };
    let database = match read.await {
        Ok(database) => database,
        Err(e) => {
            let [chats, settings] = files.map(|_| Memory::default());
            return Opened { chats: Box::new(chats), settings: Box::new(settings), problem: Some(js::words(&e)) };
        }
    };
    let many = database.in_many_pieces(database::MANY_AT_START);
    let [chats, settings] = files.clone();
    STATE.with_borrow_mut(|state| {
        *state = State { files, database: Some(Rc::new(database)), tabs: Tabs::join(received), ..State::default() };
    });
    many.into_iter().for_each(|(area, name)| push(Change::Merge(area, name)));
    Opened {
        chats: Box::new(Kept { area: Area::Chats, files: chats }),
        settings: Box::new(Kept { area: Area::Settings, files: settings }),
        problem: None,
    }
}

/// Hands over all that waits: the page may be closed the next moment.
pub fn flush() {
    if STATE.with_borrow(|state| state.trouble.is_some()) {
        return;
    }
    while let Some(batch) = next_batch() {
        spawn_local(async move {
            if let Err(e) = carry(&batch).await {
                failed(batch, &e);
                kick();
            }
        });
    }
}

/// What a person should know and has not heard from [`Storage`], in words: `Err` trouble, `Ok` its end.
pub fn news() -> Option<Result<String, String>> {
    STATE.with_borrow_mut(|state| match &mut state.trouble {
        Some(trouble) if !trouble.told && js_sys::Date::now() - trouble.since > UNTOLD => {
            (trouble.told, state.news_told) = (true, true);
            let kept = "What is new is kept in memory, and will be saved as soon as that is possible";
            Some(Err(format!("This browser cannot save: {}. {kept}", trouble.words)))
        }
        None if std::mem::take(&mut state.news_told) => Some(Ok("Everything is saved again".into())),
        _ => None,
    })
}

/// One area of the database.
struct Kept {
    area: Area,
    files: Memory,
}

impl Kept {
    /// Makes a change in memory, and has it carried.
    fn change(&mut self, act: impl FnOnce(&mut Memory) -> io::Result<()>, change: impl FnOnce(Area) -> Change) -> io::Result<()> {
        let trouble = STATE.with_borrow_mut(|state| {
            state.trouble.as_mut().map(|trouble| {
                trouble.told = true;
                io::Error::new(trouble.kind, trouble.words.clone())
            })
        });
        if let Some(trouble) = trouble {
            return Err(trouble);
        }
        act(&mut self.files)?;
        push(change(self.area));
        Ok(())
    }
}

impl Storage for Kept {
    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.files.read(name)
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        self.files.size(name)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.change(|files| files.append(name, bytes), |area| Change::Append(area, name.into(), bytes.into()))
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.change(|files| files.write(name, bytes), |area| Change::Write(area, name.into(), bytes.into()))
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.change(|files| files.rename(from, to), |area| Change::Rename(area, from.into(), to.into()))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.change(|files| files.remove(name), |area| Change::Remove(area, name.into()))
    }

    fn place(&self) -> String {
        "this browser".into()
    }
}

/// Has a change carried, at the end of this turn.
fn push(change: Change) {
    STATE.with_borrow_mut(|state| match (change, state.waiting.back_mut()) {
        (Change::Append(area, name, more), Some(Change::Append(a, n, bytes))) if *a == area && *n == name => bytes.extend(more),
        (change, _) => state.waiting.push_back(change),
    });
    kick();
}

/// Begins to carry what waits.
fn kick() {
    let idle = STATE.with_borrow_mut(|state| !std::mem::replace(&mut state.carrying, true));
    if idle {
        spawn_local(carry_all());
    }
}

async fn carry_all() {
    while let Some(batch) = next_batch() {
        if let Err(e) = carry(&batch).await {
            failed(batch, &e);
            // Timers do not fail.
            let _ = js::pause(RETRY).await;
        }
    }
    STATE.with_borrow_mut(|state| state.carrying = false);
}

/// The next changes that one transaction can make: one that reads stands alone.
fn next_batch() -> Option<Vec<Change>> {
    STATE.with_borrow_mut(|state| {
        let alone = state.waiting.front()?.reads();
        let simple = state.waiting.iter().position(Change::reads).unwrap_or(state.waiting.len());
        Some(state.waiting.drain(..if alone { 1 } else { simple }).collect())
    })
}

/// Makes changes in the database, all of them or none, and tells the other tabs.
async fn carry(batch: &[Change]) -> Result<(), JsValue> {
    let database = STATE.with_borrow(|state| state.database.clone()).filter(|database| database.is_open());
    let database = match database {
        Some(database) => database,
        None => {
            let (database, new) = Database::open().await?;
            let database = Rc::new(database);
            STATE.with_borrow_mut(|state| {
                state.database = Some(Rc::clone(&database));
                if new {
                    // It was cleared while the page was open: what is in memory is all there is, this batch included.
                    state.waiting = everything(&state.files);
                }
            });
            if new {
                return Ok(());
            }
            database
        }
    };
    database.carry(batch).await?;
    STATE.with_borrow_mut(|state| {
        state.trouble = None;
        if let Some(tabs) = &state.tabs {
            tabs.tell(batch);
        }
    });
    database.in_many_pieces(database::MANY).into_iter().for_each(|(area, name)| push(Change::Merge(area, name)));
    Ok(())
}

/// All files, to be written anew.
fn everything(files: &[Memory; 2]) -> VecDeque<Change> {
    let of = |area: Area| {
        let files = &files[area as usize];
        let names = files.list().unwrap_or_default();
        names.into_iter().filter_map(move |name| Some(Change::Write(area, name.clone(), files.read(&name).ok()?)))
    };
    Area::ALL.into_iter().flat_map(of).collect()
}

/// Puts changes back that could not be made.
fn failed(batch: Vec<Change>, error: &JsValue) {
    let full = js::name(error) == "QuotaExceededError";
    let kind = if full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
    let words = if full { "there is no more room for this page".into() } else { js::words(error) };
    STATE.with_borrow_mut(|state| {
        for change in batch.into_iter().rev() {
            state.waiting.push_front(change);
        }
        match &mut state.trouble {
            Some(trouble) => (trouble.kind, trouble.words) = (kind, words),
            None => state.trouble = Some(Trouble { kind, words, since: js_sys::Date::now(), told: false }),
        }
    });
}

/// Another tab has kept a change.
fn received(change: Change) {
    STATE.with_borrow_mut(|state| {
        // What cannot be done here was done to files that are not here.
        let _ = match change {
            Change::Append(area, name, bytes) => state.files[area as usize].append(&name, &bytes),
            Change::Write(area, name, bytes) => state.files[area as usize].write(&name, &bytes),
            Change::Remove(area, name) => state.files[area as usize].remove(&name),
            Change::Rename(area, from, to) => state.files[area as usize].rename(&from, &to),
            Change::Merge(..) => Ok(()),
        };
    });
}
