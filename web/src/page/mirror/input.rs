//! Questions that are written without seeing the canvas.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use pleiad_app::loading::Wake;
use wasm_bindgen::{JsCast as _, closure::Closure};
use web_sys::{Event, HtmlTextAreaElement, KeyboardEvent};

use crate::js;

/// The key code of what an input method has taken.
const COMPOSING: u32 = 229;

/// The element, and what was written and not asked yet.
pub struct Input {
    asked: Rc<RefCell<VecDeque<String>>>,
}

impl Input {
    /// Listens to the element, as long as the page is there.
    pub fn new(wake: Wake) -> Self {
        let asked: Rc<RefCell<VecDeque<String>>> = Rc::default();
        let element = js::element("pleiad-input").and_then(|e| e.dyn_into::<HtmlTextAreaElement>().ok());
        if let Some(element) = element {
            let submit = {
                let (asked, element) = (Rc::clone(&asked), element.clone());
                move || {
                    let text = element.value();
                    if !text.trim().is_empty() {
                        element.set_value("");
                        asked.borrow_mut().push_back(text);
                        wake();
                    }
                }
            };
            let pressed = Closure::<dyn FnMut(KeyboardEvent)>::new({
                let submit = submit.clone();
                move |event: KeyboardEvent| {
                    let composing = event.is_composing() || event.key_code() == COMPOSING;
                    let plain = !(event.shift_key() || event.ctrl_key() || event.alt_key() || event.meta_key());
                    if event.key() == "Enter" && plain && !composing {
                        event.prevent_default();
                        submit();
                    }
                }
            });
            // Where one cannot listen, the form still can, and the other way round.
            let _ = element.add_event_listener_with_callback("keydown", pressed.into_js_value().unchecked_ref());
            let sent = Closure::<dyn FnMut(Event)>::new(move |event: Event| {
                event.prevent_default();
                submit();
            });
            if let Some(form) = element.form() {
                let _ = form.add_event_listener_with_callback("submit", sent.into_js_value().unchecked_ref());
            }
        }
        Self { asked }
    }

    /// The next question.
    pub fn take(&mut self) -> Option<String> {
        self.asked.borrow_mut().pop_front()
    }

    /// Questions that wait.
    pub fn waiting(&self) -> usize {
        self.asked.borrow().len()
    }
}
