//! What tabs of the site tell each other: changes that were kept.

use js_sys::{Array, Uint8Array};
use wasm_bindgen::{JsCast as _, JsValue, closure::Closure};
use web_sys::{BroadcastChannel, MessageEvent};

use super::{Area, Change};

/// What the channel is called.
const CHANNEL: &str = "pleiad-files";

/// The other tabs.
pub struct Tabs {
    channel: BroadcastChannel,
    _heard: Closure<dyn FnMut(MessageEvent)>,
}

impl Tabs {
    /// Begins to listen. `None`: this browser has no such channels, and tabs hear of each other at their next start.
    pub fn join(received: fn(Change)) -> Option<Self> {
        let channel = BroadcastChannel::new(CHANNEL).ok()?;
        let heard = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            if Array::is_array(&event.data()) {
                Array::from(&event.data()).iter().filter_map(|change| read(&change)).for_each(received);
            }
        });
        channel.set_onmessage(Some(heard.as_ref().unchecked_ref()));
        Some(Self { channel, _heard: heard })
    }

    /// Tells of changes that were kept.
    pub fn tell(&self, changes: &[Change]) {
        let message: Array = changes.iter().filter_map(write).collect();
        if message.length() > 0 {
            // A tab that hears nothing of it reads it at its next start.
            let _ = self.channel.post_message(&message);
        }
    }
}

fn write(change: &Change) -> Option<Array> {
    let (kind, area, name, more): (&str, Area, &str, JsValue) = match change {
        Change::Append(area, name, bytes) => ("append", *area, name, Uint8Array::from(&bytes[..]).into()),
        Change::Write(area, name, bytes) => ("write", *area, name, Uint8Array::from(&bytes[..]).into()),
        Change::Remove(area, name) => ("remove", *area, name, JsValue::NULL),
        Change::Rename(area, from, to) => ("rename", *area, from, to.into()),
        Change::Merge(..) => return None,
    };
    Some(Array::of4(&kind.into(), &area.name().into(), &name.into(), &more))
}

fn read(message: &JsValue) -> Option<Change> {
    let message = message.dyn_ref::<Array>()?;
    let text = |at: u32| message.get(at).as_string();
    let area = text(1)?;
    let area = Area::ALL.into_iter().find(|a| a.name() == area)?;
    let name = text(2)?;
    let bytes = || message.get(3).dyn_into::<Uint8Array>().ok().map(|b| b.to_vec());
    match text(0)?.as_str() {
        "append" => Some(Change::Append(area, name, bytes()?)),
        "write" => Some(Change::Write(area, name, bytes()?)),
        "remove" => Some(Change::Remove(area, name)),
        "rename" => Some(Change::Rename(area, name, text(3)?)),
        _ => None,
    }
}
