//! Files in IndexedDB, as numbered pieces.
//!
//! A piece's key is `[name, number, tab]`. Numbers are milliseconds since 1970, or the next after the last, so that pieces sort in
//! the order in which they were written whichever tab wrote them, and no append has to read what is there. Pieces that have
//! become many are made one, which keeps the key of the first: what another tab appends meanwhile sorts after it.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
};

use js_sys::{Array, Object, Promise, Reflect, Uint8Array};
use wasm_bindgen::{JsCast as _, JsValue, closure::Closure, prelude::wasm_bindgen};
use web_sys::{IdbDatabase, IdbKeyRange, IdbObjectStore, IdbRequest, IdbTransaction};

use super::{Area, Change};
use crate::js;

/// What the database is called.
const NAME: &str = "pleiad";
/// Milliseconds after which a database that does not open is given up.
const PATIENCE: i32 = 5000;
/// A file of so many pieces is made one piece.
pub const MANY: usize = 512;
/// So many are made one when the program starts.
pub const MANY_AT_START: usize = 32;

#[wasm_bindgen]
extern "C" {
    /// A database, with what web-sys does not have of it.
    type Begins;
    #[wasm_bindgen(method, catch)]
    fn transaction(this: &Begins, areas: &Array, mode: &str, options: &Object) -> Result<IdbTransaction, JsValue>;

    /// A transaction, likewise.
    type Commits;
    #[wasm_bindgen(method, catch)]
    fn commit(this: &Commits) -> Result<(), JsValue>;
}

/// A connection to the database.
pub struct Database {
    database: IdbDatabase,
    /// The browser, or another tab, has ended it.
    ended: Rc<Cell<bool>>,
    /// Tells this tab's pieces from those that another wrote in the same millisecond.
    tab: f64,
    /// The greatest number so far.
    last: Cell<f64>,
    /// Pieces of files, as far as this tab knows.
    pieces: RefCell<HashMap<(Area, String), usize>>,
    _listeners: [Closure<dyn FnMut()>; 2],
}

impl Database {
    /// Opens it. Whether it was made just now.
    ///
    /// # Errors
    /// Where the browser gives none.
    pub async fn open() -> Result<(Self, bool), JsValue> {
        let factory = web_sys::window().map(|w| w.indexed_db()).transpose()?.flatten();
        let factory = factory.ok_or_else(|| JsValue::from("it has no database for pages"))?;
        let request = factory.open_with_u32(NAME, 1)?;
        let new = Rc::new(Cell::new(false));
        let upgrade = Closure::once({
            let (request, new) = (request.clone(), Rc::clone(&new));
            move || {
                new.set(true);
                if let Ok(database) = request.result() {
                    let database: IdbDatabase = database.unchecked_into();
                    for area in Area::ALL {
                        // Where it cannot be made, the first transaction tells.
                        let _ = database.create_object_store(area.name());
                    }
                }
            }
        });
        let upgrade: Closure<dyn FnMut()> = upgrade;
        request.set_onupgradeneeded(Some(upgrade.as_ref().unchecked_ref()));
        let opened = settled(&request);
        let late = js::pause(PATIENCE);
        Promise::race(&Array::of2(&opened, &late)).await.map_err(|_| error_of(&request))?;
        let database: IdbDatabase = request.result().map_err(|_| JsValue::from("its database does not open"))?.unchecked_into();
        let ended = Rc::new(Cell::new(false));
        let listener = |closes: bool| {
            let (database, ended) = (database.clone(), Rc::clone(&ended));
            Closure::<dyn FnMut()>::new(move || {
                ended.set(true);
                if closes {
                    database.close();
                }
            })
        };
        // A tab that clears the database, or brings a new version of it, must not have to wait for this one.
        let listeners = [listener(false), listener(true)];
        database.set_onclose(Some(listeners[0].as_ref().unchecked_ref()));
        database.set_onversionchange(Some(listeners[1].as_ref().unchecked_ref()));
        let tab = (js_sys::Math::random() * 4_294_967_296.0).floor();
        let pieces = RefCell::default();
        Ok((Self { database, ended, tab, last: Cell::new(0.0), pieces, _listeners: listeners }, new.get()))
    }

    /// Whether it has not been ended.
    pub fn is_open(&self) -> bool {
        !self.ended.get()
    }

    /// All files.
    ///
    /// # Errors
    /// Where the browser cannot read them.
    pub async fn read(&self) -> Result<Vec<(Area, String, Vec<u8>)>, JsValue> {
        let transaction = self.begin("readonly")?;
        let mut files: Vec<(Area, String, Vec<u8>)> = Vec::new();
        for area in Area::ALL {
            let store = transaction.object_store(area.name())?;
            let (keys, values) = (store.get_all_keys()?, store.get_all()?);
            let (keys, values) = (result(&keys).await?, result(&values).await?);
            for (key, value) in Array::from(&keys).iter().zip(Array::from(&values).iter()) {
                let key = Array::from(&key);
                let (Some(name), Ok(bytes)) = (key.get(0).as_string(), value.dyn_into::<Uint8Array>()) else { continue };
                self.last.set(self.last.get().max(key.get(1).as_f64().unwrap_or(0.0)));
                *self.pieces.borrow_mut().entry((area, name.clone())).or_default() += 1;
                match files.last_mut() {
                    // Keys come in order, so the pieces of a file are neighbours.
                    Some((a, n, all)) if *a == area && *n == name => all.extend(bytes.to_vec()),
                    _ => files.push((area, name, bytes.to_vec())),
                }
            }
        }
        Ok(files)
    }

    /// Makes changes, all of them or none.
    ///
    /// # Errors
    /// Where there is no room, or the database has been ended.
    pub async fn carry(&self, changes: &[Change]) -> Result<(), JsValue> {
        let transaction = match self.begin("readwrite") {
            Ok(transaction) => transaction,
            Err(e) => {
                // What it cannot begin on, it will not begin on later: it is opened anew.
                self.ended.set(true);
                return Err(e);
            }
        };
        for change in changes {
            if let Err(e) = self.place(&transaction, change).await {
                // It may have ended itself.
                let _ = transaction.abort();
                return Err(transaction.error().map_or(e, Into::into));
            }
        }
        // It would commit by itself, but later, and not on a page that is being closed.
        let _ = transaction.unchecked_ref::<Commits>().commit();
        let ended = Promise::new(&mut |done, failed| {
            transaction.set_oncomplete(Some(&done));
            transaction.set_onabort(Some(&failed));
        });
        match ended.await {
            Ok(_) => {
                self.count(changes);
                Ok(())
            }
            Err(_) => Err(transaction.error().map_or_else(|| "the browser has stopped saving".into(), Into::into)),
        }
    }

    /// Files of at least so many pieces, each named once: they are taken for one piece from then on.
    pub fn in_many_pieces(&self, many: usize) -> Vec<(Area, String)> {
        let mut pieces = self.pieces.borrow_mut();
        let named = pieces.iter_mut().filter(|(_, n)| **n >= many).map(|(file, n)| {
            *n = 1;
            file.clone()
        });
        named.collect()
    }

    fn begin(&self, mode: &str) -> Result<IdbTransaction, JsValue> {
        let options = Object::new();
        Reflect::set(&options, &"durability".into(), &"relaxed".into())?;
        let areas: Array = Area::ALL.iter().map(|area| JsValue::from(area.name())).collect();
        self.database.unchecked_ref::<Begins>().transaction(&areas, mode, &options)
    }

    /// Asks for a change.
    async fn place(&self, transaction: &IdbTransaction, change: &Change) -> Result<(), JsValue> {
        let store = |area: &Area| transaction.object_store(area.name());
        match change {
            Change::Append(area, name, bytes) => self.put(&store(area)?, name, bytes),
            Change::Write(area, name, bytes) => {
                let store = store(area)?;
                store.delete(&pieces_of(name)?)?;
                self.put(&store, name, bytes)
            }
            Change::Remove(area, name) => store(area)?.delete(&pieces_of(name)?).map(drop),
            Change::Rename(area, from, to) => merge(&store(area)?, from, to).await,
            Change::Merge(area, name) => merge(&store(area)?, name, name).await,
        }
    }

    fn put(&self, store: &IdbObjectStore, name: &str, bytes: &[u8]) -> Result<(), JsValue> {
        let number = js_sys::Date::now().max(self.last.get() + 1.0);
        self.last.set(number);
        let key = Array::of3(&name.into(), &number.into(), &self.tab.into());
        store.put_with_key(&Uint8Array::from(bytes), &key).map(drop)
    }

    /// Keeps count of pieces.
    fn count(&self, changes: &[Change]) {
        let mut pieces = self.pieces.borrow_mut();
        for change in changes {
            match change {
                Change::Append(area, name, _) => *pieces.entry((*area, name.clone())).or_default() += 1,
                Change::Write(area, name, _) | Change::Merge(area, name) => {
                    pieces.insert((*area, name.clone()), 1);
                }
                Change::Remove(area, name) => {
                    pieces.remove(&(*area, name.clone()));
                }
                Change::Rename(area, from, to) => {
                    pieces.remove(&(*area, from.clone()));
                    pieces.insert((*area, to.clone()), 1);
                }
            }
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.database.set_onclose(None);
        self.database.set_onversionchange(None);
        self.database.close();
    }
}

/// Makes the pieces of a file one piece, of the file `to`. Where there are none, nothing is done.
async fn merge(store: &IdbObjectStore, from: &str, to: &str) -> Result<(), JsValue> {
    let range = pieces_of(from)?;
    let (keys, values) = (store.get_all_keys_with_key(&range)?, store.get_all_with_key(&range)?);
    let (keys, values) = (Array::from(&result(&keys).await?), Array::from(&result(&values).await?));
    if keys.length() == 0 || (from == to && keys.length() == 1) {
        return Ok(());
    }
    let whole: Vec<u8> = values.iter().filter_map(|v| v.dyn_into::<Uint8Array>().ok()).flat_map(|v| v.to_vec()).collect();
    let first = Array::from(&keys.get(0));
    store.delete(&range)?;
    store.delete(&pieces_of(to)?)?;
    store.put_with_key(&Uint8Array::from(&whole[..]), &Array::of3(&to.into(), &first.get(1), &first.get(2))).map(drop)
}

/// The keys of a file's pieces: numbers sort before arrays.
fn pieces_of(name: &str) -> Result<JsValue, JsValue> {
    IdbKeyRange::bound(&Array::of1(&name.into()), &Array::of2(&name.into(), &Array::new())).map(Into::into)
}

/// Settles when a request does.
fn settled(request: &IdbRequest) -> Promise {
    Promise::new(&mut |done, failed| {
        request.set_onsuccess(Some(&done));
        request.set_onerror(Some(&failed));
    })
}

/// What a request has brought.
async fn result(request: &IdbRequest) -> Result<JsValue, JsValue> {
    match settled(request).await {
        Ok(_) => request.result(),
        Err(_) => Err(error_of(request)),
    }
}

fn error_of(request: &IdbRequest) -> JsValue {
    request.error().ok().flatten().map_or_else(|| "its database does not answer".into(), Into::into)
}
